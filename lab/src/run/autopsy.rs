//! Collects evidence from a hanging guest before it is killed. The evidence is attached to the cell that was running, or to
//! the guest if no cell was running.

use super::{
    console::Tail,
    evidence,
    judge::SeenAttempt,
    kernel::{KernelRun, Launch},
    session::{Lost, SessionEnd},
};
use lab_base::text;
use lab_guard::Inside;
use lab_protocol::{
    CellId, ErrorKind,
    attachment::{Attachment, AttachmentKind},
};
use lab_vm::Guest;

/// Information about a lost guest from before it was queried: the answers would hide the guest's own last messages.
#[derive(Debug)]
pub(super) struct Autopsy {
    /// The end of the console.
    pub tail: Tail,
    /// Files with the answers, as paths relative to the run's directory.
    pub files: Vec<Inside>,
    /// Whether its kernel was alive.
    pub alive: bool,
}

impl KernelRun<'_> {
    /// Queries a guest that hangs and still has a machine, whether the host or the agent detected the hang.
    pub(super) fn examine(&self, guest: &mut dyn Guest, launch: &Launch, end: &mut SessionEnd) {
        let hung = launch.hung.take();
        if let SessionEnd::Lost(lost) = end
            && lost.exit.is_none()
        {
            match hung {
                Some(seen) => self.examine_cell(guest, launch, seen),
                None => self.examine_guest(guest, launch, lost),
            }
        } else if let Some(seen) = hung {
            self.verdict(launch, seen);
        }
    }

    /// The agent gave up its cell and still answers.
    fn examine_cell(&self, guest: &mut dyn Guest, launch: &Launch, mut seen: SeenAttempt) {
        let (place, files, _) = self.question(guest, launch, Some(&seen.report.cell));
        seen.place = place;
        seen.files.extend(files);
        self.verdict(launch, seen);
    }

    /// A guest that panicked is not queried.
    fn examine_guest(&self, guest: &mut dyn Guest, launch: &Launch, lost: &mut Lost) {
        let tail = Tail::read(&launch.spec.console);
        if !matches!(tail.classify(lost.kind), ErrorKind::Hang | ErrorKind::Boot) {
            return;
        }
        let (place, files, alive) = self.question(guest, launch, lost.cell.as_ref());
        lost.message.push_str(&place);
        launch.autopsy.replace(Some(Autopsy { tail, files, alive }));
    }

    /// Queries the guest: returns text for a message, files, and whether its kernel still answers.
    fn question(&self, guest: &mut dyn Guest, launch: &Launch, cell: Option<&CellId>) -> (String, Vec<Inside>, bool) {
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

/// Names files after the guest, so that a cell that hangs in two guests keeps the files of both.
fn attachment(guest: u32) -> impl Fn((&'static str, String)) -> Attachment {
    move |(name, told)| Attachment {
        name: format!("guest-{guest}-{name}"),
        kind: AttachmentKind::Text,
        bytes: text::block(&told.replace('\r', ""), usize::MAX).into_bytes(),
    }
}
