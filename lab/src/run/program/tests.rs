//! Programs as cells, with scripted guests.

use super::{Show, Streams};
use crate::{
    exec::ExecRequest,
    lists::Lists,
    run::{common::Retries, queue::Isolate, room::Room},
    testing::{
        agent::{Script, timing},
        run::FakeRun,
    },
};
use lab_base::interrupt::Interrupt;
use lab_protocol::{
    AgentMessage, CellJob, CellReport, FailureKind, HostMessage, HowEnded, Outcome, PROTOCOL_VERSION, ProgramEnd, Raw,
    frame::Decoder, shell::Stream, work::OUTPUT_WINDOW,
};
use lab_record::{exit::Exit, plan::Plan, rows, run::RunRecord, testing::facts};
use lab_vm::{Accel, Recv, fake::FakeLauncher};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

const PIECE: usize = 50_000;

/// A scripted agent that runs programs.
struct Program<'a> {
    script: Script<'a>,
    decoder: Decoder,
}

impl<'a> Program<'a> {
    /// Boots, and starts the cell that the host sends.
    fn start(mut script: Script<'a>) -> (Self, CellJob) {
        script.hello(PROTOCOL_VERSION);
        let mut program = Self { script, decoder: Decoder::new() };
        loop {
            match program.hear() {
                Some(HostMessage::Run { mut cells, .. }) => {
                    program.script.say(&AgentMessage::Probed { capabilities: Vec::new(), modules: Vec::new() });
                    let job = cells.remove(0);
                    program.script.start(&job.cell);
                    return (program, job);
                }
                Some(_) => {}
                None => panic!("the host left"),
            }
        }
    }

    fn hear(&mut self) -> Option<HostMessage> {
        // Several times what the slowest reader of a test waits.
        let deadline = Instant::now() + timing().silence * 12;
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = self.decoder.next_message() {
                return Some(message.unwrap());
            }
            match self.script.agent.channel().recv(&mut buffer, Duration::from_millis(100)) {
                Ok(Recv::Bytes(count)) => self.decoder.feed(&buffer[..count]),
                Ok(Recv::Timeout) if Instant::now() < deadline => {
                    self.script.say(&AgentMessage::Heartbeat { uptime_ms: 1, cell: None });
                }
                Ok(Recv::Timeout | Recv::Closed) | Err(_) => return None,
            }
        }
    }

    /// Writes as the real agent does: never more than the window beyond what the host took.
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let mut under_way = 0;
        for piece in bytes.chunks(PIECE) {
            while under_way + piece.len() > OUTPUT_WINDOW {
                match self.hear() {
                    Some(HostMessage::OutputTaken { bytes, .. }) => under_way -= bytes as usize,
                    Some(_) => {}
                    None => panic!("the host took nothing"),
                }
            }
            under_way += piece.len();
            self.script.say(&AgentMessage::Output { stream, bytes: piece.to_vec() });
        }
    }

    fn end(mut self, job: &CellJob, code: u8) {
        let outcome = match code {
            0 => Outcome::Passed,
            code => Outcome::Failed { kind: FailureKind::Exit, message: format!("exit code {code}") },
        };
        let end = ProgramEnd { how: HowEnded::Exited { code }, output: 0, errors: 0, processes: Vec::new() };
        self.script.finish(CellReport { program: Some(end), ..CellReport::bare(job.cell.clone(), outcome) });
        self.script.done(1);
        while let Some(message) = self.hear() {
            if message == HostMessage::Shutdown {
                self.script.say(&AgentMessage::Farewell { left: Vec::new() });
                return;
            }
        }
    }
}

struct Ran {
    record: RunRecord,
    output: Vec<u8>,
    errors: Vec<u8>,
    dir: tempfile::TempDir,
}

impl Ran {
    fn outcomes(&self) -> Vec<String> {
        let cells = self.record.verdicts().filter(|(_, cell, _)| !rows::is_row(&cell.id));
        cells.map(|(_, _, verdict)| format!("{} {}", verdict.outcome.word(), verdict.outcome.message())).collect()
    }

    fn file(&self, kernel: &str, name: &str) -> Vec<u8> {
        let files = self.record.given(&self.record.kernels[kernel]).flat_map(|verdict| verdict.files.clone());
        let path = files.into_iter().find(|path| path.ends_with(name)).unwrap();
        fs::read(self.dir.path().join(&*path)).unwrap()
    }
}

fn command() -> ExecRequest {
    ExecRequest {
        name: Some("cmd".to_owned()),
        env: vec![(Raw::from("STATED"), Raw::from("1"))],
        ..ExecRequest::of_words(&["cmd", "x"])
    }
}

/// Runs a command on these kernels, with this input; standard output is read after `slow`.
fn run(
    kernels: &[&str],
    input: Option<&[u8]>,
    slow: Duration,
    interrupt: Interrupt,
    script: impl Fn(Script<'_>) + Send + Sync + 'static,
) -> Ran {
    let (ours, theirs): (Vec<UnixStream>, Vec<UnixStream>) = (0..3).map(|_| UnixStream::pair().unwrap()).unzip();
    let [output, errors, source] = <[UnixStream; 3]>::try_from(ours).unwrap();
    let [mut read_output, mut read_errors, mut typed] = <[UnixStream; 3]>::try_from(theirs).unwrap();
    let show = if kernels.len() == 1 { Show::Plain } else { Show::Prefixed { width: 4 } };
    let variables = vec![(Raw::from("STATED"), Raw::from("0")), (Raw::from("PASSED"), Raw::from("secret"))];
    let streams = Streams::new(show, (output, errors), input.is_some().then(|| Box::new(source) as _), variables);
    let bytes = input.unwrap_or_default().to_vec();
    let typing = thread::spawn(move || {
        let _ = typed.write_all(&bytes);
    });
    let reading = thread::spawn(move || {
        thread::sleep(slow);
        let mut bytes = Vec::new();
        read_output.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let erring = thread::spawn(move || {
        let mut bytes = Vec::new();
        read_errors.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let launcher = FakeLauncher::new(move |agent| script(Script { agent }));
    // The versions of the scripted guests.
    let versions = |id: &&str| facts(id, if *id == "6.1" { "6.1.170" } else { "6.12.43" });
    let plan = Plan::new(kernels.iter().map(versions).collect(), command().cells(input.is_some(), None), false);
    let dir = tempfile::tempdir().unwrap();
    let run = FakeRun {
        earlier: None,
        pace: None,
        slow_fails: false,
        id: lab_record::testing::id("test"),
        plan,
        timing: timing(),
        rescale: &|_| 1.0,
        accel: Accel::Tcg,
        interrupt,
        launcher: &launcher,
        snapshots: None,
        room: Room::unlimited(),
        isolate: Isolate::Case,
        lists: Lists::default(),
        retries: Retries::default(),
        holder: None,
        streams: Some(&streams),
        objects: Vec::new(),
        agent: None,
        imageless: None,
    };
    let record = run.go(dir.path(), &mut []).unwrap();
    streams.finish();
    drop(streams);
    let (output, errors) = (reading.join().unwrap(), erring.join().unwrap());
    typing.join().unwrap();
    Ran { record, output, errors, dir }
}

fn on_one(script: impl Fn(Script<'_>) + Send + Sync + 'static) -> Ran {
    run(&["6.12"], None, Duration::ZERO, Interrupt::default(), script)
}

fn pattern() -> Vec<u8> {
    (0..5 * OUTPUT_WINDOW).map(|at| (at % 253) as u8).collect()
}

#[test]
fn one_command_has_its_streams_its_code_and_whole_files() {
    let ran = on_one(|script| {
        let (mut program, job) = Program::start(script);
        program.write(Stream::Output, b"a\xff\0");
        program.write(Stream::Error, b"e1\nlast words\n");
        program.write(Stream::Output, b"b");
        program.end(&job, 3);
    });
    assert_eq!((&*ran.output, &*ran.errors), (&b"a\xff\0b"[..], &b"e1\nlast words\n"[..]));
    assert_eq!(ran.outcomes(), ["failed exit: exit code 3: last words"]);
    assert_eq!(
        (ran.file("6.12", "stdout.txt"), ran.file("6.12", "stderr.txt")),
        (ran.output.clone(), ran.errors.clone())
    );
    let (exit, said) = crate::exec::end::of_one(&ran.record, false);
    assert_eq!((exit.code(), said), (3, Vec::new()), "the command's own output says it all");
    let events = serde_json::to_string(&ran.record.info).unwrap();
    assert!(!events.contains("secret"), "the caller's environment is in no report");
}

#[test]
fn a_slow_reader_loses_nothing_and_silences_nobody() {
    let slow = timing().silence * 2;
    let ran = run(&["6.12"], None, slow, Interrupt::default(), |script| {
        let (mut program, job) = Program::start(script);
        program.write(Stream::Output, &pattern());
        program.end(&job, 0);
    });
    assert_eq!(ran.outcomes(), ["passed "]);
    assert!(ran.output == pattern() && ran.file("6.12", "stdout.txt") == pattern());
}

#[test]
fn input_arrives_in_order_and_ends() {
    let ran = run(&["6.12"], Some(&pattern()), Duration::ZERO, Interrupt::default(), |script| {
        let (mut program, job) = Program::start(script);
        let mut input = Vec::new();
        loop {
            match program.hear() {
                Some(HostMessage::Input { bytes }) if bytes.is_empty() => break,
                Some(HostMessage::Input { bytes }) => {
                    input.extend_from_slice(&bytes);
                    program.script.say(&AgentMessage::InputTaken { bytes: bytes.len() as u32 });
                }
                other => panic!("{other:?}"),
            }
        }
        program.end(&job, u8::from(input != pattern()));
    });
    assert_eq!(ran.outcomes(), ["passed "]);
}

#[test]
fn several_kernels_have_prefixed_lines_and_files_of_their_own() {
    let ran = run(&["6.1", "6.12"], None, Duration::ZERO, Interrupt::default(), |script| {
        let (mut program, job) = Program::start(script);
        let lab_protocol::Work::Program(told) = &job.work else { panic!("no program") };
        let value = |name: &str| {
            let found = told.env.iter().filter(|(it, _)| it.as_bytes() == name.as_bytes());
            found.map(|(_, value)| value.shown()).collect::<Vec<_>>().join("+")
        };
        let kernel = value("LAB_KERNEL");
        assert_eq!((&*value("STATED"), &*value("PASSED"), &*value("LAB_CELL")), ("1", "secret", "cmd"));
        program.write(Stream::Output, format!("on {kernel}\nunfinished").as_bytes());
        program.end(&job, 0);
    });
    let mut lines: Vec<&str> = str::from_utf8(&ran.output).unwrap().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["6.1  | on 6.1", "6.1  | unfinished", "6.12 | on 6.12", "6.12 | unfinished"]);
    assert_eq!(ran.file("6.1", "stdout.txt"), b"on 6.1\nunfinished");
    let table = crate::exec::table(&ran.record, "results".as_ref());
    assert!(table.contains("6.12") && table.contains("2 passed"), "{table}");
}

#[test]
fn a_guest_that_is_lost_keeps_what_was_written_and_has_no_exit_code() {
    let ran = on_one(|script| {
        let (mut program, _) = Program::start(script);
        program.write(Stream::Output, b"before\n");
        thread::sleep(Duration::from_millis(100));
        program.script.agent.console("[ 2.0] Kernel panic - not syncing: test\n");
    });
    assert!(ran.outcomes()[0].starts_with("errored panic: "), "{:?}", ran.outcomes());
    assert_eq!((&*ran.output, &*ran.file("6.12", "stdout.txt")), (&b"before\n"[..], &b"before\n"[..]));
    let (exit, said) = crate::exec::end::of_one(&ran.record, false);
    assert_eq!(exit.code(), 125);
    assert!(said[0].contains("6.12: errored: panic"), "{said:?}");
}

#[test]
fn who_interrupts_a_command_gets_the_signals_exit_code_whatever_the_command_had() {
    let mut ran = on_one(|script| {
        let (program, job) = Program::start(script);
        program.end(&job, 3);
    });
    let told = |ran: &Ran| crate::exec::end::of_one(&ran.record, false).0;
    assert_eq!(told(&ran).code(), 3);
    let (exit, _) = ran.record.finished.as_mut().unwrap();
    *exit = Exit::Interrupted(2);
    assert_eq!(told(&ran).code(), 130);
}

#[test]
fn a_splat_is_the_commands_and_makes_a_passing_one_red() {
    let ran = on_one(|script| {
        let (mut program, job) = Program::start(script);
        let text = "WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2\n[    3.1] Call Trace:\n".to_owned();
        program.script.say(&AgentMessage::KernelLog { text });
        program.end(&job, 0);
    });
    assert_eq!(ran.outcomes(), ["failed splat: WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2"]);
    let (exit, said) = crate::exec::end::of_one(&ran.record, false);
    assert_eq!(exit.code(), 1);
    assert!(said[0].starts_with("6.12: failed: splat: WARNING"), "{said:?}");
}

#[test]
fn a_guest_that_ignores_the_window_is_given_up() {
    let ran = run(&["6.12"], None, Duration::from_millis(500), Interrupt::default(), |script| {
        let (mut program, _) = Program::start(script);
        for _ in 0..80 {
            program.script.say(&AgentMessage::Output { stream: Stream::Output, bytes: vec![b'x'; PIECE] });
        }
        program.script.hang();
    });
    assert_eq!(ran.outcomes(), ["errored over-budget: the guest sent output that nobody had room for"]);
}

#[test]
fn a_guest_that_names_a_place_which_was_not_given_to_it_is_given_up() {
    let ran = run(&["6.12"], None, Duration::from_millis(500), Interrupt::default(), |script| {
        let (mut program, _) = Program::start(script);
        program.script.say(&AgentMessage::StreamsMapped);
        program.script.say(&AgentMessage::OutputAt { stream: Stream::Output, at: 0, length: 1 });
        program.script.hang();
    });
    assert_eq!(ran.outcomes(), ["errored over-budget: the guest's output is not where it said that it is"]);
}

#[test]
fn a_signal_goes_to_the_program_and_its_end_is_the_end() {
    let interrupt = Interrupt::default();
    let raised = interrupt.clone();
    let ran = run(&["6.12"], None, Duration::ZERO, interrupt, move |script| {
        let (mut program, job) = Program::start(script);
        program.write(Stream::Output, b"x");
        while !matches!(program.hear(), Some(HostMessage::OutputTaken { .. })) {}
        raised.raise(15);
        assert_eq!(program.hear(), Some(HostMessage::Signal { signal: 15 }));
        program.end(&job, 143);
    });
    assert_eq!(ran.outcomes(), ["failed exit: exit code 143"]);
}

#[test]
fn a_reader_who_leaves_closes_the_stream() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let streams = Streams::new(Show::Plain, (full(), full()), None, Vec::new());
    let info = command().cells(false, None).remove(0);
    let dir = tempfile::tempdir().unwrap();
    let (interrupt, kernel) = (Interrupt::default(), lab_guard::Id::new("6.12").unwrap());
    let mut attempt = super::OpenStreams::open(&streams, &interrupt, dir.path(), (&kernel, "cmd"), &info, 1.0, None);
    attempt.output(Stream::Output, b"x".to_vec()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut said = Vec::new();
    while said.len() < 2 && Instant::now() < deadline {
        said.extend(attempt.say());
        thread::sleep(Duration::from_millis(1));
    }
    let stream = Stream::Output;
    assert_eq!(said, [HostMessage::OutputTaken { stream, bytes: 1 }, HostMessage::OutputClosed { stream }]);
}
