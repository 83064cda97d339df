//! A signal that is somebody else's: while a program runs in a guest, the first signal is the program's, and only the next one
//! ends this process's work.

use super::SAME_WISH;
use crate::lock::lock;
use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

/// Programs that want signals, and the one that they got.
#[derive(Debug, Default)]
pub(super) struct SignalDesk {
    open: usize,
    given: Option<(i32, Instant)>,
}

impl SignalDesk {
    /// Whether a relay is open that has no signal yet: the next one does not count.
    pub(super) const fn is_waiting(&self) -> bool {
        self.open > 0 && self.given.is_none()
    }

    /// Gives a signal to the relays; false if it is this process's own.
    pub(super) fn takes(&mut self, signal: i32) -> bool {
        match self.given {
            None if self.open > 0 => {
                self.given = Some((signal, Instant::now()));
                true
            }
            None => false,
            // A second one of the same wish.
            Some((_, at)) => at.elapsed() < SAME_WISH,
        }
    }
}

/// While one exists, the first signal to this process is given to all of them and interrupts nothing.
#[derive(Debug)]
pub struct Relay {
    desk: Arc<Mutex<SignalDesk>>,
    /// Whether the signal was given to others before.
    deaf: bool,
}

impl Relay {
    pub(super) fn open(desk: &Arc<Mutex<SignalDesk>>) -> Self {
        let mut state = lock(desk);
        state.open += 1;
        Self { desk: Arc::clone(desk), deaf: state.given.is_some() }
    }

    /// The signal that was given to it.
    pub fn signal(&self) -> Option<i32> {
        lock(&self.desk).given.map(|(signal, _)| signal).filter(|_| !self.deaf)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        lock(&self.desk).open -= 1;
    }
}
