//! SIGINT, SIGTERM and the run's own deadline as one flag that every loop polls.
//!
//! A second signal ends the program and its guests at once.

use crate::lock::lock;
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
fn end_at_the_second() -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new(ENDING)?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut first: Option<Instant> = None;
        for signal in signals.forever() {
            match first {
                Some(begin) if begin.elapsed() >= SAME_WISH => signal_hook::low_level::exit(128 + signal),
                Some(_) => {}
                None => first = Some(Instant::now()),
            }
        }
    })?;
    Ok(())
}

/// The flag of this process, once [`Interrupt::install`] has run.
static INSTALLED: OnceLock<Interrupt> = OnceLock::new();

/// Value of the flag when the run's own deadline has passed. No signal handler for SIGALRM is installed, so that a signal
/// from outside can't set this value.
pub const DEADLINE: i32 = signal_hook::consts::SIGALRM;

/// The flag, shared by all threads of a run.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Installs handlers for SIGINT and SIGTERM that set the flag. There is one flag per process; further calls return it.
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
        for signal in ENDING {
            signal_hook::flag::register_usize(signal, Arc::clone(&interrupt.0), signal as usize)?;
        }
        end_at_the_second()?;
        Ok(INSTALLED.get_or_init(|| interrupt).clone())
    }

    /// The signal that was received, if handlers are installed: for code that runs before a run exists.
    pub fn raised() -> Option<i32> {
        INSTALLED.get().and_then(Self::signal)
    }

    /// Also handles SIGHUP, for interactive commands. Runs do not call this, so that they survive under `nohup`.
    ///
    /// # Errors
    /// `sigaction` failed.
    pub fn also_on_hangup(&self) -> std::io::Result<()> {
        let signal = signal_hook::consts::SIGHUP;
        signal_hook::flag::register_usize(signal, Arc::clone(&self.0), signal as usize).map(drop)
    }

    /// The signal that was received, if any.
    pub fn signal(&self) -> Option<i32> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }

    /// Why the run ends early; goes into the verdicts of cells that did not run.
    pub fn why(&self) -> &'static str {
        if self.signal() == Some(DEADLINE) {
            "the run took longer than its deadline"
        } else {
            "the run was interrupted"
        }
    }

    /// Sets the flag as a signal would: for reporters that can't continue, and for tests.
    pub fn raise(&self, signal: i32) {
        self.0.store(signal as usize, Ordering::SeqCst);
    }
}
