//! The part of a session that serves a shell or a measurement (a [`Visitor`]).

use super::{Errand, GuestState, Session, SessionEnd};
use lab_protocol::{AgentMessage, ErrorKind};
use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

/// Interval at which the visitor is asked for messages: typed input must not be delayed.
const POLL: Duration = Duration::from_millis(4);

impl Session<'_> {
    /// Sends the visitor's messages. Returns how long the loop may wait for the guest, or `None` if the visit has ended.
    pub(super) fn say_for_visitor(&mut self) -> Result<Option<Duration>, SessionEnd> {
        let (Errand::Visit { visitor, .. }, GuestState::Visited) = (self.task.errand, &self.state) else {
            return Ok(Some(self.task.timing.poll));
        };
        match visitor.say().map_err(|problem| self.lost(ErrorKind::Hang, problem.to_string()))? {
            ControlFlow::Break(()) => Ok(None),
            ControlFlow::Continue(messages) => {
                messages.iter().try_for_each(|message| self.send(message))?;
                Ok(Some(POLL.min(self.task.timing.poll)))
            }
        }
    }

    /// Passes a message to the visitor, if there is one and the message is for it. Returns true if the visit has ended.
    pub(super) fn tell_visitor(&mut self, message: AgentMessage) -> Result<bool, AgentMessage> {
        let general = matches!(
            message,
            AgentMessage::Hello { .. }
                | AgentMessage::Probed { .. }
                | AgentMessage::Heartbeat { .. }
                | AgentMessage::KernelLog { .. }
                | AgentMessage::Farewell { .. }
                | AgentMessage::Log { .. }
                | AgentMessage::Fatal { .. }
        );
        match self.task.errand {
            Errand::Visit { visitor, .. } if !general => {
                let over = visitor.hear(message).is_break();
                // The visitor's output may have blocked for a long time, during which no heartbeat was read.
                self.heard = Instant::now();
                Ok(over)
            }
            _ => Err(message),
        }
    }
}
