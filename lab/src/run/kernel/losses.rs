//! Guests that die, and how many of them are enough.

use super::{KernelRun, Launch};
use crate::run::{autopsy::Autopsy, console::Tail, session::Lost};
use lab_protocol::Outcome;
use lab_record::{
    event::{Event, Moment},
    verdict::Verdict,
};

/// Guests in a row that may die without bringing a verdict.
const MAX_STALLED: u32 = 3;
/// Guests of a kernel that may die, whatever they bring: a kernel that dies in every tenth cell is worth no evening.
pub(in crate::run) const MAX_LOSSES: u32 = 12;

impl KernelRun<'_> {
    /// Tells of a loss; the cell that was running, if any, gets it as its verdict.
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
            lost.message = format!("{}; the kernel had complained: {words}", lost.message);
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
            let outcome = Outcome::Errored { kind: lost.kind, message: lost.message.clone() };
            let mut verdict = Verdict { evidence: Some(tail.evidence()), files, ..Verdict::bare(cell, outcome) };
            verdict.add_splats(self.inside(launch, splats));
            self.verdict(launch, verdict);
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
            self.give_up(&format!("{stalled} guests in a row died without a verdict; the last one: {message}"));
        } else if losses >= MAX_LOSSES {
            self.give_up(&format!("{losses} guests died; the last one: {message}"));
        }
    }

    fn give_up(&self, why: &str) {
        self.progress().gave_up = true;
        self.stop(why);
    }
}
