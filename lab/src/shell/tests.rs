//! Shell sessions with a scripted guest.

use super::{terminal::Keyboard, *};
use crate::{
    lists::Lists,
    run::{
        common::{Common, Prepared, Retries},
        queue::Isolate,
        room::Room,
        visit::{Visited, visit},
    },
    testing::agent::{Script, timing},
};
use lab_base::interrupt::Interrupt;
use lab_protocol::{CellId, frame::Decoder, shell::ShellStage};
use lab_record::{
    event::{Event, ImageInfo},
    plan::{Plan, PlannedKernel},
    testing::{facts, passed},
};
use lab_vm::{
    GuestSpec, Recv,
    fake::{FakeAgent, FakeLauncher, specification},
};
use std::{os::fd::AsFd, sync::Mutex, time::Duration};

/// Results of a session.
struct Left {
    visited: Visited,
    ended: Ended,
    report: Option<Box<CellReport>>,
    account: Option<Box<Account>>,
    output: String,
    errors: String,
    events: Vec<Event>,
}

fn request() -> ShellRequest {
    ShellRequest {
        stage: ShellStage::Case { cell: CellId("A01-x".into()) },
        world: None,
        command: vec!["cat".to_owned()],
        terminal: None,
        is_watched: false,
        time_scale: 0.0,
        now_unix_ns: 0,
    }
}

/// Runs a session with a guest whose agent passes every message of the host after Hello to `answer`.
fn visited(
    input: &[u8],
    interrupt: Interrupt,
    answer: impl Fn(&mut Script<'_>, HostMessage) + Send + Sync + 'static,
) -> Left {
    let launcher = FakeLauncher::new(move |agent: &mut FakeAgent| {
        let mut script = Script { agent };
        script.hello(lab_protocol::PROTOCOL_VERSION);
        let (mut decoder, mut buffer) = (Decoder::new(), vec![0; 64 << 10]);
        while let Ok(Recv::Bytes(count)) = script.agent.channel().recv(&mut buffer, Duration::from_secs(20)) {
            decoder.feed(&buffer[..count]);
            while let Some(message) = decoder.next_message::<HostMessage>() {
                answer(&mut script, message.unwrap());
            }
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let prepared = Prepared {
        spec: GuestSpec { console: dir.path().to_owned(), ..specification(dir.path().to_owned()) },
        image: ImageInfo { key: "k".to_owned(), cached: true, missing: Vec::new(), content: None },
        objects: Vec::new(),
        agent: None,
        files: None,
        scans_memory: false,
    };
    let events = Mutex::new(Vec::new());
    let emit = |event| events.lock().unwrap().push(event);
    let plan = Plan::new(Vec::new(), Vec::new(), false);
    let common = Common {
        content: None,
        earlier: None,
        streams: None,
        holder: None,
        plan: &plan,
        launcher: &launcher,
        snapshots: None,
        isolate: Isolate::Kernel,
        split: false,
        room: &Room::unlimited(),
        timing: timing(),
        rescale: &|_| 1.0,
        estimate: &|_, _| 0,
        mutant: None,
        lists: &Lists::default(),
        retries: Retries::default(),
        interrupt: &interrupt,
        emit: &emit,
    };
    let kernel = PlannedKernel { facts: facts("6.12", "6.12.43"), cells: Vec::new() };
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let greeted = Mutex::new(String::new());
    let greet = |welcome: &str| *greeted.lock().unwrap() = welcome.to_owned();
    let (visited, ShellEnd { ended, report, account }) = std::thread::scope(|scope| {
        scope.spawn(|| io::copy(&mut &input[..], &mut std::fs::File::from(writer)));
        let keyboard = Keyboard::new(reader.as_fd());
        let shell = ShellSession::new(request(), None, Some(keyboard), (&mut output, &mut errors), &greet);
        (visit(common, &kernel, &prepared, &shell), shell.end())
    });
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let events = events.into_inner().unwrap();
    Left { visited, ended, report, account, output: text(output), errors: text(errors), events }
}

fn output(stream: Stream, bytes: &[u8]) -> AgentMessage {
    AgentMessage::Output { stream, bytes: bytes.to_vec() }
}

#[test]
fn input_arrives_in_order_and_within_the_window() {
    let input: Vec<u8> = (0..300_000u32).map(|number| b'a' + (number % 23) as u8).collect();
    let (under_way, wanted) = (Mutex::new(0), String::from_utf8(input.clone()).unwrap());
    let left = visited(&input, Interrupt::default(), move |script, message| match message {
        HostMessage::Shell(request) => {
            assert_eq!((request.time_scale, &*request.command), (1.0, &["cat".to_owned()][..]));
            script.say(&AgentMessage::ShellReady { welcome: "built".to_owned() });
        }
        HostMessage::Input { bytes } if bytes.is_empty() => {
            script.say(&output(Stream::Error, b"over"));
            script.say(&AgentMessage::CellFinished { report: Box::new(passed("A01-x", Vec::new())) });
            let account = Account { lost: 3, sources: vec!["s".repeat(1 << 20)], ..Account::default() };
            script.say(&AgentMessage::ShellAccount { account: Box::new(account) });
            script.say(&AgentMessage::ShellExited { code: 42 });
        }
        HostMessage::Input { bytes } => {
            script.say(&output(Stream::Output, &bytes));
            // Acknowledged late and all at once: the host must have stopped in between.
            let mut waiting = under_way.lock().unwrap();
            *waiting += bytes.len();
            assert!(*waiting <= INPUT_WINDOW);
            if *waiting > INPUT_WINDOW / 2 || bytes.len() < PIECE {
                script.say(&AgentMessage::InputTaken { bytes: u32::try_from(std::mem::take(&mut *waiting)).unwrap() });
            }
        }
        _ => {}
    });
    assert_eq!((left.visited, left.ended), (Visited::Done, Ended::Program(42)));
    assert!(left.output == wanted, "{} bytes instead of {}", left.output.len(), wanted.len());
    assert_eq!(left.errors, "over");
    assert_eq!(left.report.unwrap().cell.as_str(), "A01-x");
    let account = left.account.unwrap();
    assert!(account.lost == 3 && account.sources[0].len() < 1 << 16, "what a guest says of attachments is cut");
}

#[test]
fn a_refused_topology_shows_the_guests_message() {
    let left = visited(b"", Interrupt::default(), |script, message| {
        if matches!(message, HostMessage::Shell(_)) {
            script.say(&AgentMessage::Refused { message: "no such thing".to_owned() });
        }
    });
    assert_eq!((left.visited, left.ended), (Visited::Done, Ended::Refused("no such thing".to_owned())));
}

#[test]
fn a_guest_that_panics_during_a_session_is_lost_with_its_panic_message() {
    let left = visited(b"", Interrupt::default(), |script, message| {
        if matches!(message, HostMessage::Shell(_)) {
            script.say(&AgentMessage::ShellReady { welcome: String::new() });
            script.agent.console("[    9.0] Kernel panic - not syncing: sysrq triggered crash\n");
            panic!("the machine is gone");
        }
    });
    assert_eq!((left.visited, left.ended), (Visited::Lost, Ended::Unknown));
    let lost = left.events.iter().find_map(|event| match event {
        Event::GuestLost { message, .. } => Some(message.clone()),
        _ => None,
    });
    assert!(lost.unwrap().starts_with("Kernel panic - not syncing: sysrq triggered crash"));
}

#[test]
fn a_signal_ends_the_session() {
    let interrupt = Interrupt::default();
    let signal = interrupt.clone();
    let left = visited(b"", interrupt, move |script, message| {
        if matches!(message, HostMessage::Shell(_)) {
            script.say(&AgentMessage::ShellReady { welcome: String::new() });
            signal.raise(15);
        }
    });
    assert_eq!((left.visited, left.ended), (Visited::Interrupted, Ended::Unknown));
}
