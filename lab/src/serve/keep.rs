//! One guest, from its restore to its end. QEMU ends with the thread that started it, so that each guest has one.

use super::wire::{TakeAnswer, send};
use crate::run::{
    held::HoldOrder,
    rehearse::{HoldError, rehearse},
};
use lab_base::interrupt::Interrupt;
use lab_vm::{
    GuestSpec, VmError,
    held::{HELD, HeldGuest},
    snapshot::{Found, SnapshotStore},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

/// Interval at which a guest is looked at that waits.
const LOOK: Duration = Duration::from_millis(500);
/// Interval at which one is looked at that is used, milliseconds: its borrower waits for the word of its end.
const WATCH: u16 = 2;

/// What a guest is to do.
#[derive(Debug)]
pub enum GuestWish {
    /// Work for the process at the other end.
    Lend {
        /// File for its console.
        console: PathBuf,
        line: UnixStream,
    },
    /// End.
    End,
}

/// Why no guest is held.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Its snapshot was damaged.
    #[error("its snapshot was removed: {0}")]
    Damaged(String),
    /// There is no snapshot any more.
    #[error("its snapshot is gone")]
    Gone,
    /// The machine can't be restored or stopped.
    #[error(transparent)]
    Machine(#[from] VmError),
    /// It is of no use.
    #[error(transparent)]
    Guest(#[from] HoldError),
}

/// Restores a guest and makes it ready.
///
/// # Errors
/// [`KeepError`].
pub fn prepare(
    order: &HoldOrder,
    place: &Path,
    number: u64,
    cache: &Path,
    stop: &Interrupt,
) -> Result<HeldGuest, KeepError> {
    let snapshot = match SnapshotStore::below(cache).find(&order.key) {
        Found::Whole(snapshot) => snapshot,
        Found::Damaged(why) => return Err(KeepError::Damaged(why)),
        Found::Absent => return Err(KeepError::Gone),
    };
    let spec = GuestSpec {
        name: format!("{}{HELD}{number}", order.spec.name),
        console: place.join(format!("{number}.log")),
        ..order.spec.clone()
    };
    let order = HoldOrder { spec: spec.clone(), ..order.clone() };
    let mut guest = HeldGuest::restore(&spec, &snapshot)?;
    rehearse(guest.guest(), &order, cache, stop)?;
    guest.pause()?;
    Ok(guest)
}

/// How a guest that was ready has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum HeldEnd {
    /// It was lent, and its borrower is done.
    Lent,
    /// Nobody wanted it any more.
    Unwanted,
    /// By itself.
    Alone,
}

/// Waits until the guest is wanted, and until it has ended.
pub fn keep(mut guest: HeldGuest, wishes: &Receiver<GuestWish>) -> HeldEnd {
    loop {
        match wishes.recv_timeout(LOOK) {
            Ok(GuestWish::Lend { console, line }) => {
                lend(guest, &console, &line);
                return HeldEnd::Lent;
            }
            Ok(GuestWish::End) | Err(RecvTimeoutError::Disconnected) => return HeldEnd::Unwanted,
            Err(RecvTimeoutError::Timeout) if guest.exited().is_some() => return HeldEnd::Alone,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Lends it, tells its end, and ends it when the borrower has hung up.
fn lend(mut guest: HeldGuest, console: &Path, line: &UnixStream) {
    let Ok(loan) = guest.lend(console) else {
        let _ = send(line, &TakeAnswer::None);
        return;
    };
    if send(line, &TakeAnswer::Lent(loan)).is_err() {
        return;
    }
    let mut told = false;
    loop {
        // The borrower says nothing: that it can be read is that it has hung up.
        let mut awaited = [PollFd::new(line.as_fd(), PollFlags::POLLIN)];
        if poll(&mut awaited, PollTimeout::from(if told { 1000 } else { WATCH })).is_ok_and(|count| count > 0) {
            return;
        }
        if !told && let Some(end) = guest.exited() {
            told = true;
            let _ = send(line, &end);
        }
    }
}
