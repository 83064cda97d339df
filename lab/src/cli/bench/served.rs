//! Measures runs whose guests `lab serve` holds.

use crate::{
    error::Error,
    serve::{Client, GuestServer, Limits},
};
use lab_base::{interrupt::Interrupt, lock::lock};
use lab_record::{
    event::{Event, Start},
    log::EventReader,
};
use lab_report::results::directory;
use std::{
    path::Path,
    sync::{Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

/// Guests of each kernel, as many as `lab serve` holds by default.
const GUESTS: usize = 2;
/// Maximum time until a guest is ready.
const PATIENCE: Duration = Duration::from_secs(120);
/// Interval at which an interruption is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// Guests that have become ready.
#[derive(Default)]
pub(super) struct Ready {
    count: Mutex<usize>,
    more: Condvar,
}

impl Ready {
    /// Waits until all guests are ready that runs of this many kernels, after their first ones, have been followed by.
    ///
    /// # Errors
    /// One is not, in a time in which hundreds would be.
    pub(super) fn after(&self, kernels: usize, runs: usize) -> Result<(), Error> {
        let wanted = kernels * GUESTS + runs;
        let deadline = Instant::now() + PATIENCE;
        let mut count = lock(&self.count);
        while *count < wanted {
            // An interruption is told as one, whatever the error says.
            if Instant::now() >= deadline || Interrupt::raised().is_some() {
                let waited = PATIENCE.as_secs();
                return Err(Error::Host(format!("{count} guests of {wanted} became ready in {waited} s")));
            }
            let waited = self.more.wait_timeout(count, LOOK);
            (count, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        Ok(())
    }
}

/// Refuses to measure runs whose guests somebody holds.
///
/// # Errors
/// `lab serve` runs for this cache.
pub(super) fn nobody_serves(cache: &Path) -> Result<(), Error> {
    match Client::of(cache).is_some_and(|client| client.is_answered()) {
        true => Err(Error::Usage("`lab serve` runs, and its guests would be measured: end it first".to_owned())),
        false => Ok(()),
    }
}

/// Does something while guests are held for the runs that use a cache.
///
/// # Errors
/// Those of `work`, and of the server.
pub(super) fn served<T>(cache: &Path, work: impl FnOnce(&Ready) -> Result<T, Error>) -> Result<T, Error> {
    let (ready, end) = (Ready::default(), Interrupt::default());
    let tell = |line: &str| {
        if line.contains("is ready") {
            *lock(&ready.count) += 1;
            ready.more.notify_all();
        }
    };
    let limits = Limits { guests: GUESTS, most: 8 * GUESTS, idle: Duration::from_secs(3600) };
    let server = GuestServer::new(cache, limits, end.clone(), &tell)?;
    thread::scope(|scope| {
        scope.spawn(|| server.serve());
        let _ends = Ends(end);
        work(&ready)
    })
}

/// Ends a server, also after a panic.
struct Ends(Interrupt);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.raise(signal_hook::consts::SIGTERM);
    }
}

/// Checks that all guests of the latest run were held.
///
/// # Errors
/// One was not.
pub(super) fn were_held(results: &Path) -> Result<(), Error> {
    for stamped in EventReader::open(&results.join(directory::LATEST))? {
        if let Event::GuestStarted { start, kernel, .. } = stamped?.event
            && start != Start::Held
        {
            return Err(Error::Host(format!("the measured guest of {kernel} was not held")));
        }
    }
    Ok(())
}
