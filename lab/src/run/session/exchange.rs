//! What a guest is sent in place of what its image holds: eBPF objects, and the agent.

use super::{Lost, Session, SessionEnd, deadlines::GuestState};
use crate::run::common::SentObject;
use lab_base::held::HeldFile;
use lab_protocol::{ErrorKind, HostMessage, message::AGENT_PIECE};
use lab_record::guest_exit::GuestExit;
use std::time::Instant;

impl Session<'_> {
    /// A guest that settles keeps its own: the snapshot is for those whose image it is.
    pub(super) fn send_objects(&mut self) -> Result<(), SessionEnd> {
        for SentObject { name, file } in self.task.objects {
            let bytes = self.content(file)?.to_vec();
            self.send(&HostMessage::Object { name: name.clone(), bytes })?;
        }
        Ok(())
    }

    /// Sends an agent, and the objects, which it is to find in place of the older ones. From here on the guest has the time of a boot
    /// until that agent's Hello.
    pub(super) fn exchange(&mut self, agent: &HeldFile) -> Result<(), SessionEnd> {
        self.state = GuestState::Exchanging { since: Instant::now() };
        for piece in self.content(agent)?.chunks(AGENT_PIECE) {
            if self.task.interrupt.is_over() {
                return Err(SessionEnd::Interrupted(None));
            }
            self.send(&HostMessage::AgentPiece { bytes: piece.to_vec() })?;
        }
        self.send_objects()?;
        let nonce = self.fresh_nonce()?;
        self.send(&HostMessage::StartAgent { nonce })
    }

    fn content<'f>(&self, file: &'f HeldFile) -> Result<&'f [u8], SessionEnd> {
        file.bytes().map_err(|error| self.lost(ErrorKind::Host, format!("{}: {error}", file.path().display())))
    }

    /// The end of a guest whose agent was to be exchanged. Another one would end the same way.
    pub(super) fn not_exchanged(&self, kind: ErrorKind, why: &str) -> SessionEnd {
        let agent = self.task.agent.map(|agent| agent.path().display().to_string()).unwrap_or_default();
        self.refused(
            kind,
            format!(
                "the agent {agent} could not take the place of the snapshot's (the next run boots a guest with it): {why}"
            ),
        )
    }
}

impl SessionEnd {
    /// The same, of a guest whose process ended this way.
    pub(super) fn with(self, exit: Option<GuestExit>) -> Self {
        match self {
            Self::Lost(lost) => Self::Lost(Lost { exit, ..lost }),
            other => other,
        }
    }
}
