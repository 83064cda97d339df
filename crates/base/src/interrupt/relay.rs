//! A signal that is somebody else's: while a program runs in a guest, the first signal is the program's, and only the next one
//! ends this process's work.

use super::SAME_WISH;
use crate::lock::lock;
use std::{sync::Mutex, time::Instant};

/// Programs that want signals, and the one that they got.
struct State {
    open: usize,
    given: Option<(i32, Instant)>,
}

static STATE: Mutex<State> = Mutex::new(State { open: 0, given: None });

/// While one exists, the first signal to this process is given to all of them and interrupts nothing.
#[derive(Debug)]
pub struct Relay {
    /// Whether the signal was given to others before.
    deaf: bool,
}

impl Relay {
    /// Takes the next signal.
    pub fn open() -> Self {
        let mut state = lock(&STATE);
        state.open += 1;
        Self { deaf: state.given.is_some() }
    }

    /// The signal that was given to it.
    pub fn signal(&self) -> Option<i32> {
        lock(&STATE).given.map(|(signal, _)| signal).filter(|_| !self.deaf)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut state = lock(&STATE);
        state.open -= 1;
    }
}

/// Whether a relay is open that has no signal yet: the next one does not count.
pub(super) fn is_waiting() -> bool {
    let state = lock(&STATE);
    state.open > 0 && state.given.is_none()
}

/// Gives a signal to the relays; false if it is this process's own.
pub(super) fn takes(signal: i32) -> bool {
    let mut state = lock(&STATE);
    match state.given {
        None if state.open > 0 => {
            state.given = Some((signal, Instant::now()));
            true
        }
        None => false,
        // A second one of the same wish.
        Some((_, at)) => at.elapsed() < SAME_WISH,
    }
}
