//! Stops a case before its first packet, so that `lab shell` can show what it has built.
//!
//! Every exchange passes here first. An open gate, the usual state, costs one uncontended lock.

use lab_topology::unpoisoned;
use std::{
    sync::{
        Mutex, MutexGuard,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    time::Duration,
};

static GATE: Mutex<Option<Gate>> = Mutex::new(None);

/// Where a case is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopAt {
    /// Before its first packet.
    Flow,
    /// Behind the attachment of this number, counted from 1.
    Attachment(u32),
}

#[derive(Debug)]
struct Gate {
    stop: StopAt,
    attachments: u32,
    reached: Sender<()>,
    open: Receiver<()>,
}

/// A closed gate. Dropping it lets everything pass.
#[derive(Debug)]
pub struct Hold {
    reached: Receiver<()>,
    _open: Sender<()>,
}

/// Closes the gate, once: a case that is stopped there goes on when the [`Hold`] is dropped, and is not stopped again.
pub fn close(stop: StopAt) -> Hold {
    let ((reached, wait), (keep, open)) = (mpsc::channel(), mpsc::channel());
    *gate() = Some(Gate { stop, attachments: 0, reached, open });
    Hold { reached: wait, _open: keep }
}

/// Removes a gate that no case has reached; returns how many attachments it has seen.
pub fn remove() -> u32 {
    gate().take().map_or(0, |gate| gate.attachments)
}

impl Hold {
    /// Waits for somebody to reach the gate; false after `timeout`, or where the gate was taken away.
    pub fn reached(&self, timeout: Duration) -> bool {
        !matches!(self.reached.recv_timeout(timeout), Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected))
    }
}

/// A packet is about to be sent.
pub(crate) fn flow() {
    pass(|gate| gate.stop == StopAt::Flow);
}

/// A program has been attached.
pub fn attached() {
    pass(|gate| {
        gate.attachments += 1;
        gate.stop == StopAt::Attachment(gate.attachments)
    });
}

fn pass(stops: impl FnOnce(&mut Gate) -> bool) {
    // Not waited for under the lock.
    let stopped = {
        let mut gate = gate();
        if gate.as_mut().is_some_and(stops) { gate.take() } else { None }
    };
    if let Some(gate) = stopped {
        let _ = gate.reached.send(());
        // Nothing is ever sent: the end of the hold is the word.
        let _ = gate.open.recv();
    }
}

fn gate() -> MutexGuard<'static, Option<Gate>> {
    unpoisoned(GATE.lock())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, sync::atomic::AtomicU32, sync::atomic::Ordering, thread};

    /// One test, since the gate is one for the process.
    #[test]
    fn only_the_first_to_reach_the_gate_stops_and_only_until_it_is_opened() {
        let passed = Arc::new(AtomicU32::new(0));
        let case = |passed: Arc<AtomicU32>| {
            thread::spawn(move || {
                for _ in 0..3 {
                    attached();
                    passed.fetch_add(1, Ordering::SeqCst);
                }
                flow();
                flow();
                passed.fetch_add(10, Ordering::SeqCst);
            })
        };
        for (stop, seen) in [(StopAt::Flow, 3), (StopAt::Attachment(2), 1)] {
            passed.store(0, Ordering::SeqCst);
            let hold = close(stop);
            let thread = case(passed.clone());
            assert!(hold.reached(Duration::from_secs(10)), "{stop:?}");
            assert_eq!(passed.load(Ordering::SeqCst), seen, "{stop:?}");
            drop(hold);
            thread.join().unwrap();
            assert_eq!(passed.load(Ordering::SeqCst), 13, "{stop:?}");
        }
        let hold = close(StopAt::Attachment(7));
        case(passed).join().unwrap();
        assert_eq!(remove(), 3);
        assert!(!hold.reached(Duration::from_secs(10)), "a gate that is gone is never reached");
    }
}
