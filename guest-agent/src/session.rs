//! Handles the messages from the host.

use crate::{
    boot, entropy,
    error::AgentError,
    kmsg::{self, Log},
    memleak,
    program::{self, ProgramResult, ProgramSeat},
    sender::Sender,
    shell::Shell,
    successor::Successor,
    world,
};
use lab_harness::{Finished, RunOptions, Runner, Suite, write_object};
use lab_protocol::{
    AgentMessage, CellJob, CellReport, HostMessage, KernelVersion, Outcome, PROTOCOL_VERSION, Work, frame::Decoder,
    measure::MeasureRequest,
};
use nix::time::ClockId;
use std::{
    fs::File,
    io::{self, Read},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

/// Difference to the host's clock that does not matter: messages take as long on a busy host.
const CLOCK_IS_RIGHT: Duration = Duration::from_millis(100);

/// How the agent came to its machine.
pub struct AgentStart {
    /// `CLOCK_BOOTTIME` at its start, milliseconds.
    pub boot_ms: u64,
    /// What its first `Hello` answers: nothing after a boot.
    pub nonce: Option<u64>,
    /// Modules that are loaded.
    pub modules: Vec<String>,
}

/// Handles messages from the host until it sends `Shutdown`.
///
/// # Errors
/// The port fails, the host uses another protocol version, or the harness can't probe the kernel.
pub fn run(suites: &[&'static dyn Suite], port: File, start: AgentStart) -> Result<(), AgentError> {
    let AgentStart { boot_ms, nonce, modules } = start;
    let reader = port.try_clone().map_err(AgentError::Port)?;
    let sender = Sender::new(port);
    let mut inbox = Inbox { port: reader, decoder: Decoder::new() };

    let uts = nix::sys::utsname::uname().map_err(AgentError::Uname)?;
    let (release, version) = (uts.release().to_string_lossy(), uts.version().to_string_lossy());
    let kernel = KernelVersion::from_uname(&release, &version)
        .ok_or_else(|| AgentError::Release(release.clone().into_owned()))?;
    let hello = |nonce| AgentMessage::Hello {
        protocol: PROTOCOL_VERSION,
        nonce,
        agent: crate::version(),
        release: release.clone().into_owned(),
        version: version.clone().into_owned(),
        kernel,
        boot_ms,
    };
    let probed = |runner: &Runner| AgentMessage::Probed {
        capabilities: runner.capabilities().to_vec(),
        modules: modules.clone(),
    };
    sender.send(&hello(nonce))?;
    sender.start_heartbeat();

    let log = Arc::new(Mutex::new(Log::open()));
    // Splats of the boot: reported to every host that resumes this guest.
    let mut boot_log = String::new();
    let mut scale = 1.0;
    let mut runner: Option<Arc<Runner>> = None;
    let mut shell: Option<Shell> = None;
    let mut successor: Option<Successor> = None;
    let programs = ProgramSeat::default();
    let mut work = CellWork::start().map_err(AgentError::Thread)?;
    loop {
        match inbox.next()? {
            HostMessage::Hello { protocol } | HostMessage::Resume { protocol, .. } if protocol != PROTOCOL_VERSION => {
                let error = AgentError::Protocol(protocol);
                sender.send(&AgentMessage::Fatal { message: error.to_string() })?;
                return Err(error);
            }
            HostMessage::Hello { .. } => {
                let fresh = told(&sender, Runner::probe(kernel, suites).map_err(AgentError::from))?;
                if nonce.is_some() {
                    told(&sender, fresh.accept_after_another().map_err(AgentError::from))?;
                }
                programs.prepare(&fresh);
                sender.send(&probed(&fresh))?;
                runner = Some(Arc::new(fresh));
                boot_log = locked(&log).splats();
                sender.report(&boot_log)?;
            }
            HostMessage::Settle => {
                work.finish()?;
                // What a set-up left is part of the guest from now on.
                told(&sender, world::let_go().map_err(AgentError::from))?;
                if let Some(runner) = runner.as_ref().filter(|_| programs.ran()) {
                    runner.accept()?;
                }
                programs.look();
                programs.make_ahead(runner.as_deref());
                settle();
                sender.send(&AgentMessage::Settled)?;
            }
            HostMessage::Resume { nonce, now_unix_ns, entropy, .. } => {
                let Some(runner) = &runner else {
                    return Err(AgentError::OutOfTurn { message: "Resume", when: "before Settle" });
                };
                set_clock(now_unix_ns);
                if let Err(error) = entropy::reseed(&entropy) {
                    kmsg::say(&format!("entropy: {error}"));
                }
                sender.send(&hello(Some(nonce)))?;
                sender.send(&probed(runner))?;
                sender.report(&boot_log)?;
            }
            // The next agent parses it.
            HostMessage::Object { name, bytes } if successor.is_some() => {
                told(&sender, write_object(&name, &bytes).map(drop).map_err(AgentError::from))?;
            }
            HostMessage::Object { name, bytes } => {
                let Some(runner) = &runner else {
                    return Err(AgentError::OutOfTurn { message: "Object", when: "before Hello" });
                };
                work.finish()?;
                told(&sender, runner.exchange(&name, &bytes).map_err(AgentError::from))?;
            }
            // Programs have mounts, threads and a witness that the next agent would not know.
            HostMessage::AgentPiece { .. } if program::are_expected() || programs.ran() => {
                let error = AgentError::OutOfTurn { message: "AgentPiece", when: "to a guest for programs" };
                return told(&sender, Err(error));
            }
            HostMessage::AgentPiece { bytes } => {
                let next = successor.take().map_or_else(Successor::begin, Ok);
                let added = next.and_then(|mut next| next.add(&bytes).map(|()| next));
                successor = Some(told(&sender, added)?);
            }
            HostMessage::StartAgent { nonce } => {
                work.finish()?;
                let missing = AgentError::OutOfTurn { message: "StartAgent", when: "before AgentPiece" };
                let started = successor.take().ok_or(missing).and_then(|next| next.start(nonce, &sender));
                match told(&sender, started)? {}
            }
            HostMessage::Run { cells, time_scale, now_unix_ns, mutant } => {
                let Some(runner) = &runner else {
                    return Err(AgentError::OutOfTurn { message: "Run", when: "before Hello" });
                };
                set_clock(now_unix_ns);
                scale = time_scale;
                // The session goes on reading the port meanwhile: a program has input, and its output is acknowledged.
                work.finish()?;
                let (sender, log, runner) = (sender.clone(), Arc::clone(&log), Arc::clone(runner));
                let (programs, options) = (programs.clone(), RunOptions { time_scale, mutant, held: false });
                let run = move || run_cells(&sender, &log, &runner, &programs, &cells, &options);
                work.begin(Box::new(run))?;
            }
            HostMessage::Shell(request) => {
                let Some(runner) = &runner else {
                    return Err(AgentError::OutOfTurn { message: "Shell", when: "before Hello" });
                };
                set_clock(request.now_unix_ns);
                shell = Some(Shell::start(Arc::clone(runner), *request, programs.witness(), sender.clone()));
            }
            HostMessage::Measure(request) => {
                let Some(runner) = &runner else {
                    return Err(AgentError::OutOfTurn { message: "Measure", when: "before Hello" });
                };
                set_clock(request.now_unix_ns);
                measure(&sender, runner, &request)?;
            }
            // Ignored where neither a shell nor a program is open.
            HostMessage::Input { bytes } => match &shell {
                Some(shell) => shell.input(bytes),
                None => programs.input(bytes),
            },
            HostMessage::MapStreams => {
                if programs.map_streams() {
                    sender.send(&AgentMessage::StreamsMapped)?;
                    programs.use_memory();
                }
            }
            HostMessage::InputAt { at, length } => programs.input_at(at, length),
            HostMessage::Resize(size) => match &shell {
                Some(shell) => shell.resize(size),
                None => programs.resize(size),
            },
            HostMessage::OutputTaken { stream, bytes } => programs.taken(stream, bytes),
            HostMessage::OutputClosed { stream } => programs.close(stream),
            HostMessage::Signal { signal } => programs.signal(signal),
            HostMessage::Shutdown => {
                work.finish()?;
                // What a program left is in its report, and nobody's fault but its own.
                let left = runner.as_ref().filter(|_| !programs.ran());
                let left = left.map(|runner| runner.left(scale)).unwrap_or_default();
                memleak::scan();
                sender.report(&locked(&log).splats())?;
                sender.send(&AgentMessage::Farewell { left })?;
                // Nothing is released: taking the witness off the kernel's functions takes seconds in an emulated guest, and
                // the machine ends.
                boot::power_off()
            }
        }
    }
}

/// Tells the host why the agent gives up.
fn told<T>(sender: &Sender, result: Result<T, AgentError>) -> Result<T, AgentError> {
    result.inspect_err(|error| {
        let _ = sender.send(&AgentMessage::Fatal { message: error.to_string() });
    })
}

fn locked(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

type CellJobs = Box<dyn FnOnce() -> Result<(), AgentError> + Send>;

/// The thread that runs cells, started before the snapshot is taken: in a restored guest starting one takes 40 ms.
struct CellWork {
    jobs: mpsc::Sender<CellJobs>,
    results: mpsc::Receiver<Result<(), AgentError>>,
    is_running: bool,
}

impl CellWork {
    fn start() -> io::Result<Self> {
        let (jobs, for_thread) = mpsc::channel::<CellJobs>();
        let (from_thread, results) = mpsc::channel();
        thread::Builder::new().name("cells".into()).spawn(move || {
            for job in for_thread {
                if from_thread.send(job()).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { jobs, results, is_running: false })
    }

    /// Runs cells, after the last ones.
    fn begin(&mut self, cells: CellJobs) -> Result<(), AgentError> {
        self.finish()?;
        self.jobs.send(cells).map_err(|_| AgentError::Panicked)?;
        self.is_running = true;
        Ok(())
    }

    /// Waits for the cells of the last `Run`, which the host has heard the end of.
    fn finish(&mut self) -> Result<(), AgentError> {
        if mem::take(&mut self.is_running) {
            return self.results.recv().unwrap_or(Err(AgentError::Panicked));
        }
        Ok(())
    }
}

fn run_cells(
    sender: &Sender,
    log: &Mutex<Log>,
    runner: &Arc<Runner>,
    programs: &ProgramSeat,
    cells: &[CellJob],
    options: &RunOptions,
) -> Result<(), AgentError> {
    let mut ran = 0;
    for (number, CellJob { cell, work, requires }) in (1..).zip(cells) {
        runner.expect_more(number < cells.len());
        // The witness looks for what appears beside a case.
        let after = cells.get(number).filter(|after| matches!(after.work, Work::Case) && !programs.watches_cases());
        runner.build_after_next(after.map(|after| &after.cell));
        sender.set_current(Some(cell.clone()));
        mark(sender, &mut locked(log), &format!("begin {cell}"))?;
        let started = || sender.send(&AgentMessage::CellStarted { cell: cell.clone() });
        let ProgramResult { report, stuck } = match work {
            Work::Case => {
                started()?;
                let watched = programs.watch(runner, options.mutant.as_deref());
                let Finished { mut report, stuck } = runner.run(cell, options);
                report.witness = watched.filter(|_| stuck.is_none()).map(|it| Box::new(it.finish(&report)));
                ProgramResult { report, stuck }
            }
            Work::Program(program) => {
                runner.forget_ahead();
                let opened = programs.open();
                started()?;
                let missing = requires.iter().find_map(|capability| runner.need(*capability).err());
                if let Some(reason) = missing {
                    let report = CellReport::bare(cell.clone(), Outcome::Skipped { reason });
                    opened.cancel(report)
                } else {
                    opened.run(runner, cell, program, options.time_scale, sender)
                }
            }
        };
        mark(sender, &mut locked(log), &format!("end {cell}"))?;
        sender.set_current(None);
        sender.send(&AgentMessage::CellFinished { report: Box::new(report) })?;
        if let Some(stuck) = stuck {
            // A thread that cannot be stopped still holds namespaces and programs: the guest is no longer pristine. It stays
            // up, since the host asks what hangs before it kills it.
            return sender.send(&AgentMessage::Fatal { message: stuck });
        }
        ran += 1;
    }
    sender.send(&AgentMessage::Done { ran })
}

/// Reports splats since the last mark, and marks the place in the kernel log. Where the console got a line since then, the
/// mark goes there too: the host attributes what precedes it to the cell before.
fn mark(sender: &Sender, log: &mut Log, line: &str) -> Result<(), AgentError> {
    let splats = log.splats();
    if log.was_loud() || !splats.is_empty() {
        kmsg::say(line);
    } else {
        kmsg::note(line);
    }
    sender.report(&splats)
}

fn measure(sender: &Sender, runner: &Runner, request: &MeasureRequest) -> Result<(), AgentError> {
    let mut ran = 0;
    let tell = |round, setup, sample| sender.send(&AgentMessage::Measured { round, setup, sample });
    let measured: Result<(), AgentError> = runner.measure(request, &mut |round, setup, sample| {
        ran += 1;
        tell(round, setup, sample)
    });
    match measured {
        Ok(()) => sender.send(&AgentMessage::Done { ran }),
        Err(error) => sender.send(&AgentMessage::Refused { message: error.to_string() }),
    }
}

/// Writes back dirty pages and drops the caches that the boot filled, so that a snapshot is small.
fn settle() {
    nix::unistd::sync();
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "3");
}

/// Sets the clock, which may be wrong in a restored or emulated guest, so that logs have the right time.
///
/// One that is right to a tenth of a second is left alone: setting it interrupts every processor.
fn set_clock(now_unix_ns: u64) {
    let now = Duration::from_nanos(now_unix_ns);
    let have = nix::time::clock_gettime(ClockId::CLOCK_REALTIME).map(Duration::from);
    if have.is_ok_and(|have| have.abs_diff(now) < CLOCK_IS_RIGHT) {
        return;
    }
    let _ = nix::time::clock_settime(ClockId::CLOCK_REALTIME, nix::sys::time::TimeSpec::from_duration(now));
}

struct Inbox {
    port: File,
    decoder: Decoder,
}

impl Inbox {
    /// The next intact message; broken frames are logged and skipped.
    fn next(&mut self) -> Result<HostMessage, AgentError> {
        let mut buffer = [0; 16384];
        loop {
            match self.decoder.next_message() {
                Some(Ok(message)) => return Ok(message),
                Some(Err(error)) => {
                    kmsg::say(&format!("broken frame from the host: {error}"));
                    continue;
                }
                None => {}
            }
            match self.port.read(&mut buffer) {
                // Reads return no data while the host is not connected.
                Ok(0) => std::thread::sleep(Duration::from_millis(1)),
                Ok(count) => self.decoder.feed(&buffer[..count]),
                Err(error) => return Err(AgentError::Port(error)),
            }
        }
    }
}
