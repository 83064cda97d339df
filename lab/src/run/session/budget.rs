//! Limits for a guest's messages: number and bytes of each kind, counted when frames are read.
//!
//! Each message is limited in size, but endless messages could still fill the host's memory and disk. The limits grow
//! with the number of requested cells and, for periodic messages, with time.

use lab_protocol::AgentMessage;
use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Kinds of messages that are counted separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageKind {
    Greetings,
    Probes,
    Cells,
    Heartbeats,
    KernelLog,
    Notes,
    LastWords,
    /// Messages for a shell or measurement, which limits them itself.
    Visit,
    /// Output of a program in a shell session: it is passed on and not stored.
    Stream,
    /// Bytes that are not part of a message.
    Garbage,
}

impl MessageKind {
    const ALL: [Self; 10] = [
        Self::Greetings,
        Self::Probes,
        Self::Cells,
        Self::Heartbeats,
        Self::KernelLog,
        Self::Notes,
        Self::LastWords,
        Self::Visit,
        Self::Stream,
        Self::Garbage,
    ];

    pub const fn of(message: &AgentMessage) -> Self {
        match message {
            AgentMessage::Hello { .. } | AgentMessage::Settled => Self::Greetings,
            AgentMessage::Probed { .. } => Self::Probes,
            AgentMessage::CellStarted { .. } | AgentMessage::CellFinished { .. } | AgentMessage::Done { .. } => {
                Self::Cells
            }
            AgentMessage::Heartbeat { .. } => Self::Heartbeats,
            AgentMessage::KernelLog { .. } => Self::KernelLog,
            AgentMessage::Log { .. } => Self::Notes,
            AgentMessage::Farewell { .. } | AgentMessage::Fatal { .. } => Self::LastWords,
            AgentMessage::ShellReady { .. }
            | AgentMessage::Refused { .. }
            | AgentMessage::ShellAccount { .. }
            | AgentMessage::ShellExited { .. }
            | AgentMessage::Measured { .. } => Self::Visit,
            AgentMessage::Output { .. }
            | AgentMessage::OutputAt { .. }
            | AgentMessage::StreamsMapped
            | AgentMessage::InputTaken { .. } => Self::Stream,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Greetings => "greetings",
            Self::Probes => "probes",
            Self::Cells => "reports of cells",
            Self::Heartbeats => "heartbeats",
            Self::KernelLog => "kernel log",
            Self::Notes => "log lines",
            Self::LastWords => "messages while it shuts down",
            Self::Visit => "answers for a shell or measurement",
            Self::Stream => "output of a program",
            Self::Garbage => "bytes outside of messages",
        }
    }

    fn limit(self) -> Limit {
        let limit = |messages, bytes| Limit { messages, bytes, per_cell: (0, 0), per_second: (0, 0) };
        match self {
            Self::Greetings | Self::LastWords => limit(16, MIB),
            Self::Probes => limit(16, 2 * MIB),
            // Start, end and repeated messages; a report with its files fits in one frame.
            Self::Cells => Limit { per_cell: (8, MIB), ..limit(64, 16 * MIB) },
            // One per second of the guest's time, which may be faster than the host's.
            Self::Heartbeats => Limit { per_second: (20, 4 * KIB), ..limit(1000, MIB) },
            Self::KernelLog => Limit { per_cell: (16, 128 * KIB), ..limit(256, MIB) },
            Self::Notes => Limit { per_cell: (16, 16 * KIB), ..limit(1000, MIB) },
            Self::Visit => limit(100_000, 64 * MIB),
            Self::Stream => limit(100, MIB),
            Self::Garbage => limit(10_000, 8 * MIB),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Limit {
    messages: u64,
    bytes: u64,
    /// Additional messages and bytes for each requested cell.
    per_cell: (u64, u64),
    /// Additional messages and bytes for each second since the launch.
    per_second: (u64, u64),
}

/// Number of messages and bytes so far.
#[derive(Debug, Default)]
pub(super) struct Budget {
    spent: [(u64, u64); MessageKind::ALL.len()],
    /// Number of requested cells.
    pub cells: u64,
    visited: bool,
}

/// The guest has exceeded a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the guest sent too much: more than {most} {unit} ({of})")]
pub(super) struct OverBudget {
    most: u64,
    unit: &'static str,
    of: &'static str,
}

impl Budget {
    /// The budget of a new guest; `visited` if a shell or measurement receives output.
    pub fn of(visited: bool) -> Self {
        Self { visited, ..Self::default() }
    }

    /// Counts a message.
    ///
    /// # Errors
    /// The guest has exceeded a limit.
    pub fn spend(&mut self, kind: MessageKind, bytes: usize, age: Duration) -> Result<(), OverBudget> {
        let spent = &mut self.spent[kind as usize];
        spent.0 = spent.0.saturating_add(1);
        spent.1 = spent.1.saturating_add(bytes as u64);
        if self.visited && kind == MessageKind::Stream {
            return Ok(());
        }
        let Limit { messages, bytes, per_cell, per_second } = kind.limit();
        let allowed = |base: u64, cell: u64, second: u64| {
            base.saturating_add(cell.saturating_mul(self.cells)).saturating_add(second.saturating_mul(age.as_secs()))
        };
        let (messages, bytes) = (allowed(messages, per_cell.0, per_second.0), allowed(bytes, per_cell.1, per_second.1));
        let words = kind.words();
        match *spent {
            (count, _) if count > messages => Err(OverBudget { most: messages, unit: "messages", of: words }),
            (_, size) if size > bytes => Err(OverBudget { most: bytes / KIB, unit: "KiB", of: words }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_limit_of_messages_and_of_bytes() {
        for (at, kind) in MessageKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
            let Limit { messages, bytes, .. } = kind.limit();
            let mut budget = Budget::default();
            (0..messages).for_each(|_| budget.spend(kind, 1, Duration::ZERO).unwrap());
            let error = budget.spend(kind, 1, Duration::ZERO).unwrap_err().to_string();
            assert!(error.contains(kind.words()) && error.contains("messages"), "{error}");
            let mut budget = Budget::default();
            budget.spend(kind, usize::try_from(bytes).unwrap(), Duration::ZERO).unwrap();
            assert!(budget.spend(kind, 1, Duration::ZERO).unwrap_err().to_string().contains("KiB"));
        }
    }

    #[test]
    fn requested_cells_and_time_extend_the_limits() {
        let mut asked = Budget { cells: 100, ..Budget::default() };
        (0..800).for_each(|_| asked.spend(MessageKind::Cells, 1000, Duration::ZERO).unwrap());
        let mut old = Budget::default();
        (0..2000).for_each(|_| old.spend(MessageKind::Heartbeats, 50, Duration::from_secs(60)).unwrap());
        let mut visited = Budget::of(true);
        (0..10_000).for_each(|_| visited.spend(MessageKind::Stream, 4 << 20, Duration::ZERO).unwrap());
    }
}
