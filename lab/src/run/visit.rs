//! Guests that run no cells: for a shell or a measurement.

use super::visitor::Visitor;
use super::{
    kernel::KernelRun,
    session::{Errand, Lost, SessionEnd},
};
use crate::run::common::{Common, Prepared};
use lab_protocol::ErrorKind;
use lab_record::{event::Start, plan::PlannedKernel};

/// How a shell's or measurement's session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visited {
    /// The shell or measurement ended it.
    Done,
    Interrupted,
    /// The guest was lost; the events contain the cause.
    Lost,
}

/// Connects a shell or measurement to a fresh guest of a kernel, restored from a snapshot if possible. The guest
/// has ended when this returns.
pub fn visit(common: Common<'_>, kernel: &PlannedKernel, prepared: &Prepared, visitor: &dyn Visitor) -> Visited {
    let run = KernelRun::new(common, kernel);
    loop {
        let snapshot = run.snapshot(prepared);
        if run.interrupt.is_over() {
            return Visited::Interrupted;
        }
        let launch = run.next_guest(prepared, snapshot.as_ref());
        run.starts(&launch, snapshot.as_ref().map_or(Start::Boot, |_| Start::Restore));
        let started = match &snapshot {
            Some(snapshot) => run.launcher.restore(&launch.spec, snapshot),
            None => run.launcher.launch(&launch.spec),
        };
        let end = match started {
            Ok(mut guest) => {
                run.drive(&mut *guest, &launch, Errand::Visit { visitor, restored: snapshot.is_some(), stays: false })
            }
            Err(error) => {
                let (kind, message) = (ErrorKind::Host, error.to_string());
                SessionEnd::Lost(Lost { kind, message, cell: None, again: false, exit: None })
            }
        };
        run.answered(&launch, snapshot.as_ref());
        match (end, snapshot) {
            (SessionEnd::Done(_), _) => return Visited::Done,
            (SessionEnd::Interrupted(_), _) => return Visited::Interrupted,
            (SessionEnd::Lost(lost), Some(snapshot)) if !launch.greeted() => run.unanswered(&launch, &lost, &snapshot),
            (SessionEnd::Lost(lost), _) => {
                run.bury(&launch, lost);
                return Visited::Lost;
            }
        }
    }
}
