//! Ctrl-C, SIGTERM and the run's own deadline as a flag that every loop looks at.

use crate::lock::lock;
use std::sync::{
    Arc, Mutex, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

/// The flag of this process, once there is one.
static INSTALLED: OnceLock<Interrupt> = OnceLock::new();

/// What is raised where the run's own deadline passes: no signal that the program could get from outside, since it does
/// not watch for it.
pub const DEADLINE: i32 = signal_hook::consts::SIGALRM;

/// Shared by all threads of a run.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Sets the flag on SIGINT and SIGTERM from now on: the process's one flag, whoever asks for it.
    ///
    /// # Errors
    /// The system's answer to `sigaction`.
    pub fn install() -> std::io::Result<Self> {
        static INSTALLING: Mutex<()> = Mutex::new(());
        let _installing = lock(&INSTALLING);
        if let Some(installed) = INSTALLED.get() {
            return Ok(installed.clone());
        }
        let interrupt = Self::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register_usize(signal, Arc::clone(&interrupt.0), signal as usize)?;
        }
        Ok(INSTALLED.get_or_init(|| interrupt).clone())
    }

    /// The signal that came, where this process watches for any: for what is done before there is a run.
    pub fn raised() -> Option<i32> {
        INSTALLED.get().and_then(Self::signal)
    }

    /// Also on the terminal's end (SIGHUP): for who sits at it. A run goes on, as `nohup` wants it to.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub fn also_on_hangup(&self) -> std::io::Result<()> {
        let signal = signal_hook::consts::SIGHUP;
        signal_hook::flag::register_usize(signal, Arc::clone(&self.0), signal as usize).map(drop)
    }

    /// The signal that came, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }

    /// Why the run ends early, for the cells that it costs.
    pub fn why(&self) -> &'static str {
        if self.signal() == Some(DEADLINE) {
            "the run took longer than its deadline"
        } else {
            "the run was interrupted"
        }
    }

    /// Interrupts the run as a signal would: for a reporter that can't go on, and for tests.
    pub fn raise(&self, signal: i32) {
        self.0.store(signal as usize, Ordering::SeqCst);
    }
}
