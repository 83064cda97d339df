//! The witness of the programs: loaded once in the life of a guest, if possible before its snapshot is taken.

use lab_harness::{
    Netns, Runner,
    witness::{CellWatching, ListedAttachment, Marker, Watching, Whom, Witness, standing, without_events},
};
use lab_protocol::{
    CellReport,
    witness::{Account, PRELOAD, PRELOAD_SUITE},
};
use std::sync::{Mutex, PoisonError};

/// The witness, or why there is none.
#[derive(Default)]
pub struct WitnessSeat(Mutex<Option<Result<Witness, String>>>);

/// A case of the suite that is watched, or why it can't be.
pub struct WitnessedCase(Result<CellWatching, String>);

impl WitnessedCase {
    /// The account, once the case has ended.
    pub fn finish(self, report: &CellReport) -> Account {
        self.0.map_or_else(Account::absent, |watching| watching.finish(report))
    }
}

/// A program that is watched.
pub enum Witnessed {
    /// By events.
    Events(Box<Watching>),
    /// By what was attached before alone, and why.
    Lists(Vec<ListedAttachment>, String),
}

impl WitnessSeat {
    /// Loads it, where the guest was booted for programs that it watches.
    pub fn preload(&self, runner: &Runner) {
        if let Some(whom) = whom() {
            self.with(runner, whom, |_| ());
        }
    }

    /// Reads what the next program is compared with, where the guest was booted for programs.
    pub fn look(&self) {
        if are_expected()
            && let Some(Ok(witness)) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner)
        {
            witness.look_ahead();
        }
    }

    /// Whether the guest was booted for a witness of the suite's own cases.
    pub fn watches_cases(&self) -> bool {
        whom() == Some(Whom::All)
    }

    /// Begins to watch a case, where the guest was booted for that.
    pub fn begin_case(&self, runner: &Runner, mutant: Option<&str>) -> Option<WitnessedCase> {
        if !self.watches_cases() {
            return None;
        }
        let fault = runner.witness_fault(mutant);
        Some(self.with(runner, Whom::All, |witness| {
            WitnessedCase(witness.as_ref().map(|witness| witness.begin_cell(fault)).map_err(Clone::clone))
        }))
    }

    /// Begins to watch.
    pub fn begin(&self, runner: &Runner, nodes: &[Netns]) -> Witnessed {
        self.with(runner, Whom::Others, |witness| match witness {
            Ok(witness) => Witnessed::Events(Box::new(witness.begin(nodes))),
            Err(reason) => Witnessed::Lists(standing(nodes), reason.clone()),
        })
    }

    fn with<R>(&self, runner: &Runner, whom: Whom, work: impl FnOnce(&Result<Witness, String>) -> R) -> R {
        let mut seat = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let load = || match runner.except(|| Witness::load(whom)) {
            Ok(loaded) => loaded.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        work(seat.get_or_insert_with(load))
    }
}

/// Whether the guest was booted for programs of others.
pub fn are_expected() -> bool {
    whom() == Some(Whom::Others)
}

/// Whom the guest was booted to watch.
fn whom() -> Option<Whom> {
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    cmdline.split_whitespace().find_map(|word| match word {
        PRELOAD => Some(Whom::Others),
        PRELOAD_SUITE => Some(Whom::All),
        _ => None,
    })
}

impl Witnessed {
    /// What makes marks; nothing where only lists are known.
    pub fn marker(&self) -> Option<Marker> {
        match self {
            Self::Events(watching) => Some(watching.marker()),
            Self::Lists(..) => None,
        }
    }

    /// The account, once every process of the program has ended.
    pub fn finish(self, nodes: &[Netns]) -> Account {
        match self {
            Self::Events(watching) => watching.finish(nodes),
            Self::Lists(before, reason) => without_events(&before, nodes, reason),
        }
    }
}
