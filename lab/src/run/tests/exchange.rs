//! Guests that are sent another agent.

use super::*;
use lab_protocol::{HostMessage, frame::Decoder, message::AGENT_PIECE};
use lab_vm::Recv;
use std::sync::{Arc, Mutex};

const KERNELS: &[(&str, &str)] = &[("6.12", "6.12.43")];
const AGENT: &str = "/project/guest-agent";

/// What a guest was sent before it was to start another agent.
#[derive(Debug, Default)]
struct Received {
    agent: Vec<u8>,
    pieces: usize,
    objects: Vec<String>,
    nonce: u64,
}

/// A restored guest, until it is to start the other agent.
fn receive(script: &mut Script<'_>) -> Received {
    let mut received = Received::default();
    let (mut decoder, mut buffer) = (Decoder::new(), [0; 4096]);
    loop {
        match script.agent.channel().recv(&mut buffer, Duration::from_secs(5)).unwrap() {
            Recv::Bytes(count) => decoder.feed(&buffer[..count]),
            end => panic!("{end:?} before StartAgent"),
        }
        while let Some(message) = decoder.next_message::<HostMessage>() {
            match message.unwrap() {
                HostMessage::Resume { nonce, .. } => {
                    script.hello_to(PROTOCOL_VERSION, Some(nonce));
                    // From before the exchange: the host is no longer interested.
                    script.say(&AgentMessage::Heartbeat { uptime_ms: 1, cell: None });
                }
                HostMessage::AgentPiece { bytes } => {
                    received.pieces += 1;
                    received.agent.extend(bytes);
                }
                HostMessage::Object { name, .. } => received.objects.push(name),
                HostMessage::StartAgent { nonce } => return Received { nonce, ..received },
                other => panic!("{other:?} before StartAgent"),
            }
        }
    }
}

fn sent() -> Vec<u8> {
    (0..2 * AGENT_PIECE + 7).map(|at| at as u8).collect()
}

/// A run in which restored guests are sent an agent, and do this when they are to start it. Also says whether the snapshot is still there.
fn exchanged(timing: Timing, then: impl Fn(Script<'_>, Received) + Send + Sync + 'static) -> (Outcomes, bool) {
    let cache = tempfile::tempdir().unwrap();
    let launcher = FakeLauncher::new(move |agent| {
        let mut script = Script { agent };
        if script.agent.restored() {
            let received = receive(&mut script);
            return then(script, received);
        }
        assert!(script.hear(|message| assert!(matches!(message, HostMessage::Hello { .. }), "{message:?}")).is_empty());
    });
    let objects = vec![SentObject { name: "lab.o".to_owned(), file: HeldFile::of_bytes("lab.o", b"object") }];
    let (snapshots, agent) = (Some(SnapshotStore::below(cache.path())), Some(HeldFile::of_bytes(AGENT, sent())));
    let outcomes = run_with(KERNELS, &launcher, Choice { timing, snapshots, agent, objects, ..Choice::default() });
    let left = std::fs::read_dir(cache.path().join("snapshots")).unwrap().flatten();
    (outcomes, left.filter(|entry| entry.path().is_dir()).count() > 0)
}

#[test]
fn an_agent_takes_the_place_of_the_one_in_the_snapshot() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let (outcomes, kept) = exchanged(timing(), move |mut script, received| {
        assert_eq!((received.agent == sent(), received.pieces), (true, 3));
        assert_eq!(received.objects, ["lab.o"], "it finds them when it starts");
        script.say(&AgentMessage::Probed { capabilities: Vec::new(), modules: vec!["stale".to_owned()] });
        script.hello_to(PROTOCOL_VERSION, None);
        script.hello_to(PROTOCOL_VERSION, Some(received.nonce));
        let mut said = Vec::new();
        let cells = script.more_and(|message| said.push(message));
        notes.lock().unwrap().push(said);
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 passed", "C03 passed"]);
    assert_eq!((outcomes.exit(), starts(&outcomes), kept), (0, vec![Start::Snapshot, Start::Restore], true));
    assert_eq!(
        *seen.lock().unwrap(),
        [[HostMessage::Hello { protocol: PROTOCOL_VERSION }]],
        "it probes, and has the objects"
    );
    assert_eq!(outcomes.notes(), ["ignored a Hello with a stale nonce"]);
    let count = |wanted: fn(&Event) -> bool| outcomes.events.iter().filter(|event| wanted(event)).count();
    assert_eq!(count(|event| matches!(event, Event::Booted { guest: 2, .. })), 1);
    let probed = |event: &Event| matches!(event, Event::Probed { guest: 2, modules, .. } if modules.is_empty());
    assert_eq!(count(probed), 1, "no answer of the older agent counts");
}

#[test]
fn an_agent_that_does_not_start_is_one_error() {
    type Fault = fn(Script<'_>, Received);
    let short = Timing { boot: Duration::from_millis(300), ..timing() };
    let faults: [(Fault, &str); 4] = [
        (|mut script, _| script.hang(), "it sent no Hello within 300.0ms"),
        (
            |mut script, received| {
                // The one of the snapshot lives on.
                script.hello_to(PROTOCOL_VERSION, Some(received.nonce.wrapping_add(1)));
                script.hang();
            },
            "it sent no Hello within 300.0ms",
        ),
        (
            |mut script, _| {
                script.say(&AgentMessage::Fatal { message: "the agent that the host sent: ENOEXEC".to_owned() });
                script.hang();
            },
            "the agent that the host sent: ENOEXEC",
        ),
        (|_, _| (), "the guest ended unexpectedly"),
    ];
    for (fault, why) in faults {
        let (outcomes, kept) = exchanged(short, fault);
        let told = format!(
            "A01 not-run: the agent {AGENT} could not take the place of the snapshot's (the next run boots a guest with it): {why}"
        );
        assert!(outcomes.lines()[0].starts_with(&told), "{:?}", outcomes.lines());
        assert_eq!((outcomes.exit(), starts(&outcomes)), (3, vec![Start::Snapshot, Start::Restore]), "{why}");
        assert!(!kept, "{why}");
    }
}

#[test]
fn an_agent_of_another_protocol_or_a_panic_of_the_kernel_is_told_as_ever() {
    let (protocol, _) = exchanged(timing(), |mut script, received| {
        script.hello_to(PROTOCOL_VERSION + 1, Some(received.nonce));
        script.hang();
    });
    let told = format!("A01 not-run: the agent uses protocol {}, this lab uses", PROTOCOL_VERSION + 1);
    assert!(protocol.lines()[0].starts_with(&told), "{:?}", protocol.lines());
    assert_eq!((protocol.exit(), protocol.boots), (3, 2));
    let (panicked, _) = exchanged(timing(), |script, _| {
        script.agent.console("[    3.2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000b00\n");
    });
    let line = &panicked.lines()[0];
    assert!(line.contains("Attempted to kill init!") && line.contains(AGENT), "{line}");
    assert_eq!(panicked.boots, 2);
}
