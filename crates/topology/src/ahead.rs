//! Topologies that are built before a case asks for them: before the guest is saved, and while the clean-up of the case before is
//! waited for. Each is used once, and nothing has been done with it before.

use crate::{Net, TopologyError, lock::unpoisoned, model::Topology};
use std::{cell::Cell, sync::Mutex};

/// What is ready, oldest first, as it was declared and as it was built.
static READY: Mutex<Vec<(Topology, Net)>> = Mutex::new(Vec::new());
/// Inodes of the namespaces of what is ready, and of what is being built.
static UNUSED: Mutex<Vec<u64>> = Mutex::new(Vec::new());

thread_local! {
    /// Whether this thread builds for later.
    static BUILDS_AHEAD: Cell<bool> = const { Cell::new(false) };
}

/// Builds a topology and keeps it for the first who builds an equal one.
///
/// # Errors
/// As of [`Net::build`]; nothing is kept then.
pub fn build(topology: &Topology) -> Result<(), TopologyError> {
    BUILDS_AHEAD.set(true);
    let built = Net::build_new(topology);
    BUILDS_AHEAD.set(false);
    let mut ready = unpoisoned(READY.lock());
    let kept = built.map(|net| ready.push((topology.clone(), net)));
    // Also after a failure: a later namespace may get the inode of one that is gone.
    keep_unused(&ready);
    kept
}

/// Whether one is ready.
pub fn has(topology: &Topology) -> bool {
    unpoisoned(READY.lock()).iter().any(|(declared, _)| declared == topology)
}

/// Deletes all that are ready.
pub fn forget() {
    let mut ready = unpoisoned(READY.lock());
    drop(std::mem::take(&mut *ready));
    keep_unused(&ready);
}

/// One that is ready.
pub(crate) fn take(topology: &Topology) -> Option<Net> {
    let mut ready = unpoisoned(READY.lock());
    let at = ready.iter().position(|(declared, _)| declared == topology)?;
    let (_, net) = ready.remove(at);
    keep_unused(&ready);
    Some(net)
}

/// Inodes of the namespaces that nobody uses yet.
pub(crate) fn inodes() -> Vec<u64> {
    unpoisoned(UNUSED.lock()).clone()
}

/// To be called with the inode of each new namespace.
pub(crate) fn made(inode: u64) {
    if BUILDS_AHEAD.get() {
        unpoisoned(UNUSED.lock()).push(inode);
    }
}

fn keep_unused(ready: &[(Topology, Net)]) {
    *unpoisoned(UNUSED.lock()) = ready.iter().flat_map(|(_, net)| net.inodes()).collect();
}
