//! The conversation with one guest, from connect to its end.
//!
//! The guest is not trusted: every message is checked against the current state, text is truncated before it is stored,
//! and every wait has a deadline that the guest can't extend.

mod budget;
pub(in crate::run) mod caps;
mod deadlines;
mod end;
mod exchange;
mod program;
mod task;
mod visit;

pub use task::{Errand, Farewell, GuestMessage, Lost, ProgramHost, SessionEnd, Task};

use crate::run::program::OpenStreams;
use budget::{Budget, MessageKind, OverBudget};
use deadlines::GuestState;
use lab_base::text;
use lab_protocol::{
    AgentMessage, CapabilityReport, CellId, CellReport, ErrorKind, HostMessage, KernelVersion, PROTOCOL_VERSION,
    frame::{self, Decoder, FrameError},
};
use lab_vm::{Channel, Guest, Recv, VmError};
use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Maximum number of notes that one guest may cause; further ones are dropped.
const MAX_NOTES: usize = 50;

/// Drives a guest that has just been launched. Afterwards the guest is still running unless it ended by itself: the caller
/// kills it.
pub fn drive(guest: &mut dyn Guest, task: Task<'_>, hear: &mut dyn FnMut(GuestMessage)) -> SessionEnd {
    let launched = Instant::now();
    let channel = match connect(guest, task, launched) {
        Ok(channel) => channel,
        Err(end) => return end,
    };
    if let Some(serve) = task.files {
        // Before the agent can ask: its first request finds the port connected.
        if let Err(error) = serve(guest) {
            let (message, exit) = (error.to_string(), guest.exited());
            return SessionEnd::Lost(Lost { kind: ErrorKind::Host, message, cell: None, again: false, exit });
        }
    }
    let mut session = Session {
        guest,
        channel,
        task,
        hear,
        decoder: Decoder::new(),
        budget: Budget::of(
            matches!(task.errand, Errand::Visit { .. }) || task.plan.cells.iter().any(|info| !info.work.is_case()),
        ),
        launched,
        heard: launched,
        state: GuestState::Booting,
        pending: BTreeSet::new(),
        limit: task.timing.boot + task.timing.idle,
        nonce: None,
        notes: 0,
        program: None,
        waited: None,
    };
    let talked = session.resume().and_then(|()| session.talk());
    session.close_program(None);
    match talked {
        Ok(()) => SessionEnd::Done((!task.errand.stays()).then(|| session.shut_down())),
        Err(end) => end,
    }
}

/// The port exists long before the agent is up; connecting in short intervals keeps Ctrl-C responsive.
fn connect(guest: &mut dyn Guest, task: Task<'_>, launched: Instant) -> Result<Box<dyn Channel>, SessionEnd> {
    let limit = launched + task.boot_limit();
    loop {
        if task.interrupt.is_over() {
            return Err(SessionEnd::Interrupted(None));
        }
        let slice = (Instant::now() + Duration::from_millis(500)).min(limit);
        match guest.connect(slice) {
            Ok(channel) => return Ok(channel),
            Err(VmError::ConnectTimeout { .. }) if Instant::now() < limit => {}
            Err(error) => {
                let kind = if matches!(error, VmError::Port { .. }) { ErrorKind::Host } else { ErrorKind::Boot };
                return Err(SessionEnd::Lost(Lost {
                    kind,
                    message: error.to_string(),
                    cell: None,
                    again: true,
                    exit: guest.exited(),
                }));
            }
        }
    }
}

struct Session<'a> {
    guest: &'a mut dyn Guest,
    channel: Box<dyn Channel>,
    task: Task<'a>,
    hear: &'a mut dyn FnMut(GuestMessage),
    decoder: Decoder,
    budget: Budget,
    launched: Instant,
    heard: Instant,
    state: GuestState,
    pending: BTreeSet<CellId>,
    /// Deadline of the whole guest: a sum over all cells, so it is not computed in every iteration.
    limit: Duration,
    /// The nonce that a restored guest's Hello must contain.
    nonce: Option<u64>,
    notes: usize,
    /// Streams of the running cell, if it is a program.
    program: Option<OpenStreams<'a>>,
    /// How long the guest had waited for the host when the running cell started.
    waited: Option<Duration>,
}

impl Session<'_> {
    fn talk(&mut self) -> Result<(), SessionEnd> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            if self.task.interrupt.is_over() {
                return Err(SessionEnd::Interrupted(self.running()));
            }
            self.check_deadlines()?;
            if let Some(what) = self.guest.overgrown() {
                return Err(self.lost(ErrorKind::OverBudget, what));
            }
            let Some(poll) = self.say_for_visitor()? else { return Ok(()) };
            let poll = self.say_for_program()?.unwrap_or(poll);
            match self.channel.recv(&mut buffer, poll) {
                Ok(Recv::Bytes(count)) => {
                    self.decoder.feed(&buffer[..count]);
                    if self.read_messages()? {
                        return Ok(());
                    }
                }
                // The last bytes of an exited machine may still be in the socket: its end counts only when nothing more
                // arrives.
                Ok(Recv::Timeout) => {
                    if let Some(exit) = self.guest.exited() {
                        return Err(self.gone(Some(exit)));
                    }
                }
                Ok(Recv::Closed) => {
                    let exit = self.wait_for_exit();
                    return Err(self.gone(exit));
                }
                Err(error) => return Err(self.lost(ErrorKind::Host, format!("reading the agent's port: {error}"))),
            }
        }
    }

    /// Handles complete messages; returns true when the agent is done.
    fn read_messages(&mut self) -> Result<bool, SessionEnd> {
        while let Some(message) = self.next_message() {
            match message.map_err(|over| self.lost(ErrorKind::OverBudget, over.to_string()))? {
                Ok(message) => {
                    if self.handle(message)? {
                        return Ok(true);
                    }
                }
                Err(error) => self.note(format!("from the agent's port: {error}")),
            }
        }
        Ok(false)
    }

    /// The next message, after counting it; the inner error means that the guest has exceeded a limit.
    fn next_message(&mut self) -> Option<Result<Result<AgentMessage, FrameError>, OverBudget>> {
        let before = self.decoder.pending();
        let message = self.decoder.next_message::<AgentMessage>()?;
        let kind = message.as_ref().map_or(MessageKind::Garbage, MessageKind::of);
        let counted = self.budget.spend(kind, before - self.decoder.pending(), self.launched.elapsed());
        Some(counted.map(|()| message))
    }

    fn handle(&mut self, message: AgentMessage) -> Result<bool, SessionEnd> {
        if self.state.is_silent() && !matches!(message, AgentMessage::Hello { .. } | AgentMessage::Fatal { .. }) {
            // A restored guest may have had unsent messages when it was saved, and an agent that is exchanged goes on until then.
            if !self.task.restored() && matches!(self.state, GuestState::Booting) {
                self.note("ignored a message before Hello".to_owned());
            }
            return Ok(false);
        }
        self.heard = Instant::now();
        let message = match self.tell_visitor(message) {
            Ok(over) => return Ok(over),
            Err(message) => message,
        };
        let Some(message) = self.tell_program(message)? else { return Ok(false) };
        match message {
            AgentMessage::Hello { nonce, .. } if nonce != self.nonce => {
                self.note("ignored a Hello with a stale nonce".to_owned());
            }
            AgentMessage::Hello { protocol, release, version, kernel, .. } => {
                self.hello(protocol, release, version, kernel)?;
            }
            AgentMessage::Probed { capabilities, modules } => self.probed(capabilities, modules),
            AgentMessage::Settled => return Ok(matches!(self.task.errand, Errand::Settle)),
            AgentMessage::CellStarted { cell } => self.started(cell)?,
            AgentMessage::CellFinished { report } => self.finished(report),
            AgentMessage::Heartbeat { .. } => {}
            AgentMessage::ShellReady { .. }
            | AgentMessage::Refused { .. }
            | AgentMessage::Output { .. }
            | AgentMessage::OutputAt { .. }
            | AgentMessage::StreamsMapped
            | AgentMessage::InputTaken { .. }
            | AgentMessage::ShellAccount { .. }
            | AgentMessage::ShellExited { .. }
            | AgentMessage::Measured { .. } => {
                self.note("ignored a shell or measurement message: none is active".to_owned())
            }
            AgentMessage::KernelLog { text } => (self.hear)(GuestMessage::KernelLog(caps::kernel_log(text))),
            AgentMessage::Farewell { .. } => {
                return Err(self.lost(
                    ErrorKind::Agent,
                    "the agent ended its session without a Shutdown from the host".to_owned(),
                ));
            }
            AgentMessage::Log { text } => self.note(format!("agent: {text}")),
            AgentMessage::Done { .. } if self.pending.is_empty() => {
                let cells = self.next_cells();
                if cells.is_empty() {
                    return Ok(true);
                }
                self.send_cells(cells)?;
            }
            AgentMessage::Done { .. } => {
                let message = format!("the agent sent Done, but {} cells have no report", self.pending.len());
                return Err(self.lost(ErrorKind::Agent, message));
            }
            AgentMessage::Fatal { message } if matches!(self.state, GuestState::Exchanging { .. }) => {
                return Err(self.not_exchanged(ErrorKind::Agent, &text::line(&message, 1000)));
            }
            AgentMessage::Fatal { message } => {
                return Err(self.lost(ErrorKind::Agent, format!("the agent gave up: {}", text::line(&message, 1000))));
            }
        }
        Ok(false)
    }

    fn hello(
        &mut self,
        protocol: u32,
        mut release: String,
        mut version: String,
        kernel: KernelVersion,
    ) -> Result<(), SessionEnd> {
        if !self.state.is_silent() {
            return Err(self.lost(ErrorKind::Agent, "a second Hello: the guest restarted by itself".to_owned()));
        }
        if protocol != PROTOCOL_VERSION {
            let message = format!(
                "the agent uses protocol {protocol}, this lab uses {PROTOCOL_VERSION}; rebuild the agent (run without --no-build)"
            );
            return Err(self.refused(ErrorKind::Agent, message));
        }
        if kernel != self.task.version {
            let message = format!(
                "the plan is for kernel {}, but the guest booted {kernel} ({})",
                self.task.version,
                text::line(&release, 100)
            );
            return Err(self.refused(ErrorKind::Host, message));
        }
        if matches!(self.state, GuestState::Exchanging { .. }) {
            return self.greet(true);
        }
        text::cap(&mut release, 256);
        text::cap(&mut version, 256);
        let after = self.launched.elapsed();
        // A restore is fast even on a slow host.
        if !self.task.restored() {
            self.task.timing = self.task.timing.at_least((self.task.rescale)(after));
        }
        (self.hear)(GuestMessage::Hello { release, version, kernel, after });
        match (self.task.errand, self.task.agent) {
            (Errand::Run { .. }, Some(agent)) => self.exchange(agent),
            _ => self.greet(!self.task.restored()),
        }
    }

    /// Gives the guest its errand. An agent that has just started, unlike that of a snapshot, has yet to probe the kernel.
    fn greet(&mut self, is_new: bool) -> Result<(), SessionEnd> {
        let has_objects = matches!(self.state, GuestState::Exchanging { .. });
        self.state = GuestState::Between { since: Instant::now() };
        if is_new {
            self.send(&HostMessage::Hello { protocol: PROTOCOL_VERSION })?;
        }
        match self.task.errand {
            Errand::Settle => self.send(&HostMessage::Settle),
            // Also without cells: a guest may be needed only for its probes.
            Errand::Run { .. } => {
                if !has_objects {
                    self.send_objects()?;
                }
                let cells = self.next_cells();
                self.send_cells(cells)
            }
            Errand::Visit { visitor, .. } => {
                self.state = GuestState::Visited;
                let first = visitor.begin(self.task.timing.scale, now_unix_ns());
                self.send(&first)
            }
        }
    }

    /// Resumes a restored guest: its agent has sent Hello to another host process, and waits.
    fn resume(&mut self) -> Result<(), SessionEnd> {
        if !self.task.restored() {
            return Ok(());
        }
        let (nonce, entropy) = (self.fresh_nonce()?, self.random()?);
        self.send(&HostMessage::Resume { protocol: PROTOCOL_VERSION, nonce, now_unix_ns: now_unix_ns(), entropy })
    }

    /// A nonce that the next Hello must contain.
    fn fresh_nonce(&mut self) -> Result<u64, SessionEnd> {
        let nonce = u64::from_le_bytes(self.random()?);
        self.nonce = Some(nonce);
        Ok(nonce)
    }

    fn random<const N: usize>(&self) -> Result<[u8; N], SessionEnd> {
        let mut bytes = [0; N];
        let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
        read.map(|()| bytes).map_err(|error| self.lost(ErrorKind::Host, format!("/dev/urandom: {error}")))
    }

    fn next_cells(&self) -> Vec<CellId> {
        match self.task.errand {
            Errand::Run { next, .. } => next(),
            Errand::Settle | Errand::Visit { .. } => Vec::new(),
        }
    }

    fn send_cells(&mut self, cells: Vec<CellId>) -> Result<(), SessionEnd> {
        let infos = cells.iter().filter_map(|cell| self.task.plan.info(cell));
        self.limit = self.task.timing.guest(self.launched.elapsed(), infos);
        self.pending = cells.iter().cloned().collect();
        self.budget.cells += cells.len() as u64;
        let infos = cells.iter().filter_map(|cell| self.task.plan.info(cell));
        let cells = infos.map(|info| self.task.programs.job(info)).collect();
        self.send(&HostMessage::Run {
            cells,
            time_scale: self.task.timing.scale,
            now_unix_ns: now_unix_ns(),
            mutant: self.task.mutant.map(str::to_owned),
        })
    }

    fn probed(&mut self, mut capabilities: Vec<CapabilityReport>, mut modules: Vec<String>) {
        caps::probes(&mut capabilities);
        caps::lines(&mut modules);
        (self.hear)(GuestMessage::Probed { capabilities, modules });
    }

    fn started(&mut self, cell: CellId) -> Result<(), SessionEnd> {
        if let GuestState::Running { cell: running, .. } = &self.state {
            let message = format!("{} started before {running} was reported", text::line(cell.as_str(), 200));
            return Err(self.lost(ErrorKind::Agent, message));
        }
        if !self.pending.contains(&cell) {
            self.note(format!(
                "ignored the start of {}, which the host did not request",
                text::line(cell.as_str(), 200)
            ));
            return Ok(());
        }
        (self.hear)(GuestMessage::Started(cell.clone()));
        self.waited = self.guest.waited();
        self.program = self.task.plan.info(&cell).and_then(|info| self.task.programs.open(info));
        self.state = GuestState::Running { cell, since: Instant::now() };
        Ok(())
    }

    /// Only the running cell can finish: a report without a start, or a second report, is ignored.
    fn finished(&mut self, mut report: Box<CellReport>) {
        let running = matches!(&self.state, GuestState::Running { cell, .. } if *cell == report.cell);
        if !running || !self.pending.remove(&report.cell) {
            let cell = text::line(report.cell.as_str(), 200);
            self.note(format!("ignored a report of {cell}, which is not running ({})", report.outcome.word()));
            return;
        }
        caps::report(&mut report);
        let waited = self.guest.waited().zip(self.waited.take()).map(|(now, then)| now.saturating_sub(then));
        report.waited_us = waited.map_or(0, |waited| u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
        self.close_program(Some(&mut *report));
        self.state = GuestState::Between { since: Instant::now() };
        (self.hear)(GuestMessage::Finished(report));
    }

    fn note(&mut self, text: String) {
        self.notes += 1;
        match self.notes.cmp(&MAX_NOTES) {
            std::cmp::Ordering::Less => (self.hear)(GuestMessage::Note(text::line(&text, 1000))),
            std::cmp::Ordering::Equal => {
                (self.hear)(GuestMessage::Note("further notes of this guest are dropped".to_owned()))
            }
            std::cmp::Ordering::Greater => {}
        }
    }

    fn send(&mut self, message: &HostMessage) -> Result<(), SessionEnd> {
        let bytes = frame::encode(message).map_err(|error| self.lost(ErrorKind::Host, error.to_string()))?;
        match self.channel.send(&bytes) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                Err(self.lost(ErrorKind::Hang, "the agent does not read its port".to_owned()))
            }
            Err(_) => {
                let exit = self.wait_for_exit();
                Err(self.gone(exit))
            }
        }
    }
}

fn now_unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
