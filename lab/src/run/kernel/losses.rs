//! Handles lost guests, and limits their number.

use super::{KernelRun, Launch};
use crate::run::{autopsy::Autopsy, console::Tail, judge::SeenAttempt, session::Lost};
use lab_record::event::{Event, Moment};

/// Maximum number of consecutive guests that are lost without a verdict.
const MAX_STALLED: u32 = 3;
/// Maximum number of lost guests of a kernel in total, so that a kernel that crashes in every tenth cell ends soon.
pub(in crate::run) const MAX_LOSSES: u32 = 12;

impl KernelRun<'_> {
    /// Reports a loss; if a cell was running, the loss becomes its verdict.
    pub(in crate::run) fn bury(&self, launch: &Launch, mut lost: Lost) {
        let Autopsy { tail, files, .. } = launch.autopsy.take().unwrap_or_else(|| Autopsy {
            tail: Tail::read(&launch.spec.console),
            files: Vec::new(),
            alive: false,
        });
        lost.kind = tail.classify(lost.kind);
        if let Some(words) = tail.last_words() {
            lost.message = format!("{words} ({})", lost.message);
        } else if let Some(words) = tail.splat() {
            lost.message = format!("{}; the kernel had printed: {words}", lost.message);
        }
        (self.emit)(Event::GuestLost {
            kernel: self.id(),
            guest: launch.number,
            kind: lost.kind,
            message: lost.message.clone(),
            evidence: tail.evidence(),
            exit: lost.exit.clone(),
            cell: lost.cell.clone().or_else(|| launch.cost.take()),
            files: files.clone(),
        });
        let splats = launch.last_words.take();
        if let Some(cell) = lost.cell.take() {
            let seen = SeenAttempt::errored(cell, lost.kind, lost.message.clone());
            let files = launch.streams.take().into_iter().chain(files).collect();
            let splats = launch.inside(splats);
            self.verdict(launch, SeenAttempt { splats, evidence: Some(tail.evidence()), files, ..seen });
        } else {
            let moment = if launch.is_fresh() { Moment::Boot } else { Moment::Between };
            self.outside(launch, moment, splats);
        }
        let (stalled, losses) = {
            let mut progress = self.progress();
            progress.losses += 1;
            progress.stalled = if launch.verdicts.get() > 0 { 0 } else { progress.stalled + 1 };
            (progress.stalled, progress.losses)
        };
        let message = lost.message;
        if !lost.again {
            self.stop(&message);
        } else if stalled >= MAX_STALLED {
            self.give_up(&format!("{stalled} guests in a row were lost without a verdict; the last one: {message}"));
        } else if losses >= MAX_LOSSES {
            self.give_up(&format!("{losses} guests were lost; the last one: {message}"));
        }
    }

    fn give_up(&self, why: &str) {
        self.progress().gave_up = true;
        self.stop(why);
    }
}
