//! One guest from connect to its end.
//!
//! The guest is not trusted: every message is checked against what may come next, text is capped before it is kept,
//! and each thing that is waited for has a deadline that the guest can't move.

use super::timing::Timing;
use crate::{
    interrupt::Interrupt,
    plan::Plan,
    text,
    vm::{Channel, Guest, GuestExit, Recv, VmError},
};
use lab_protocol::{
    AgentMessage, CapabilityReport, CellId, CellReport, ErrorKind, HostMessage, KernelVersion, PROTOCOL_VERSION,
    frame::{self, Decoder},
};
use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Notes that one guest may cause; the rest is only counted.
const MAX_NOTES: usize = 50;
/// Entries of each list in a report.
const MAX_ENTRIES: usize = 500;
/// Bytes of each string in a report.
const MAX_TEXT: usize = 4096;
/// Files that a report may bring.
const MAX_FILES: usize = 24;
/// Bytes of each.
const MAX_FILE: usize = 512 << 10;

/// What is wanted from a guest.
#[derive(Clone, Copy)]
pub enum Errand<'a> {
    /// Runs cells, piece by piece until there are none.
    Run {
        /// The next piece.
        next: &'a dyn Fn() -> Vec<CellId>,
        /// Whether the guest was restored, and must be told.
        restored: bool,
    },
    /// Comes to rest, to become a snapshot. The guest is still up afterwards.
    Settle,
}

/// What a guest gets to do.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// The whole plan.
    pub plan: &'a Plan,
    /// The version that the kernel must turn out to be.
    pub version: KernelVersion,
    /// What for.
    pub errand: Errand<'a>,
    /// Deadlines.
    pub timing: Timing,
    /// What the time to hello says about the guest's speed.
    pub rescale: &'a (dyn Fn(Duration) -> f32 + Sync),
    /// The deliberate fault.
    pub mutant: Option<&'a str>,
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
}

impl Task<'_> {
    const fn restored(&self) -> bool {
        matches!(self.errand, Errand::Run { restored: true, .. })
    }

    /// Launch to hello.
    const fn boot_limit(&self) -> Duration {
        if self.restored() { self.timing.restore } else { self.timing.boot }
    }
}

/// What a guest said that the rest of the run wants to know.
#[derive(Debug)]
pub enum Word {
    /// It is up.
    Hello {
        /// `uname -r`.
        release: String,
        /// `uname -v`.
        version: String,
        /// The real version.
        kernel: KernelVersion,
        /// Launch to hello.
        after: Duration,
    },
    /// Its probes.
    Probed {
        /// What the kernel can do.
        capabilities: Vec<CapabilityReport>,
        /// Loaded modules.
        modules: Vec<String>,
    },
    /// A cell began.
    Started(CellId),
    /// The running cell ended.
    Finished(Box<CellReport>),
    /// A line for the log.
    Note(String),
}

/// How a guest ended.
#[derive(Debug)]
pub enum End {
    /// Every cell of the task has been reported.
    Done,
    /// A signal, while this cell was running.
    Interrupted(Option<CellId>),
    /// Anything else.
    Lost(Lost),
}

/// A guest that did not get through.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost {
    /// As far as the port tells; the console may know better.
    pub kind: ErrorKind,
    /// One line.
    pub message: String,
    /// The cell that was running.
    pub cell: Option<CellId>,
    /// Whether a fresh guest may do better.
    pub again: bool,
    /// How its process ended, where it ended by itself.
    pub exit: Option<GuestExit>,
}

/// Drives a guest that has just been launched. The guest is alive afterwards unless it ended by itself: the caller
/// kills it.
pub fn drive(guest: &mut dyn Guest, task: Task<'_>, hear: &mut dyn FnMut(Word)) -> End {
    let launched = Instant::now();
    let channel = match connect(guest, task, launched) {
        Ok(channel) => channel,
        Err(end) => return end,
    };
    let mut session = Session {
        guest,
        channel,
        task,
        hear,
        decoder: Decoder::new(),
        launched,
        heard: launched,
        state: State::Booting,
        pending: BTreeSet::new(),
        limit: task.timing.boot + task.timing.idle,
        nonce: None,
        notes: 0,
    };
    match session.resume().and_then(|()| session.talk()) {
        Ok(()) => {
            if matches!(task.errand, Errand::Run { .. }) {
                session.shut_down();
            }
            End::Done
        }
        Err(end) => end,
    }
}

/// The port is there long before the agent, so waiting for it in slices costs nothing and Ctrl-C stays quick.
fn connect(guest: &mut dyn Guest, task: Task<'_>, launched: Instant) -> Result<Box<dyn Channel>, End> {
    let limit = launched + task.boot_limit();
    loop {
        if task.interrupt.signal().is_some() {
            return Err(End::Interrupted(None));
        }
        let slice = (Instant::now() + Duration::from_millis(500)).min(limit);
        match guest.connect(slice) {
            Ok(channel) => return Ok(channel),
            Err(VmError::ConnectTimeout { .. }) if Instant::now() < limit => {}
            Err(error) => {
                let kind = if matches!(error, VmError::Port { .. }) { ErrorKind::Host } else { ErrorKind::Boot };
                return Err(End::Lost(Lost {
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

enum State {
    Booting,
    Between { since: Instant },
    Running { cell: CellId, since: Instant },
}

struct Session<'a> {
    guest: &'a mut dyn Guest,
    channel: Box<dyn Channel>,
    task: Task<'a>,
    hear: &'a mut dyn FnMut(Word),
    decoder: Decoder,
    launched: Instant,
    heard: Instant,
    state: State,
    pending: BTreeSet<CellId>,
    /// The whole guest's deadline: a sum over all cells, so it is not computed at every turn of the loop.
    limit: Duration,
    /// What a restored guest's hello must bring back.
    nonce: Option<u64>,
    notes: usize,
}

impl Session<'_> {
    fn talk(&mut self) -> Result<(), End> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            if self.task.interrupt.signal().is_some() {
                return Err(End::Interrupted(self.running()));
            }
            self.check_deadlines()?;
            match self.channel.recv(&mut buffer, self.task.timing.poll) {
                Ok(Recv::Bytes(count)) => {
                    self.decoder.feed(&buffer[..count]);
                    if self.read_messages()? {
                        return Ok(());
                    }
                }
                // An exited machine's last bytes may still be in the socket: only its silence counts.
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

    fn check_deadlines(&self) -> Result<(), End> {
        let timing = &self.task.timing;
        let over = |since: Instant, limit: Duration| since.elapsed() > limit;
        let plan = self.task.plan;
        match &self.state {
            State::Booting => {
                let limit = self.task.boot_limit();
                if over(self.launched, limit) {
                    return Err(self.lost(ErrorKind::Boot, format!("no hello within {limit:.1?} of launch")));
                }
                return Ok(());
            }
            State::Between { since } if over(*since, timing.idle) => {
                return Err(self.lost(ErrorKind::Hang, format!("no cell began within {:.1?}", timing.idle)));
            }
            State::Running { cell, since } => {
                let limit = plan.info(cell).map_or(timing.idle, |info| timing.cell(info));
                if over(*since, limit) {
                    return Err(self.lost(ErrorKind::Hang, format!("{cell} ran for more than {limit:.1?}")));
                }
            }
            State::Between { .. } => {}
        }
        if over(self.heard, timing.silence) {
            return Err(self.lost(ErrorKind::Hang, format!("no heartbeat for {:.1?}", timing.silence)));
        }
        if over(self.launched, self.limit) {
            return Err(self.lost(ErrorKind::Hang, format!("the guest ran for more than {:.1?}", self.limit)));
        }
        Ok(())
    }

    /// Handles what is complete; true when the agent is done.
    fn read_messages(&mut self) -> Result<bool, End> {
        while let Some(message) = self.decoder.next_message::<AgentMessage>() {
            match message {
                Ok(message) => {
                    if self.handle(message)? {
                        return Ok(true);
                    }
                }
                Err(error) => self.note(format!("the agent's port delivered a {error}")),
            }
        }
        Ok(false)
    }

    fn handle(&mut self, message: AgentMessage) -> Result<bool, End> {
        if matches!(self.state, State::Booting)
            && !matches!(message, AgentMessage::Hello { .. } | AgentMessage::Fatal { .. })
        {
            // A restored guest may still have had something to say when it was saved.
            if !self.task.restored() {
                self.note("a message before hello was ignored".to_owned());
            }
            return Ok(false);
        }
        self.heard = Instant::now();
        match message {
            AgentMessage::Hello { nonce, .. } if nonce != self.nonce => {
                self.note("a hello that answers nobody was ignored".to_owned());
            }
            AgentMessage::Hello { protocol, release, version, kernel, .. } => {
                self.hello(protocol, release, version, kernel)?;
            }
            AgentMessage::Probed { capabilities, modules } => self.probed(capabilities, modules),
            AgentMessage::Settled => return Ok(matches!(self.task.errand, Errand::Settle)),
            AgentMessage::CellStarted { cell } => self.started(cell)?,
            AgentMessage::CellFinished { report } => self.finished(report),
            AgentMessage::Heartbeat { .. } => {}
            AgentMessage::Log { text } => self.note(format!("agent: {text}")),
            AgentMessage::Done { .. } if self.pending.is_empty() => {
                let cells = self.next_cells();
                if cells.is_empty() {
                    return Ok(true);
                }
                self.send_cells(cells)?;
            }
            AgentMessage::Done { .. } => {
                let message = format!("the agent said it is done, and {} cells are unreported", self.pending.len());
                return Err(self.lost(ErrorKind::Agent, message));
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
    ) -> Result<(), End> {
        if !matches!(self.state, State::Booting) {
            return Err(self.lost(ErrorKind::Agent, "a second hello: the guest restarted under the host".to_owned()));
        }
        if protocol != PROTOCOL_VERSION {
            let message = format!(
                "the agent speaks protocol {protocol}, this lab speaks {PROTOCOL_VERSION}; rebuild it (run without --no-build)"
            );
            return Err(self.refused(ErrorKind::Agent, message));
        }
        if kernel != self.task.version {
            let message = format!(
                "the plan is for kernel {}, the guest booted {kernel} ({})",
                self.task.version,
                text::line(&release, 100)
            );
            return Err(self.refused(ErrorKind::Host, message));
        }
        text::cap(&mut release, 256);
        text::cap(&mut version, 256);
        let after = self.launched.elapsed();
        // A restore is quick on a slow host too.
        if !self.task.restored() {
            self.task.timing = self.task.timing.at_least((self.task.rescale)(after));
        }
        (self.hear)(Word::Hello { release, version, kernel, after });
        self.state = State::Between { since: Instant::now() };
        if !self.task.restored() {
            self.send(&HostMessage::Hello { protocol: PROTOCOL_VERSION })?;
        }
        match self.task.errand {
            Errand::Settle => self.send(&HostMessage::Settle),
            // Without cells too: a guest may be wanted for its probes.
            Errand::Run { .. } => {
                let cells = self.next_cells();
                self.send_cells(cells)
            }
        }
    }

    /// Wakes a restored guest: its agent has said hello to another host long ago, and waits.
    fn resume(&mut self) -> Result<(), End> {
        if !self.task.restored() {
            return Ok(());
        }
        let random = |bytes: &mut [u8]| File::open("/dev/urandom").and_then(|mut file| file.read_exact(bytes));
        let (mut nonce, mut entropy) = ([0; 8], [0; 32]);
        random(&mut nonce)
            .and_then(|()| random(&mut entropy))
            .map_err(|error| self.lost(ErrorKind::Host, format!("/dev/urandom: {error}")))?;
        let nonce = u64::from_le_bytes(nonce);
        self.nonce = Some(nonce);
        self.send(&HostMessage::Resume { protocol: PROTOCOL_VERSION, nonce, now_unix_ns: now_unix_ns(), entropy })
    }

    fn next_cells(&self) -> Vec<CellId> {
        match self.task.errand {
            Errand::Run { next, .. } => next(),
            Errand::Settle => Vec::new(),
        }
    }

    fn send_cells(&mut self, cells: Vec<CellId>) -> Result<(), End> {
        let infos = cells.iter().filter_map(|cell| self.task.plan.info(cell));
        self.limit = self.launched.elapsed() + self.task.timing.guest(infos);
        self.pending = cells.iter().cloned().collect();
        self.send(&HostMessage::Run {
            cells,
            time_scale: self.task.timing.scale,
            now_unix_ns: now_unix_ns(),
            mutant: self.task.mutant.map(str::to_owned),
        })
    }

    fn probed(&mut self, mut capabilities: Vec<CapabilityReport>, mut modules: Vec<String>) {
        capabilities.truncate(MAX_ENTRIES);
        capabilities.iter_mut().for_each(|probe| text::cap(&mut probe.detail, MAX_TEXT));
        cap_all(&mut modules);
        (self.hear)(Word::Probed { capabilities, modules });
    }

    fn started(&mut self, cell: CellId) -> Result<(), End> {
        if let State::Running { cell: running, .. } = &self.state {
            let message = format!("{} began before {running} was reported", text::line(cell.as_str(), 200));
            return Err(self.lost(ErrorKind::Agent, message));
        }
        if !self.pending.contains(&cell) {
            self.note(format!("{} began, which nobody asked for: ignored", text::line(cell.as_str(), 200)));
            return Ok(());
        }
        (self.hear)(Word::Started(cell.clone()));
        self.state = State::Running { cell, since: Instant::now() };
        Ok(())
    }

    /// Only the running cell can finish: a report without a begin, or a second one, proves nothing.
    fn finished(&mut self, mut report: Box<CellReport>) {
        let running = matches!(&self.state, State::Running { cell, .. } if *cell == report.cell);
        if !running || !self.pending.remove(&report.cell) {
            let cell = text::line(report.cell.as_str(), 200);
            self.note(format!("a report of {cell}, which is not running, was ignored ({})", report.outcome.word()));
            return;
        }
        cap_report(&mut report);
        self.state = State::Between { since: Instant::now() };
        (self.hear)(Word::Finished(report));
    }

    fn note(&mut self, text: String) {
        self.notes += 1;
        match self.notes.cmp(&MAX_NOTES) {
            std::cmp::Ordering::Less => (self.hear)(Word::Note(text::line(&text, 1000))),
            std::cmp::Ordering::Equal => (self.hear)(Word::Note("further notes of this guest are dropped".to_owned())),
            std::cmp::Ordering::Greater => {}
        }
    }

    fn send(&mut self, message: &HostMessage) -> Result<(), End> {
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

    /// Every cell is reported, so nothing that happens here can change a verdict.
    fn shut_down(&mut self) {
        if self.send(&HostMessage::Shutdown).is_ok() {
            let _ = self.wait_for_exit();
        }
    }

    fn wait_for_exit(&mut self) -> Option<GuestExit> {
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

    fn gone(&self, exit: Option<GuestExit>) -> End {
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

    fn lost(&self, kind: ErrorKind, message: String) -> End {
        End::Lost(self.loss(kind, message))
    }

    fn refused(&self, kind: ErrorKind, message: String) -> End {
        End::Lost(Lost { again: false, ..self.loss(kind, message) })
    }

    fn loss(&self, kind: ErrorKind, message: String) -> Lost {
        Lost { kind, message, cell: self.running(), again: true, exit: None }
    }

    fn running(&self) -> Option<CellId> {
        match &self.state {
            State::Running { cell, .. } => Some(cell.clone()),
            State::Booting | State::Between { .. } => None,
        }
    }
}

fn now_unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn cap_all(texts: &mut Vec<String>) {
    texts.truncate(MAX_ENTRIES);
    texts.iter_mut().for_each(|text| text::cap(text, MAX_TEXT));
}

fn cap_report(report: &mut CellReport) {
    use lab_protocol::Outcome;
    cap_all(&mut report.log);
    report.checks.truncate(MAX_ENTRIES);
    for check in &mut report.checks {
        text::cap(&mut check.name, MAX_TEXT);
        text::cap(&mut check.seen, MAX_TEXT);
    }
    report.attach.truncate(MAX_ENTRIES);
    report.attach.iter_mut().for_each(|record| text::cap(&mut record.interface, 64));
    report.attachments.truncate(MAX_FILES);
    report.attachments.iter_mut().for_each(|file| file.bytes.truncate(MAX_FILE));
    while report.metrics.len() > MAX_ENTRIES {
        report.metrics.pop_last();
    }
    match &mut report.outcome {
        Outcome::Passed => {}
        Outcome::Failed { message, .. } | Outcome::Errored { message, .. } | Outcome::NotRun { message } => {
            text::cap(message, MAX_TEXT);
        }
        Outcome::Skipped { reason } => text::cap(&mut reason.detail, MAX_TEXT),
    }
}
