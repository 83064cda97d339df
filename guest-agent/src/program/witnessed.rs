//! The witness of the programs: loaded once in the life of a guest, if possible before its snapshot is taken.

use lab_harness::{
    Netns, Runner,
    witness::{ListedAttachment, Watching, Witness, standing, without_events},
};
use lab_protocol::witness::{Account, PRELOAD};
use std::sync::{Mutex, PoisonError};

/// The witness, or why there is none.
#[derive(Default)]
pub struct WitnessSeat(Mutex<Option<Result<Witness, String>>>);

/// A program that is watched.
pub enum Witnessed {
    /// By events.
    Events(Watching),
    /// By what was attached before alone, and why.
    Lists(Vec<ListedAttachment>, String),
}

impl WitnessSeat {
    /// Loads it, where the guest was booted for programs that it watches.
    pub fn preload(&self, runner: &Runner) {
        let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        if cmdline.split_whitespace().any(|word| word == PRELOAD) {
            self.with(runner, |_| ());
        }
    }

    /// Begins to watch.
    pub fn begin(&self, runner: &Runner, nodes: &[Netns]) -> Witnessed {
        self.with(runner, |witness| match witness {
            Ok(witness) => Witnessed::Events(witness.begin(nodes)),
            Err(reason) => Witnessed::Lists(standing(nodes), reason.clone()),
        })
    }

    fn with<R>(&self, runner: &Runner, work: impl FnOnce(&Result<Witness, String>) -> R) -> R {
        let mut seat = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let load = || match runner.except(Witness::load) {
            Ok(loaded) => loaded.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        work(seat.get_or_insert_with(load))
    }
}

impl Witnessed {
    /// The account, once every process of the program has ended.
    pub fn finish(self, nodes: &[Netns]) -> Account {
        match self {
            Self::Events(watching) => watching.finish(nodes),
            Self::Lists(before, reason) => without_events(&before, nodes, reason),
        }
    }
}
