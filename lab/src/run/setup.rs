//! Runs what a guest has to run before others use it: the set-up of one that becomes a snapshot, and cells of one that is held.

use super::visitor::{VisitError, Visitor};
use lab_base::text;
use lab_protocol::{AgentMessage, CellJob, CellReport, HostMessage, Outcome};
use std::{
    cell::RefCell,
    collections::VecDeque,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

/// Bytes of output that are kept.
const KEPT: usize = 256 << 10;
/// File for the output of a set-up that failed, beside the console.
const FILE: &str = "setup.txt";

/// Why there is no guest behind a set-up.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct SetupFailure(String);

/// Runs a set-up, has the guest let go of its files and settle.
pub(super) struct SetupVisit<F> {
    /// What it is called in errors.
    what: &'static str,
    jobs: Vec<CellJob>,
    hang_up: F,
    state: RefCell<SetupState>,
}

#[derive(Default)]
struct SetupState {
    said: VecDeque<u8>,
    messages: Vec<HostMessage>,
    report: Option<Box<CellReport>>,
    settled: bool,
}

impl<F: Fn()> SetupVisit<F> {
    /// `hang_up` ends serving files.
    pub fn new(what: &'static str, jobs: Vec<CellJob>, hang_up: F) -> Self {
        Self { what, jobs, hang_up, state: RefCell::default() }
    }

    /// What became of it, one line; the output of one that failed is kept in `directory`.
    pub fn result(&self, directory: &Path) -> Result<(), SetupFailure> {
        let (state, what) = (self.state.borrow(), self.what);
        match state.report.as_ref().map(|report| &report.outcome) {
            None if self.jobs.is_empty() && state.settled => Ok(()),
            Some(Outcome::Passed) if state.settled => Ok(()),
            Some(Outcome::Passed) => Err(SetupFailure(format!("the guest did not settle behind {what}"))),
            None => Err(SetupFailure(format!("{what} did not end"))),
            Some(outcome) => {
                let (first, second) = state.said.as_slices();
                let said = [first, second].concat();
                let path: PathBuf = directory.join(FILE);
                let kept = match fs::write(&path, &said) {
                    Ok(()) => format!(" (output: {})", path.display()),
                    Err(_) => String::new(),
                };
                let said = String::from_utf8_lossy(&said);
                let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
                let last = if last.is_empty() { String::new() } else { format!(": {}", text::line(last, 200)) };
                let why = text::line(&outcome.message(), 300);
                Err(SetupFailure(format!("{what} failed: {why}{last}{kept}")))
            }
        }
    }

    /// The report of what ran last.
    pub fn report(&self) -> Option<Box<CellReport>> {
        self.state.borrow().report.clone()
    }
}

impl<F: Fn()> Visitor for SetupVisit<F> {
    fn begin(&self, time_scale: f32, now_unix_ns: u64) -> HostMessage {
        if self.jobs.is_empty() {
            (self.hang_up)();
            return HostMessage::Settle;
        }
        HostMessage::Run { cells: self.jobs.clone(), time_scale, now_unix_ns, mutant: None }
    }

    fn say(&self) -> Result<ControlFlow<(), Vec<HostMessage>>, VisitError> {
        Ok(ControlFlow::Continue(std::mem::take(&mut self.state.borrow_mut().messages)))
    }

    fn hear(&self, message: AgentMessage) -> ControlFlow<()> {
        let mut state = self.state.borrow_mut();
        match message {
            AgentMessage::Output { stream, bytes } => {
                let taken = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                state.messages.push(HostMessage::OutputTaken { stream, bytes: taken });
                // The last line of either stream is the reason of a failure.
                state.said.extend(bytes);
                let over = state.said.len().saturating_sub(KEPT);
                state.said.drain(..over);
            }
            AgentMessage::CellFinished { report } => {
                let passed = report.outcome == Outcome::Passed;
                state.report = Some(report);
                if !passed {
                    return ControlFlow::Break(());
                }
            }
            // The agent is done with the cell: nobody needs the host's files any more.
            AgentMessage::Done { .. } => {
                (self.hang_up)();
                state.messages.push(HostMessage::Settle);
            }
            AgentMessage::Settled => {
                state.settled = true;
                return ControlFlow::Break(());
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
