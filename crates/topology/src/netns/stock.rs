//! Creates namespaces in advance while a case waits, because this is the slowest step of building a topology. Each
//! namespace is used once, so that every topology starts with the kernel's defaults.

use super::space::Space;
use crate::lock::unpoisoned;
use nix::unistd::Pid;
use std::{
    fs,
    os::unix::fs::MetadataExt,
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};

struct Shelf {
    spares: Vec<Space>,
    /// Number of namespaces to keep ready.
    level: usize,
    /// Whether nobody is going to need another one.
    rests: bool,
    has_maker: bool,
    /// The thread that is going to enter the next prepared namespace.
    entering: Option<Pid>,
}

static SHELF: Mutex<Shelf> =
    Mutex::new(Shelf { spares: Vec::new(), level: 0, rests: false, has_maker: false, entering: None });
static CHANGED: Condvar = Condvar::new();

fn shelf() -> MutexGuard<'static, Shelf> {
    unpoisoned(SHELF.lock())
}

/// Takes a prepared namespace, if there is one.
pub(super) fn take() -> Option<Space> {
    let spare = shelf().spares.pop();
    CHANGED.notify_all();
    spare
}

/// Keeps this number ready from now on, and waits until they are.
pub(super) fn keep(level: usize) {
    let mut shelf = shelf();
    shelf.level = level;
    shelf.rests = false;
    if !shelf.has_maker {
        shelf.has_maker = thread::Builder::new().name("namespaces".to_owned()).spawn(make).is_ok();
    }
    CHANGED.notify_all();
    while shelf.has_maker && shelf.spares.len() < shelf.level {
        shelf = unpoisoned(CHANGED.wait(shelf));
    }
}

/// Whether those that are taken are replaced. Nothing is waited for.
pub(super) fn replace(taken: bool) {
    shelf().rests = !taken;
    CHANGED.notify_all();
}

/// Inodes of the unused ones, including the one that is being made.
pub(super) fn inodes() -> Vec<u64> {
    let shelf = shelf();
    let inode = |path: &str| fs::metadata(path).ok().map(|namespace| namespace.ino());
    let entered = shelf.entering.and_then(|thread| inode(&format!("/proc/self/task/{thread}/ns/net")));
    // Before it enters the new one, it is in the process's own.
    let entered = entered.filter(|entered| inode("/proc/self/ns/net") != Some(*entered));
    shelf.spares.iter().map(|spare| spare.inode).chain(entered).collect()
}

/// Runs at the usual priority: a slow creation would hold kernel locks that all others need (RTNL).
fn make() {
    loop {
        let mut waiting = shelf();
        while waiting.rests || waiting.spares.len() >= waiting.level {
            waiting = unpoisoned(CHANGED.wait(waiting));
        }
        drop(waiting);
        let made = Space::make(|thread| shelf().entering = Some(thread));
        let mut shelf = shelf();
        shelf.entering = None;
        match made {
            Ok(space) => {
                shelf.spares.push(space);
                CHANGED.notify_all();
            }
            // The next caller that needs one gets the same error and reports it.
            Err(_) => {
                shelf.has_maker = false;
                CHANGED.notify_all();
                return;
            }
        }
    }
}
