//! A cell's way from an attempt to its verdict: what did not pass may run again in a fresh guest, and nothing that
//! happened is forgotten over it.

use super::{KernelRun, Launch};
use crate::run::common::{OnFlaky, Retries};
use crate::run::{isolation, queue::Isolate};
use lab_protocol::{CellId, ErrorKind, FailureKind, Outcome};
use lab_record::{
    event::Event,
    verdict::{Attempt, Verdict},
};
use std::collections::BTreeMap;

/// Attempts that did not pass, oldest first, each with the number of its guest.
pub(in crate::run) type Attempts = BTreeMap<CellId, Vec<(u32, Verdict)>>;

impl KernelRun<'_> {
    /// A cell of this guest has come to an end.
    pub(in crate::run) fn verdict(&self, launch: &Launch, mut verdict: Verdict) {
        launch.verdicts.set(launch.verdicts.get() + 1);
        launch.taken.borrow_mut().retain(|cell| *cell != verdict.report.cell);
        verdict = {
            let mut progress = self.progress();
            let second = progress.isolate == Isolate::Case;
            match &mut progress.shared {
                Some(shared) if second => isolation::compare(shared.take(&verdict.report.cell), verdict),
                Some(shared) => return shared.keep(verdict),
                None => verdict,
            }
        };
        self.lists.recognise(&self.kernel.facts, &mut verdict);
        if self.runs_again(&verdict) {
            let (kernel, guest) = (self.id(), launch.number);
            (self.emit)(Event::CellRetried { kernel, guest, verdict: Box::new(verdict.clone()) });
            let mut progress = self.progress();
            let cell = verdict.report.cell.clone();
            progress.queue.again(cell.clone());
            progress.attempts.entry(cell).or_default().push((guest, verdict));
        } else {
            self.settle(launch.number, verdict);
        }
    }

    /// Attempts at a cell that did not pass so far.
    pub(super) fn attempts(&self, cell: &CellId) -> usize {
        self.progress().attempts.get(cell).map_or(0, Vec::len)
    }

    fn runs_again(&self, verdict: &Verdict) -> bool {
        let once_more = self.attempts(&verdict.report.cell) < self.retries.count as usize;
        let certain = matches!(
            verdict.outcome,
            Outcome::Failed { kind: FailureKind::MissingCapability, .. }
                | Outcome::Errored { kind: ErrorKind::Interrupted, .. }
        );
        once_more
            && !certain
            && verdict.standing().is_bad()
            && !self.interrupt.is_over()
            && self.progress().stopped.is_none()
    }

    /// The last attempt is in: all of them together make the verdict.
    pub(super) fn settle(&self, guest: u32, verdict: Verdict) {
        let earlier = self.progress().attempts.remove(&verdict.report.cell).unwrap_or_default();
        let mut verdict = combine(earlier, verdict, self.retries);
        self.lists.recognise(&self.kernel.facts, &mut verdict);
        self.finish(guest, verdict);
    }

    /// A cell that should have run again and can't keeps what it has.
    pub(super) fn settle_early(&self, cell: CellId, why: &str) {
        let last = self.progress().attempts.get_mut(&cell).and_then(Vec::pop);
        match last {
            Some((guest, mut verdict)) => {
                verdict.warnings.push(format!("not run again: {why}"));
                self.settle(guest, verdict);
            }
            None => self.finish(0, Verdict::bare(cell, Outcome::NotRun { message: why.to_owned() })),
        }
    }
}

/// What an attempt told that no later one can take back: the kernel crashed, hung or complained.
fn told(verdict: &Verdict) -> Option<Outcome> {
    match &verdict.outcome {
        Outcome::Failed { kind: FailureKind::Splat, .. }
        | Outcome::Errored { kind: ErrorKind::Panic | ErrorKind::Hang, .. } => Some(verdict.outcome.clone()),
        _ => verdict
            .splats
            .iter()
            .find(|splat| splat.allowed.is_none())
            .map(|splat| Outcome::Failed { kind: FailureKind::Splat, message: splat.title.clone() }),
    }
}

fn combine(earlier: Vec<(u32, Verdict)>, mut last: Verdict, retries: Retries) -> Verdict {
    if earlier.is_empty() {
        return last;
    }
    let attempts = earlier.len() + 1;
    let crash = earlier.iter().zip(1..).find_map(|((_, verdict), number)| Some((number, verdict, told(verdict)?)));
    if let Some((number, verdict, outcome)) = crash
        && told(&last).is_none()
    {
        let after = format!(" (attempt {number} of {attempts}; the last one {})", last.outcome.word());
        last.outcome = match outcome {
            Outcome::Failed { kind, message } => Outcome::Failed { kind, message: message + &after },
            Outcome::Errored { kind, message } => Outcome::Errored { kind, message: message + &after },
            other => other,
        };
        last.evidence.clone_from(&verdict.evidence);
        last.splats.clone_from(&verdict.splats);
    } else if last.outcome == Outcome::Passed && retries.on_flaky == OnFlaky::Fail {
        let first = earlier.first().map(|(_, verdict)| verdict.outcome.message()).unwrap_or_default();
        let message = format!("passed at attempt {attempts} only; the first one: {first}");
        last.outcome = Outcome::Failed { kind: FailureKind::Flaky, message };
    }
    last.earlier = earlier.into_iter().map(|(guest, verdict)| Attempt::of(guest, verdict)).collect();
    last
}
