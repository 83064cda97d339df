//! One guest, from its restore to its end. QEMU ends with the thread that started it, so that each guest has one.

use super::wire::{Answer, send};
use crate::run::held::{self, HoldOrder};
use lab_base::interrupt::Interrupt;
use lab_vm::{
    GuestSpec,
    held::HeldGuest,
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
pub enum Wish {
    /// Work for the process at the other end.
    Lend {
        /// File for its console.
        console: PathBuf,
        line: UnixStream,
    },
    /// End.
    End,
}

/// Restores a guest and makes it ready.
///
/// # Errors
/// Why not, one line.
pub fn prepare(
    order: &HoldOrder,
    place: &Path,
    number: u64,
    cache: &Path,
    stop: &Interrupt,
) -> Result<HeldGuest, String> {
    let snapshot = match SnapshotStore::below(cache).find(&order.key) {
        Found::Whole(snapshot) => snapshot,
        Found::Damaged(why) => return Err(why),
        Found::Absent => return Err("its snapshot is gone".to_owned()),
    };
    let spec = GuestSpec {
        name: format!("{}-held-{number}", order.spec.name),
        console: place.join(format!("{number}.log")),
        ..order.spec.clone()
    };
    let order = HoldOrder { spec: spec.clone(), ..order.clone() };
    let mut guest = HeldGuest::restore(&spec, &snapshot).map_err(|error| error.to_string())?;
    held::rehearse(guest.guest(), &order, cache, stop).map_err(|error| error.to_string())?;
    guest.pause().map_err(|error| error.to_string())?;
    Ok(guest)
}

/// How a guest that was ready has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was lent, and its borrower is done.
    Lent,
    /// Nobody wanted it any more.
    Unwanted,
    /// By itself.
    Alone,
}

/// Waits until the guest is wanted, and until it has ended.
pub fn keep(mut guest: HeldGuest, wishes: &Receiver<Wish>) -> Ended {
    loop {
        match wishes.recv_timeout(LOOK) {
            Ok(Wish::Lend { console, line }) => {
                lend(guest, &console, &line);
                return Ended::Lent;
            }
            Ok(Wish::End) | Err(RecvTimeoutError::Disconnected) => return Ended::Unwanted,
            Err(RecvTimeoutError::Timeout) if guest.exited().is_some() => return Ended::Alone,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Lends it, tells its end, and ends it when the borrower has hung up.
fn lend(mut guest: HeldGuest, console: &Path, line: &UnixStream) {
    let Ok(loan) = guest.lend(console) else {
        let _ = send(line, &Answer::None);
        return;
    };
    if send(line, &Answer::Lent(loan)).is_err() {
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
