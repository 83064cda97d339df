//! SIGINT, SIGTERM and the run's own deadline as one flag that every loop polls.
//!
//! A second signal ends the program and its guests at once. Where a program runs in a guest, the first one is that program's
//! ([`Relay`]), and everything else moves by one.

mod relay;

pub use relay::Relay;
use relay::SignalDesk;

use crate::lock::lock;
use signal_hook::consts::SIGHUP;
use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Signals that interrupt the program.
const ENDING: [i32; 2] = [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM];
/// A second signal within this time is ignored: `timeout` sends its signal to the program and to its process group.
const SAME_WISH: Duration = Duration::from_millis(300);

/// Waits for a second signal on a thread of its own, which nothing else can block.
fn end_at_the_second(relay: Arc<Mutex<SignalDesk>>) -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new(ENDING)?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut first: Option<Instant> = None;
        for signal in signals.forever() {
            match first {
                Some(begin) if begin.elapsed() >= SAME_WISH => signal_hook::low_level::exit(128 + signal),
                Some(_) => {}
                None if lock(&relay).is_waiting() => {}
                None => first = Some(Instant::now()),
            }
        }
    })?;
    Ok(())
}

/// The flag of this process, once [`Interrupt::install`] has run.
static INSTALLED: OnceLock<Interrupt> = OnceLock::new();

/// Shared by all threads of a run.
/// A signal and a stop by the run itself are separate: only a signal is reported as an interruption, decides the exit
/// code and remains set after the run.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    signal: Arc<AtomicUsize>,
    stop: Arc<AtomicUsize>,
    relay: Arc<Mutex<SignalDesk>>,
}

/// Why a run stops itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum RunStop {
    /// It took longer than its own deadline.
    Deadline = 1,
    /// The reports can't be written.
    Reports = 2,
    /// A cell failed, and the user wants no more after that.
    Failure = 3,
}

impl RunStop {
    const ALL: [Self; 3] = [Self::Deadline, Self::Reports, Self::Failure];
}

impl Interrupt {
    /// Installs handlers for SIGINT and SIGTERM that set the flag. There is one flag per process; further calls return
    /// it.
    ///
    /// # Errors
    /// `sigaction` failed.
    pub fn install() -> std::io::Result<Self> {
        static INSTALLING: Mutex<()> = Mutex::new(());
        let _installing = lock(&INSTALLING);
        if let Some(installed) = INSTALLED.get() {
            return Ok(installed.clone());
        }
        let interrupt = Self::default();
        let hangup = Some(SIGHUP).filter(|signal| !is_ignored(*signal));
        for signal in ENDING.into_iter().chain(hangup) {
            signal_hook::flag::register_usize(signal, Arc::clone(&interrupt.signal), signal as usize)?;
        }
        end_at_the_second(Arc::clone(&interrupt.relay))?;
        Ok(INSTALLED.get_or_init(|| interrupt).clone())
    }

    /// The signal that was received, if handlers are installed: for code that runs before a run exists.
    pub fn raised() -> Option<i32> {
        INSTALLED.get().and_then(Self::signal)
    }

    /// The flag of one run: it is set by every signal, and the run can stop itself without affecting later runs.
    #[must_use]
    pub fn for_one_run(&self) -> Self {
        Self { signal: Arc::clone(&self.signal), stop: Arc::default(), relay: Arc::clone(&self.relay) }
    }

    /// Gives the next signal to a program, as long as what this returns lives.
    pub fn relay(&self) -> Relay {
        Relay::open(&self.relay)
    }

    /// Whether the run must end, for any reason.
    pub fn is_over(&self) -> bool {
        self.signal().is_some() || self.stopped().is_some()
    }

    /// The signal that was received, if any.
    pub fn signal(&self) -> Option<i32> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            raised => {
                let signal = i32::try_from(raised).ok()?;
                if !lock(&self.relay).takes(signal) {
                    return Some(signal);
                }
                // Another that came meanwhile stays.
                let _ = self.signal.compare_exchange(raised, 0, Ordering::SeqCst, Ordering::SeqCst);
                None
            }
        }
    }

    /// Why the run stops itself, if it does.
    pub fn stopped(&self) -> Option<RunStop> {
        let stop = self.stop.load(Ordering::SeqCst);
        RunStop::ALL.into_iter().find(|it| *it as usize == stop)
    }

    /// Why the run ends early, for the verdicts of the cells that do not run.
    pub fn why(&self) -> &'static str {
        match (self.signal(), self.stopped()) {
            (None, Some(RunStop::Deadline)) => "the run took longer than its deadline",
            (None, Some(RunStop::Reports)) => "the run's reports can't be written",
            (None, Some(RunStop::Failure)) => "the run ended at the first failure (--fail-fast)",
            _ => "the run was interrupted",
        }
    }

    /// Sets the flag as a signal would: for reporters that can't continue, and for tests.
    pub fn raise(&self, signal: i32) {
        self.signal.store(signal as usize, Ordering::SeqCst);
    }

    /// Stops the run of this flag. The first reason counts.
    pub fn stop(&self, why: RunStop) {
        let _ = self.stop.compare_exchange(0, why as usize, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// Whether this process ignores a signal, by the mask that the kernel shows (proc(5), `SigIgn`).
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_is_the_programs_and_the_second_ends_the_run() {
        let process = Interrupt::default();
        let run = process.for_one_run();
        let (one, other) = (run.relay(), run.relay());
        assert_eq!(one.signal(), None);
        process.raise(15);
        // As `timeout` sends it twice.
        assert!(!run.is_over());
        process.raise(15);
        assert!(!run.is_over());
        assert_eq!((one.signal(), other.signal(), run.relay().signal()), (Some(15), Some(15), None));
        thread::sleep(SAME_WISH + Duration::from_millis(50));
        process.raise(2);
        assert!(run.is_over() && process.signal() == Some(2));

        let alone = Interrupt::default();
        drop(alone.relay());
        alone.raise(2);
        assert!(alone.is_over(), "without a program the first signal counts");
    }

    #[test]
    fn a_run_that_stops_itself_stops_no_other_and_is_no_signal() {
        let process = Interrupt::default();
        let (one, other) = (process.for_one_run(), process.for_one_run());
        one.stop(RunStop::Reports);
        one.stop(RunStop::Deadline);
        assert!(one.is_over() && !other.is_over() && !process.is_over());
        assert_eq!((one.signal(), one.why()), (None, "the run's reports can't be written"));
        process.raise(signal_hook::consts::SIGTERM);
        assert!(other.is_over() && one.signal() == Some(signal_hook::consts::SIGTERM));
        assert_eq!(one.why(), "the run was interrupted");
    }
}
