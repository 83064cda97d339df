//! The part of a session that serves a cell whose work is a program.

use super::{GuestMessage, Session, SessionEnd};
use lab_protocol::{AgentMessage, CellReport, ErrorKind};
use std::time::Duration;

/// Interval at which a program's streams are looked at: what is typed must not be delayed.
const POLL: Duration = Duration::from_millis(4);

impl Session<'_> {
    /// Sends what the program is to hear. Returns how long the loop may wait for the guest, if not as long as it would.
    pub(super) fn say_for_program(&mut self) -> Result<Option<Duration>, SessionEnd> {
        let Some(program) = &mut self.program else { return Ok(None) };
        let messages = program.say();
        let busy = program.is_busy();
        messages.iter().try_for_each(|message| self.send(message))?;
        Ok(busy.then(|| POLL.min(self.task.timing.poll)))
    }

    /// Passes a message to the running program's streams; gives it back where it is for somebody else.
    pub(super) fn tell_program(&mut self, message: AgentMessage) -> Result<Option<AgentMessage>, SessionEnd> {
        let Some(program) = &mut self.program else { return Ok(Some(message)) };
        match message {
            AgentMessage::Output { stream, bytes } => match program.output(stream, bytes) {
                Ok(()) => Ok(None),
                Err(problem) => Err(self.lost(ErrorKind::OverBudget, problem.to_string())),
            },
            AgentMessage::OutputAt { stream, at, length } => match program.output_at(stream, at, length) {
                Ok(()) => Ok(None),
                Err(problem) => Err(self.lost(ErrorKind::OverBudget, problem.to_string())),
            },
            AgentMessage::StreamsMapped => {
                program.memory_is_mapped();
                Ok(None)
            }
            AgentMessage::InputTaken { bytes } => {
                program.input_taken(bytes);
                Ok(None)
            }
            other => Ok(Some(other)),
        }
    }

    /// Closes the streams of the program that has run, and reports its files.
    pub(super) fn close_program(&mut self, report: Option<&mut CellReport>) {
        if let Some(program) = self.program.take() {
            let (files, children) = program.close(report);
            (self.hear)(GuestMessage::Closed(files, children));
        }
    }
}
