//! Cells whose work is a program: it is started, its streams are forwarded, and its end becomes the cell's report.
//!
//! Where to start: [`ProgramSeat::run`] has the whole life of one. `lines.rs` is what the session's thread hands it from the host,
//! `start.rs` says why one did not start, `processes.rs` knows which processes are its.

mod asked;
pub mod core;
mod lines;
pub mod mark;
mod memory;
mod processes;
mod start;
pub mod terminal;
mod witnessed;

use crate::{error::AgentError, kmsg, names::Names, sender::Sender, world};
use asked::AskedServer;
use lab_harness::{Netns, Runner, Staged, quiet};
use lab_protocol::{
    AgentMessage, CellId, CellProgram, CellReport, ErrorKind, FailureKind, HowEnded, Outcome, ProgramEnd,
    shell::{Size, Stream},
    witness::MARK_SOCKET,
    work::{INPUT_AREA, OUTPUT_WINDOW, STREAM_PIECE, TAKEN_SOCKET, output_area, place},
};
use lines::{InputPiece, Lines};
use memory::MappedStreams;
use nix::{
    sys::{
        signal::{Signal, killpg},
        wait::WaitStatus,
    },
    unistd::Pid,
};
use processes::{Before, Immortal};
use start::{CellInput, NotStarted, StartedProgram};
use std::{
    fs::File,
    io::{self, Read, Write},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};
pub use witnessed::{WitnessSeat, are_expected};
use witnessed::{Witnessed, WitnessedCase};

/// End of input in a terminal: Ctrl-D.
const END_OF_INPUT: u8 = 4;
/// From SIGTERM at the timeout to SIGKILL.
const LAST_CHANCE: Duration = Duration::from_secs(5);

/// The programs of a session: one at a time.
#[derive(Clone, Default)]
pub struct ProgramSeat {
    running: Arc<Mutex<Option<Arc<Lines>>>>,
    /// Whether one has run: what it left in the guest is in its report.
    ran: Arc<AtomicBool>,
    /// What watches them.
    witness: Arc<WitnessSeat>,
    /// Where their streams' bytes are, once the host has asked for that; nothing where it can't be mapped.
    memory: Arc<OnceLock<Option<MappedStreams>>>,
}

/// A program's end as the host hears it.
pub struct ProgramResult {
    /// The report to send.
    pub report: CellReport,
    /// Set where processes could not be killed: the guest must be thrown away.
    pub stuck: Option<String>,
}

impl ProgramSeat {
    /// Hands something to the program that runs; where none does, it is for nobody.
    pub fn hand(&self, give: impl FnOnce(&Lines)) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(lines) = running {
            give(&lines);
        }
    }

    /// Input for it.
    pub fn input(&self, bytes: Vec<u8>) {
        self.hand(|lines| lines.input(InputPiece::Bytes(bytes)));
    }

    /// Input for it that is in the machine's memory for streams.
    pub fn input_at(&self, at: u32, length: u32) {
        self.hand(|lines| lines.input(InputPiece::Laid { at, length }));
    }

    /// Maps the memory for streams; false where it can't be, and they stay on the port.
    pub fn map_streams(&self) -> bool {
        let map = || MappedStreams::map().inspect_err(|error| kmsg::note(&format!("memory for streams: {error}"))).ok();
        self.memory.get_or_init(map).is_some()
    }

    /// Lets the program that runs write to that memory. The host has heard before that it is mapped.
    pub fn use_memory(&self) {
        self.hand(Lines::use_memory);
    }

    fn memory(&self) -> Option<&MappedStreams> {
        self.memory.get()?.as_ref()
    }

    /// The host took some of its output.
    pub fn taken(&self, stream: Stream, bytes: u32) {
        self.hand(|lines| lines.window(stream).leave(bytes as usize));
    }

    /// Nobody reads this stream any more.
    pub fn close(&self, stream: Stream) {
        self.hand(|lines| lines.window(stream).close());
    }

    /// Its terminal has another size.
    pub fn resize(&self, size: Size) {
        self.hand(|lines| lines.resize(size));
    }

    /// A signal for it.
    pub fn signal(&self, signal: i32) {
        self.hand(|lines| lines.signal(signal));
    }

    /// The witness of the guest.
    pub fn witness(&self) -> Arc<WitnessSeat> {
        Arc::clone(&self.witness)
    }

    /// Readies the guest for programs, before its snapshot is taken.
    pub fn prepare(&self, runner: &Runner) {
        self.witness.preload(runner);
        if are_expected() {
            // Its failure is the first program's, which tries it again.
            let _ = world::settle_once();
        }
    }

    /// Reads what the witness of the first program compares with, right before the snapshot is taken: nothing changes until that
    /// program starts.
    pub fn look(&self) {
        self.witness.look();
    }

    /// Mounts what any program has in its root, right before the snapshot is taken; in guests of cases builds what they need.
    pub fn make_ahead(&self, runner: Option<&Runner>) {
        if let Some(runner) = runner.filter(|_| !are_expected()) {
            runner.build_ahead();
        }
        if are_expected() {
            // Its failure is the first program's, which tries it again.
            if let Err(error) = world::make_ahead() {
                kmsg::note(&format!("nothing is mounted ahead: {error}"));
            }
        }
    }

    /// Begins to watch a case of the suite, where the guest was booted for that.
    pub fn watch(&self, runner: &Runner, mutant: Option<&str>) -> Option<WitnessedCase> {
        self.witness.begin_case(runner, mutant)
    }

    /// Whether cases of the suite are watched.
    pub fn watches_cases(&self) -> bool {
        self.witness.watches_cases()
    }

    /// Whether any program has run in this guest.
    pub fn ran(&self) -> bool {
        self.ran.load(Ordering::SeqCst)
    }

    fn close_lines(&self) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Opens the lines to the next program, before the host hears that its cell has begun.
    pub fn open(&self) -> OpenedProgram<'_> {
        let (lines, input) = Lines::new();
        let lines = Arc::new(lines);
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&lines));
        self.ran.store(true, Ordering::SeqCst);
        OpenedProgram { programs: self, lines, input }
    }
}

/// The lines to a program that has not started.
pub struct OpenedProgram<'a> {
    programs: &'a ProgramSeat,
    lines: Arc<Lines>,
    input: mpsc::Receiver<InputPiece>,
}

impl OpenedProgram<'_> {
    /// The end of a program that is not to start.
    pub fn cancel(self, report: CellReport) -> ProgramResult {
        self.programs.close_lines();
        ProgramResult { report, stuck: None }
    }

    /// The whole life of the program.
    pub fn run(
        self,
        runner: &Arc<Runner>,
        cell: &CellId,
        program: &CellProgram,
        time_scale: f32,
        sender: &Sender,
    ) -> ProgramResult {
        let begin = Instant::now();
        let programs = self.programs;
        let mut ended = self.live(runner, cell, program, time_scale, sender);
        programs.close_lines();
        ended.report.duration_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        ended
    }

    fn live(
        self,
        runner: &Arc<Runner>,
        cell: &CellId,
        program: &CellProgram,
        time_scale: f32,
        sender: &Sender,
    ) -> ProgramResult {
        let errored = |kind, message| ProgramResult {
            report: CellReport::bare(cell.clone(), Outcome::Errored { kind, message }),
            stuck: None,
        };
        quiet::again();
        let staged = match Staged::build(runner, &program.stage, time_scale) {
            Ok(staged) => staged,
            Err(error) => return errored(ErrorKind::NotStarted, error.to_string()),
        };
        // What the lab's topologies need is none of the program's.
        quiet::normal();
        let node = match node(&staged, program.node.as_deref()) {
            Ok(node) => node,
            Err(error) => return errored(ErrorKind::NotStarted, error.to_string()),
        };
        if let Err(error) = world::name_guest() {
            return errored(ErrorKind::Agent, format!("the guest's name: {error}"));
        }
        let published = staged.namespaces().map_err(AgentError::from).and_then(|all: Vec<Netns>| {
            let names = Names::publish(&all)?;
            Ok((names, all))
        });
        let (names, nodes) = match published {
            Ok(published) => published,
            Err(error) => return errored(ErrorKind::NotStarted, error.to_string()),
        };
        if program.world.is_some() {
            // What the agent sets is none of the program's doing. The program's start tells why it can't be.
            let _ = world::settle_once();
        }
        let witnessed = program.witness.as_ref().map(|_| self.programs.witness.begin(runner, &nodes));
        let before = Before::now();
        let started = match start::start(program, node.as_ref()) {
            Ok(started) => started,
            Err(NotStarted { code, message }) => {
                let mut ended = errored(ErrorKind::NotStarted, message);
                ended.report.program = Some(end(HowEnded::NotStarted { code }, [0; 2], Vec::new()));
                return ended;
            }
        };
        let marks = witnessed.as_ref().and_then(Witnessed::marker).map(|marker| {
            let at = started.world.as_ref().map_or_else(|| MARK_SOCKET.into(), |world| world.path(MARK_SOCKET));
            mark::listen(&at, marker)
        });
        if let Some(Err(error)) = &marks {
            kmsg::note(&format!("no marks can be made: {error}"));
        }
        let taken = started.world.as_ref().map(|world| {
            let lines = Arc::clone(&self.lines);
            // A question that is no number is about nothing that was written.
            AskedServer::listen(&world.path(TAKEN_SOCKET), move |bytes, ended| {
                lines.window(Stream::Output).wait_taken(bytes.parse().unwrap_or_default(), ended);
                "taken\n".to_owned()
            })
        });
        if let Some(Err(error)) = &taken {
            kmsg::note(&format!("a program can't ask what the host has taken: {error}"));
        }
        let (finished, stuck) = self.follow(started, program, &before, sender);
        drop((marks, taken));
        let outcome = match (&finished, &stuck) {
            (Err(message), _) => Outcome::Errored { kind: ErrorKind::Agent, message: message.clone() },
            (Ok(_), Some(message)) => Outcome::Errored { kind: ErrorKind::Hang, message: message.clone() },
            (Ok(end), None) => outcome(&end.how),
        };
        let mut report = CellReport::bare(cell.clone(), outcome);
        report.program = finished.ok();
        // What is left is what no process holds, and hangs on devices that are deleted next.
        report.witness = witnessed.filter(|_| stuck.is_none()).map(|witnessed| Box::new(witnessed.finish(&nodes)));
        drop((names, nodes));
        if stuck.is_none() {
            drop(node);
            if let Err(problem) = staged.end() {
                report.log.push(format!("the topology could not be deleted: {problem}"));
            }
            report.log.extend(runner.left(time_scale).into_iter().map(|left| format!("left behind: {left}")));
        }
        let left = report.program.iter().flat_map(|end| &end.processes);
        let left: Vec<String> = left.map(|process| format!("left running, and killed: {process}")).collect();
        report.log.extend(left);
        ProgramResult { report, stuck: stuck.map(|why| format!("{cell}: {why}")) }
    }

    /// Forwards the streams of a program until all of its processes have ended.
    fn follow(
        self,
        started: StartedProgram,
        program: &CellProgram,
        before: &Before,
        sender: &Sender,
    ) -> (Result<ProgramEnd, String>, Option<String>) {
        let StartedProgram { child, outputs, input, terminal, world } = started;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        self.lines.started(pid, terminal);
        let timer = program.timeout_ms.map(|limit| Timer::start(pid, Duration::from_millis(limit)));
        let (done, through) = mpsc::channel();
        let mut streams = 0;
        for (stream, source) in outputs {
            streams += 1;
            let (lines, sender, done) = (Arc::clone(&self.lines), sender.clone(), done.clone());
            let programs = self.programs.clone();
            thread::spawn(move || {
                let count = forward(stream, source, &lines, &programs, &sender);
                let _ = done.send((stream, count));
            });
        }
        let (feeder, programs) = (sender.clone(), self.programs.clone());
        let input_lines = self.input;
        // Ends when the lines are closed, which may be after the program's end: it is not waited for.
        thread::spawn(move || feed(input, &input_lines, &programs, &feeder));
        let status = before.wait_for(pid);
        self.lines.over();
        let timed_out = timer.map(Timer::stop).unwrap_or_default();
        let left = before.end_all();
        let stuck = left.is_err().then(|| "processes of the program could not be killed".to_owned());
        // Its root is unmounted once nobody is in it.
        drop(world);
        let processes = left.unwrap_or_else(|Immortal| Vec::new());
        let mut counts = [0; 2];
        for _ in 0..streams {
            // What was written comes to its end with the last process. Only one that can't be killed holds it open.
            let next = match stuck {
                None => through.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(_) => through.recv_timeout(LAST_CHANCE),
            };
            if let Ok((stream, count)) = next {
                counts[usize::from(stream == Stream::Error)] = count;
            }
        }
        let how = match status {
            Err(errno) => return (Err(format!("waiting for the program: {errno}")), stuck),
            Ok(_) if timed_out => HowEnded::TimedOut { after_ms: program.timeout_ms.unwrap_or_default() },
            Ok(WaitStatus::Signaled(_, signal, core)) => HowEnded::Killed { signal: signal as i32, core },
            Ok(WaitStatus::Exited(_, code)) => HowEnded::Exited { code: code as u8 },
            Ok(other) => return (Err(format!("the program ended in no known way: {other:?}")), stuck),
        };
        (Ok(end(how, counts, processes)), stuck)
    }
}

const fn end(how: HowEnded, counts: [u64; 2], processes: Vec<String>) -> ProgramEnd {
    ProgramEnd { how, output: counts[0], errors: counts[1], processes }
}

fn outcome(how: &HowEnded) -> Outcome {
    match how {
        HowEnded::Exited { code: 0 } => Outcome::Passed,
        HowEnded::TimedOut { .. } => Outcome::Failed { kind: FailureKind::Timeout, message: how.to_string() },
        _ => Outcome::Failed { kind: FailureKind::Exit, message: how.to_string() },
    }
}

/// The namespace of a node.
fn node(staged: &Staged, name: Option<&str>) -> Result<Option<Netns>, AgentError> {
    let Some(name) = name else { return Ok(None) };
    let mut all = staged.namespaces()?;
    match all.iter().position(|ns| ns.name() == name) {
        Some(at) => Ok(Some(all.swap_remove(at))),
        None => {
            let nodes = all.iter().map(|ns| ns.name().to_owned()).collect();
            Err(AgentError::NoNode { node: name.to_owned(), nodes })
        }
    }
}

/// Forwards output until all that could write it have closed it; gives the number of bytes.
fn forward(stream: Stream, mut source: File, lines: &Lines, programs: &ProgramSeat, sender: &Sender) -> u64 {
    let mut buffer = vec![0; STREAM_PIECE];
    let (mut total, mut next) = (0, 0);
    loop {
        let at = place(next, STREAM_PIECE);
        let memory = programs.memory().filter(|_| lines.uses_memory());
        let read = match memory {
            Some(memory) => memory.read_from(&source, output_area(stream) + at, STREAM_PIECE),
            None => source.read(&mut buffer),
        };
        match read {
            Ok(count @ 1..) => {
                if !lines.window(stream).enter(count, OUTPUT_WINDOW) {
                    // Closing the pipe: the next write of the program is refused with EPIPE and SIGPIPE.
                    return total;
                }
                let message = match memory {
                    Some(_) => {
                        next = at + count;
                        // Both are below the size of the area.
                        AgentMessage::OutputAt { stream, at: at as u32, length: count as u32 }
                    }
                    None => AgentMessage::Output { stream, bytes: buffer[..count].to_vec() },
                };
                if sender.send(&message).is_err() {
                    return total;
                }
                total += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A terminal whose last program has ended reads as EIO.
            Ok(_) | Err(_) => return total,
        }
    }
}

/// Writes input as the program takes it, and says so to the host. What comes after its end is taken and thrown away.
fn feed(mut input: Option<CellInput>, taken: &mpsc::Receiver<InputPiece>, programs: &ProgramSeat, sender: &Sender) {
    let over = || io::Error::from(io::ErrorKind::UnexpectedEof);
    for piece in taken {
        let written = match (&mut input, &piece) {
            (Some(CellInput::Terminal(terminal)), piece) if piece.is_end() => terminal.write_all(&[END_OF_INPUT]),
            (Some(CellInput::Pipe(_)), piece) if piece.is_end() => Err(over()),
            (Some(input), InputPiece::Bytes(bytes)) => input.file().write_all(bytes),
            (Some(input), InputPiece::Laid { at, length }) => {
                let (at, length) = (*at as usize, *length as usize);
                programs
                    .memory()
                    .ok_or_else(over)
                    .and_then(|memory| memory.write_to(input.file(), INPUT_AREA + at, length))
            }
            (None, _) => Err(over()),
        };
        if written.is_err() {
            // Closing the pipe is the end of input.
            input = None;
        }
        if sender.send(&AgentMessage::InputTaken { bytes: piece.length() }).is_err() {
            return;
        }
    }
}

/// Ends a program at its timeout.
struct Timer {
    stop: mpsc::Sender<()>,
    thread: thread::JoinHandle<bool>,
}

impl Timer {
    fn start(group: Pid, limit: Duration) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            if stopped.recv_timeout(limit) != Err(RecvTimeoutError::Timeout) {
                return false;
            }
            let _ = killpg(group, Signal::SIGTERM);
            // A stopped process hears nothing but this.
            let _ = killpg(group, Signal::SIGCONT);
            if stopped.recv_timeout(LAST_CHANCE) == Err(RecvTimeoutError::Timeout) {
                let _ = killpg(group, Signal::SIGKILL);
            }
            true
        });
        Self { stop, thread }
    }

    /// Whether the program ran into its timeout.
    fn stop(self) -> bool {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}
