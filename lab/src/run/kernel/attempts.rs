//! Combines the attempts at a cell into its verdict. A cell that did not pass may be repeated in a fresh guest;
//! crashes, hangs and splats of earlier attempts still count.

use super::{KernelRun, Launch};
use crate::run::{
    judge::{self, SeenAttempt},
    queue::Isolate,
};
use lab_protocol::{CellId, Outcome};
use lab_record::{event::Event, verdict::Verdict};

impl KernelRun<'_> {
    /// Handles the end of a cell in this guest.
    pub(in crate::run) fn verdict(&self, launch: &Launch, seen: SeenAttempt) {
        let cell = seen.report.cell.clone();
        launch.verdicts.set(launch.verdicts.get() + 1);
        launch.taken.borrow_mut().retain(|taken| *taken != cell);
        let Some(info) = self.plan.info(&cell) else {
            return self.note(format!("ignored a report of {cell}: the cell is not in the plan"));
        };
        let judge = |shared| judge::attempt(self.planned(), info, seen, self.lists, shared);
        self.reported(launch, &cell);
        let verdict = {
            let mut progress = self.progress();
            let second = progress.isolate == Isolate::Case;
            match &mut progress.shared {
                Some(shared) if second => judge(shared.take(&cell)),
                Some(shared) => return shared.keep(judge(None)),
                None => judge(None),
            }
        };
        if self.runs_again(&verdict) {
            let (kernel, guest) = (self.id(), launch.number);
            (self.emit)(Event::CellRetried { kernel, guest, verdict: Box::new(verdict.clone()) });
            let mut progress = self.progress();
            progress.queue.again(cell.clone());
            progress.attempts.entry(cell).or_default().push((guest, verdict));
        } else {
            self.settle(launch.number, verdict);
        }
    }

    /// Number of attempts at a cell that did not pass so far.
    pub(super) fn attempts(&self, cell: &CellId) -> usize {
        self.progress().attempts.get(cell).map_or(0, Vec::len)
    }

    fn runs_again(&self, verdict: &Verdict) -> bool {
        let once_more = self.attempts(&verdict.report.cell) < self.retries.count as usize;
        once_more
            && judge::may_end_otherwise(verdict)
            && verdict.standing().is_bad()
            && !self.interrupt.is_over()
            && self.progress().stopped.is_none()
    }

    /// Computes the verdict from all attempts.
    pub(super) fn settle(&self, guest: u32, verdict: Verdict) {
        let earlier = self.progress().attempts.remove(&verdict.report.cell).unwrap_or_default();
        let on_flaky = self.retries.on_flaky;
        let parent = verdict.report.cell.clone();
        let verdict = judge::judge(&self.kernel.facts, verdict, earlier, self.lists, on_flaky);
        let checked = self.progress().checked.remove(&parent);
        self.finish(guest, judge::as_earlier(checked, verdict));
        self.adopt(guest, &parent);
    }

    /// Ends a cell that should have been repeated but can't be; its attempts decide the verdict.
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
