//! The side of a run.

use super::wire::{HoldAsk, ServerPlace, TakeAnswer, receive, send};
use crate::run::held::{GuestHolder, HoldOrder};
use lab_guard::private;
use lab_vm::{Guest, GuestSpec, held};
use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

/// Asks the process that holds guests. A run goes on without it, whatever it answers.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The process that uses this cache, if there is one.
    pub fn of(cache: &Path) -> Option<Self> {
        let place = ServerPlace::read(cache).filter(|place| place.lab == crate::VERSION)?;
        Some(Self { socket: place.socket })
    }

    /// Whether it is there.
    pub fn is_answered(&self) -> bool {
        self.connect().is_some()
    }

    /// A connection; `None` if nobody listens, or somebody else does.
    fn connect(&self) -> Option<UnixStream> {
        private::connect(&self.socket).ok()
    }
}

impl GuestHolder for Client {
    fn take(&self, key: &str, spec: &GuestSpec) -> Option<Box<dyn Guest>> {
        let line = self.connect()?;
        send(&line, &HoldAsk::Take { key: key.to_owned(), console: spec.console.clone() }).ok()?;
        match receive(&line).ok()? {
            TakeAnswer::Lent(loan) => held::borrow(loan, line, spec),
            TakeAnswer::None => None,
        }
    }

    fn offer(&self, order: HoldOrder) {
        // The next run restores a guest if this gets lost.
        let _ = self.connect().and_then(|line| send(&line, &HoldAsk::Hold(Box::new(order))).ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_of_this_version_is_asked() {
        let cache = tempfile::tempdir().unwrap();
        assert!(Client::of(cache.path()).is_none(), "there is none");
        for (lab, is_asked) in [(crate::VERSION, true), ("0.0.1", false)] {
            let place = ServerPlace { socket: cache.path().join("socket"), pid: 1, lab: lab.to_owned() };
            std::fs::write(ServerPlace::file(cache.path()), serde_json::to_vec(&place).unwrap()).unwrap();
            assert_eq!(Client::of(cache.path()).is_some(), is_asked, "{lab}");
        }
    }
}
