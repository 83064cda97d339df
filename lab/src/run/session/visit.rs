//! A visitor's part of the conversation.

use super::{End, Errand, Session, State};
use lab_protocol::{AgentMessage, ErrorKind};
use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

/// How often a visitor is asked what there is to say: what a person types must not wait.
const POLL: Duration = Duration::from_millis(4);

impl Session<'_> {
    /// Lets a visitor speak; gives how long the loop may then wait for the guest, or none where the visit is over.
    pub(super) fn say_for_visitor(&mut self) -> Result<Option<Duration>, End> {
        let (Errand::Visit { visitor, .. }, State::Visited) = (self.task.errand, &self.state) else {
            return Ok(Some(self.task.timing.poll));
        };
        match visitor.say().map_err(|problem| self.lost(ErrorKind::Hang, problem))? {
            ControlFlow::Break(()) => Ok(None),
            ControlFlow::Continue(messages) => {
                messages.iter().try_for_each(|message| self.send(message))?;
                Ok(Some(POLL.min(self.task.timing.poll)))
            }
        }
    }

    /// Hands a message to the visitor, where there is one and it is meant for it. True when the visit is over.
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
                // A person who reads takes any time, and the guest was not listened to.
                self.heard = Instant::now();
                Ok(over)
            }
            _ => Err(message),
        }
    }
}
