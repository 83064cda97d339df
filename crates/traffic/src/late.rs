//! A second look at flows of which nothing arrived, so that a packet that is only late is found too.
//!
//! [`crate::Flow::silence`] listens for one [`crate::SILENCE_WINDOW`]. The sockets of a flow that was silent stay open
//! afterwards, and are read once more when the next exchange needs their namespace, and at the end of the cell. That costs no
//! waiting, and covers the time that the cell takes anyway.

use crate::{
    flow::Started,
    weak::{self, Weakness},
};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

static KEPT: Mutex<Late> = Mutex::new(Late { kept: Vec::new(), arrived: Vec::new() });

/// A silent flow whose sockets are still open.
pub(crate) struct LateFlow {
    /// Name of the namespace in which nothing must arrive.
    pub to: String,
    /// The flow in words.
    pub what: String,
    /// When its window was over.
    pub since: Instant,
    /// Its sockets.
    pub started: Started,
}

struct Late {
    kept: Vec<LateFlow>,
    arrived: Vec<String>,
}

impl Late {
    /// Reads the sockets that `closes` selects once more, and closes them.
    fn look(&mut self, closes: impl Fn(&LateFlow) -> bool) {
        let (closed, kept) = std::mem::take(&mut self.kept).into_iter().partition(closes);
        self.kept = kept;
        for LateFlow { what, since, mut started, .. } in closed {
            started.collect();
            let (delivered, returned) = started.arrived();
            if delivered > 0 || returned > 0 {
                let after = since.elapsed().as_millis();
                self.arrived.push(format!(
                    "{what}: {delivered} delivered and {returned} answered within {after} ms after the window"
                ));
            }
        }
    }
}

/// Keeps a silent flow.
pub(crate) fn keep(flow: LateFlow) {
    if !weak::has(Weakness::NoLateLook) {
        late().kept.push(flow);
    }
}

/// Another exchange is about to listen in a namespace: the sockets that are kept there would take its packets and its port.
pub(crate) fn make_room(namespace: &str) {
    let mut late = late();
    if weak::has(Weakness::RoomUnread) {
        late.kept.retain(|kept| kept.to != namespace);
    }
    late.look(|kept| kept.to == namespace);
}

/// Looks at every flow that was silent, closes its sockets, and returns what has arrived since, one line per flow.
pub fn arrivals() -> Vec<String> {
    let mut late = late();
    late.look(|_| true);
    std::mem::take(&mut late.arrived)
}

fn late() -> MutexGuard<'static, Late> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}
