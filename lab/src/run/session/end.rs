//! How a guest ends: asked to, or lost.

use super::{End, Lost, Session, deadlines::State};
use crate::{
    text,
    vm::{GuestExit, Recv},
};
use lab_protocol::{CellId, ErrorKind, HostMessage};
use std::time::{Duration, Instant};

impl Session<'_> {
    /// Every cell is reported, so nothing that happens here can change a verdict.
    pub(super) fn shut_down(&mut self) {
        if self.send(&HostMessage::Shutdown).is_ok() {
            let _ = self.wait_for_exit();
        }
    }

    pub(super) fn wait_for_exit(&mut self) -> Option<GuestExit> {
        let limit = Instant::now() + self.task.timing.shutdown;
        let mut rest = [0; 4096];
        loop {
            let exit = self.guest.exited();
            if exit.is_some() || Instant::now() >= limit || self.task.interrupt.signal().is_some() {
                return exit;
            }
            // Reading keeps a talkative agent from blocking on a full port; a closed one returns at once.
            if !matches!(self.channel.recv(&mut rest, Duration::from_millis(10)), Ok(Recv::Bytes(_) | Recv::Timeout)) {
                std::thread::park_timeout(Duration::from_millis(5));
            }
        }
    }

    pub(super) fn gone(&self, exit: Option<GuestExit>) -> End {
        let how = match &exit {
            Some(exit) => format!("the guest ended before its time ({})", text::line(&exit.to_string(), 500)),
            None => "the agent's port closed while the guest was still running".to_owned(),
        };
        let half = match self.decoder.pending() {
            0 => String::new(),
            bytes => format!(", {bytes} bytes into a message"),
        };
        let kind = if matches!(self.state, State::Booting) { ErrorKind::Boot } else { ErrorKind::GuestLost };
        End::Lost(Lost { exit, ..self.loss(kind, how + &half) })
    }

    pub(super) fn lost(&self, kind: ErrorKind, message: String) -> End {
        End::Lost(self.loss(kind, message))
    }

    pub(super) fn refused(&self, kind: ErrorKind, message: String) -> End {
        End::Lost(Lost { again: false, ..self.loss(kind, message) })
    }

    pub(super) fn loss(&self, kind: ErrorKind, message: String) -> Lost {
        Lost { kind, message, cell: self.running(), again: true, exit: None }
    }

    pub(super) fn running(&self) -> Option<CellId> {
        match &self.state {
            State::Running { cell, .. } => Some(cell.clone()),
            State::Booting | State::Between { .. } | State::Visited => None,
        }
    }
}
