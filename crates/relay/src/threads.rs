//! The threads of connections. They are joined, and there is a limit to them: the other side can open a connection and reset it
//! again while the thread of the first attempt still connects.

use crate::{MOST, lock};
use std::{
    sync::Mutex,
    thread::{self, JoinHandle},
};

/// Threads at the same time: two for each connection, and as many that have not noticed yet that their connection ended.
pub(crate) const MOST_THREADS: usize = 4 * MOST;

#[derive(Default)]
pub(crate) struct Threads {
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Whether the work was started: not where as many threads run as may.
    pub(crate) fn start(&self, work: impl FnOnce() + Send + 'static) -> bool {
        let mut running = lock(&self.running);
        // Joined, not only forgotten: otherwise a connection's memory would be kept until the next one.
        for ended in running.extract_if(.., |thread| thread.is_finished()) {
            let _ = ended.join();
        }
        if running.len() >= MOST_THREADS {
            return false;
        }
        thread::Builder::new().spawn(work).map(|thread| running.push(thread)).is_ok()
    }

    /// Waits for all.
    #[cfg(test)]
    pub(crate) fn join(&self) {
        // A thread may start another one meanwhile.
        loop {
            let Some(thread) = lock(&self.running).pop() else { return };
            let _ = thread.join();
        }
    }
}
