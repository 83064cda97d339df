//! The end of a guest: shut down or lost.

use super::{Farewell, GuestMessage, Lost, Session, SessionEnd, caps, deadlines::GuestState};
use lab_base::text;
use lab_protocol::{AgentMessage, CellId, ErrorKind, HostMessage};
use lab_record::guest_exit::GuestExit;
use lab_vm::Recv;
use std::time::{Duration, Instant};

/// Interval at which a guest whose port is closed is asked whether it has ended, which takes its process some milliseconds.
const EXIT_POLL: Duration = Duration::from_millis(1);

impl Session<'_> {
    /// Shuts the guest down. All cells have been reported: nothing here changes a cell's verdict.
    pub(super) fn shut_down(&mut self) -> Farewell {
        let begin = Instant::now();
        let limit = begin + self.task.timing.shutdown();
        let mut farewell = Farewell::default();
        if self.send(&HostMessage::Shutdown).is_err() {
            farewell.off = self.guest.exited().is_some();
            return farewell;
        }
        let mut buffer = vec![0; 64 << 10];
        let mut open = true;
        // Messages that arrived together with the last report.
        self.last_words(&mut farewell);
        loop {
            farewell.after = begin.elapsed();
            let exit = self.guest.exited();
            // Bytes that the guest sent before it ended are still in the socket.
            if exit.is_some() && !open {
                farewell.off = true;
                return farewell;
            }
            farewell.cut_short = self.task.interrupt.is_over();
            if farewell.over.is_none() {
                farewell.over = self.guest.overgrown();
            }
            // A guest that has exceeded a limit is no longer read.
            if Instant::now() >= limit || farewell.cut_short || farewell.over.is_some() {
                farewell.off = exit.is_some();
                return farewell;
            }
            if !open {
                std::thread::park_timeout(EXIT_POLL);
                continue;
            }
            match self.channel.recv(&mut buffer, Duration::from_millis(10)) {
                Ok(Recv::Bytes(count)) => {
                    self.decoder.feed(&buffer[..count]);
                    self.last_words(&mut farewell);
                }
                Ok(Recv::Timeout) => open = exit.is_none(),
                Ok(Recv::Closed) | Err(_) => open = false,
            }
        }
    }

    fn last_words(&mut self, farewell: &mut Farewell) {
        while let Some(message) = self.next_message() {
            let message = match message {
                Ok(message) => message,
                Err(over) => {
                    farewell.over.get_or_insert(over.to_string());
                    continue;
                }
            };
            match message {
                Ok(AgentMessage::Farewell { mut left }) => {
                    caps::lines(&mut left);
                    farewell.left = Some(left.iter().map(|left| text::line(left, 200)).collect());
                }
                Ok(AgentMessage::KernelLog { text }) => (self.hear)(GuestMessage::KernelLog(caps::kernel_log(text))),
                Ok(AgentMessage::Log { text }) => self.note(format!("agent: {text}")),
                Ok(_) => {}
                Err(error) => self.note(format!("from the agent's port: {error}")),
            }
        }
    }

    pub(super) fn wait_for_exit(&mut self) -> Option<GuestExit> {
        let limit = Instant::now() + self.task.timing.shutdown();
        let mut rest = [0; 4096];
        loop {
            let exit = self.guest.exited();
            if exit.is_some() || Instant::now() >= limit || self.task.interrupt.is_over() {
                return exit;
            }
            // Reading keeps the agent from blocking on a full port; a closed port returns at once.
            if !matches!(self.channel.recv(&mut rest, Duration::from_millis(10)), Ok(Recv::Bytes(_) | Recv::Timeout)) {
                std::thread::park_timeout(EXIT_POLL);
            }
        }
    }

    pub(super) fn gone(&self, exit: Option<GuestExit>) -> SessionEnd {
        let how = match &exit {
            Some(exit) => format!("the guest ended unexpectedly ({})", text::line(&exit.to_string(), 500)),
            None => "the agent's port closed while the guest was still running".to_owned(),
        };
        let half = match self.decoder.pending() {
            0 => String::new(),
            bytes => format!(", {bytes} bytes into a message"),
        };
        if matches!(self.state, GuestState::Exchanging { .. }) {
            return self.not_exchanged(ErrorKind::Boot, &(how + &half)).with(exit);
        }
        let kind = if matches!(self.state, GuestState::Booting) { ErrorKind::Boot } else { ErrorKind::GuestLost };
        SessionEnd::Lost(Lost { exit, ..self.loss(kind, how + &half) })
    }

    pub(super) fn lost(&self, kind: ErrorKind, message: String) -> SessionEnd {
        SessionEnd::Lost(self.loss(kind, message))
    }

    pub(super) fn refused(&self, kind: ErrorKind, message: String) -> SessionEnd {
        SessionEnd::Lost(Lost { again: false, ..self.loss(kind, message) })
    }

    pub(super) fn loss(&self, kind: ErrorKind, message: String) -> Lost {
        Lost { kind, message, cell: self.running(), again: true, exit: None }
    }

    pub(super) fn running(&self) -> Option<CellId> {
        match &self.state {
            GuestState::Running { cell, .. } => Some(cell.clone()),
            GuestState::Booting | GuestState::Exchanging { .. } | GuestState::Between { .. } | GuestState::Visited => {
                None
            }
        }
    }
}
