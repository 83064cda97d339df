//! A guest that stands still is asked what it is doing before it is killed. What it answers belongs to the cell that it
//! hung in, or to the guest itself where it hung in none.

use super::{
    console::Tail,
    evidence,
    kernel::{KernelRun, Launch},
    session::{End, Lost},
};
use lab_base::text;
use lab_protocol::{
    CellId, ErrorKind, Outcome,
    attachment::{Attachment, AttachmentKind},
};
use lab_record::verdict::Verdict;
use lab_vm::Guest;

/// What was seen of a lost guest before it was questioned: the answers drown its own last words.
#[derive(Debug)]
pub(super) struct Autopsy {
    /// The console's end.
    pub tail: Tail,
    /// Files of the answers, from the run's directory on.
    pub files: Vec<String>,
    /// Whether its kernel was alive.
    pub alive: bool,
}

impl KernelRun<'_> {
    /// Questions a guest that hangs and still has a machine, whether the host found that out or its agent did.
    pub(super) fn examine(&self, guest: &mut dyn Guest, launch: &Launch, end: &mut End) {
        let hung = launch.hung.take();
        if let End::Lost(lost) = end
            && lost.exit.is_none()
        {
            match hung {
                Some(verdict) => self.examine_cell(guest, launch, verdict),
                None => self.examine_guest(guest, launch, lost),
            }
        } else if let Some(verdict) = hung {
            self.verdict(launch, verdict);
        }
    }

    /// The agent gave its cell up, and can still say so.
    fn examine_cell(&self, guest: &mut dyn Guest, launch: &Launch, mut verdict: Verdict) {
        let (place, files, _) = self.question(guest, launch, Some(&verdict.report.cell));
        if let Outcome::Errored { message, .. } = &mut verdict.outcome {
            message.push_str(&place);
        }
        verdict.files.extend(files);
        self.verdict(launch, verdict);
    }

    /// A guest that panicked has said all that it can.
    fn examine_guest(&self, guest: &mut dyn Guest, launch: &Launch, lost: &mut Lost) {
        let tail = Tail::read(&launch.spec.console);
        if !matches!(tail.classify(lost.kind), ErrorKind::Hang | ErrorKind::Boot) {
            return;
        }
        let (place, files, alive) = self.question(guest, launch, lost.cell.as_ref());
        lost.message.push_str(&place);
        launch.autopsy.replace(Some(Autopsy { tail, files, alive }));
    }

    /// What the guest answers: words for a message, files, and whether its kernel is alive.
    fn question(&self, guest: &mut dyn Guest, launch: &Launch, cell: Option<&CellId>) -> (String, Vec<String>, bool) {
        let answer = guest.interrogate(launch.timing.evidence(), &|| self.interrupt.is_over());
        let place = answer.place.map(|place| format!("; its processor is in {}", text::line(&place, 200)));
        let attachments: Vec<Attachment> = answer.findings.into_iter().map(attachment(launch.number)).collect();
        let home = cell.map_or_else(|| format!("guest-{}", launch.number), CellId::to_string);
        let files = evidence::write(launch.directory(), &self.id(), &home, &attachments).unwrap_or_else(|error| {
            self.note(format!("evidence of guest {}: {error}", launch.number));
            Vec::new()
        });
        (place.unwrap_or_default(), files, answer.alive)
    }
}

/// Named after the guest: a cell that hangs again, in another guest, keeps both.
fn attachment(guest: u32) -> impl Fn((&'static str, String)) -> Attachment {
    move |(name, told)| Attachment {
        name: format!("guest-{guest}-{name}"),
        kind: AttachmentKind::Text,
        bytes: text::block(&told.replace('\r', ""), usize::MAX).into_bytes(),
    }
}
