//! The traffic meters: what they must not take for the packets that were sent.

use super::{dropping, on_veth};
use lab_bpf::{Config, ProgramKind, TcOptions};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows::{self, DRAIN_WINDOW},
    testbed::P0,
};
use lab_topology::{Family, Netns, library};
use lab_traffic::{FlowReport, Path, Proto, SILENCE_WINDOW, UdpOptions, ping, tcp_exchange, udp_exchange};
use nix::errno::Errno;
use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// In the order in which they run.
pub const CASES: &[Case] = &[SILENCE, SUMS, DAMAGE, LOSS, OTHER_ECHOES, COPIES];

/// `TC_ACT_SHOT`.
const DROP: i32 = 2;
/// How long a flow may take that ends at once, milliseconds on a fast guest.
const PATIENCE_MS: u64 = 2_000;

const SILENCE: Case =
    Case::new("K12", "silence-is-listened-to", "Nothing arrives only after it was waited for.", silence)
        .on(library::PAIR)
        .over(on_veth);
fn silence(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let filter = dropping(ctx, &testbed, Direction::FromWorkload)?;
    // The shortest of several: on a busy host, each takes as long without a window.
    let mut shortest = Duration::MAX;
    for _ in 0..6 {
        let began = Instant::now();
        testbed.none_pass(ctx, [("pod", "host", Proto::Udp, Family::V4)]);
        shortest = shortest.min(began.elapsed());
    }
    let wanted = format!("{shortest:?}, at least {SILENCE_WINDOW:?}");
    ctx.check("time for a silent flow", shortest >= SILENCE_WINDOW, wanted);
    filter.detach()?;
    Ok(())
}

const SUMS: Case = Case::new(
    "K13",
    "flows-are-summed-up-exactly",
    "A flow is complete with every answer, tried with every packet sent, and silent with none delivered or returned.",
    sums,
);
fn sums(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let all = FlowReport {
        wanted: 3,
        sent: 3,
        delivered: 3,
        returned: 3,
        damaged: 0,
        copies: 0,
        source_seen: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        errors: Vec::new(),
        detail: String::new(),
    };
    let none = FlowReport { delivered: 0, returned: 0, source_seen: None, ..all.clone() };
    let after = |sent, errno: Errno| FlowReport { sent, errors: vec![errno as i32], ..none.clone() };
    let with = |returned, copies| FlowReport { returned, copies, ..all.clone() };
    for (report, wanted) in [(with(3, 0), true), (with(2, 0), false), (with(3, 1), false), (with(0, 0), false)] {
        let what = format!("complete with {} of 3 answers and {} copies", report.returned, report.copies);
        ctx.equal(what, report.complete(), wanted);
    }
    let tried = [
        (none.clone(), true),
        (after(2, Errno::ENOBUFS), true),
        (after(2, Errno::ENETUNREACH), false),
        (FlowReport { sent: 2, ..none.clone() }, false),
    ];
    for (report, wanted) in &tried {
        let what = format!("tried with {} of 3 sent and errors {:?}", report.sent, report.errors);
        ctx.equal(what, (report.tried(), report.lost()), (*wanted, *wanted));
    }
    let silent = [
        ("nothing", none.clone(), true),
        ("one delivery", FlowReport { delivered: 1, ..none.clone() }, false),
        ("one answer", FlowReport { returned: 1, ..none.clone() }, false),
        ("one damaged datagram", FlowReport { damaged: 1, ..none.clone() }, false),
        ("a source", FlowReport { source_seen: all.source_seen, ..none.clone() }, false),
    ];
    for (what, report, wanted) in &silent {
        ctx.equal(format!("silent with {what}"), (report.silent(), report.lost()), (*wanted, *wanted));
    }
    Ok(())
}

const DAMAGE: Case = Case::new(
    "K14",
    "damaged-answers-are-none",
    "Answers of the right length with one other byte do not count, over UDP and TCP.",
    damage,
)
.on(library::PAIR)
.over(on_veth);
/// The client dials a relay, which forwards to the server and damages what comes back.
fn damage(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (pod, host) = (testbed.net.ns("pod"), testbed.net.ns("host"));
    let listen = SocketAddr::new(testbed.net.addr("host", Family::V4), ctx.marker);
    let dial = SocketAddr::new(listen.ip(), ctx.marker - 1);
    let path = Path { dial, ..Path::direct(pod, host, listen.ip(), ctx.marker) };
    let (patience, count) = (ctx.patience(PATIENCE_MS), u32::from(flows::EXCHANGES));

    // Nothing ends this flow before its time, since none of its answers counts. A guest that stood still meanwhile has not
    // relayed all of it: then the time was too short.
    let mut window = SILENCE_WINDOW * 4;
    let report = loop {
        let relay = host.run(|| Ok::<_, io::Error>((UdpSocket::bind(dial)?, UdpSocket::bind((listen.ip(), 0))?)))?;
        let (report, relayed) = thread::scope(|scope| {
            let relaying = scope.spawn(|| relay_datagrams(&relay.0, &relay.1, listen, count, patience));
            let report = udp_exchange(path, count, UdpOptions::default(), window);
            (report, joined(relaying))
        });
        match relayed {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && window < patience => window *= 8,
            relayed => break relayed.map(|()| report)?,
        }
    };
    let seen = (report.delivered, report.echoed, report.foreign, report.damaged);
    ctx.equal("UDP: delivered, answered, answered from elsewhere, damaged", seen, (count, 0, 0, count));

    let (relay, bytes) = (host.run(|| TcpListener::bind(dial))?, 3_000);
    let report = thread::scope(|scope| {
        let relaying = scope.spawn(|| relay_connection(&relay, host, listen, patience));
        let report = tcp_exchange(path, bytes, patience);
        if !report.connected {
            // Wakes the relay.
            drop(host.run(|| TcpStream::connect_timeout(&dial, patience)));
        }
        joined(relaying).map(|()| report)
    })?;
    let seen = (report.connected, report.bytes_delivered, report.bytes_echoed, report.content_ok);
    ctx.equal("TCP: connected, delivered, returned, intact", seen, (true, bytes, bytes, false));
    Ok(())
}

fn joined(thread: thread::ScopedJoinHandle<'_, io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn relay_datagrams(
    front: &UdpSocket,
    back: &UdpSocket,
    to: SocketAddr,
    count: u32,
    patience: Duration,
) -> io::Result<()> {
    front.set_read_timeout(Some(patience))?;
    back.set_read_timeout(Some(patience))?;
    let mut buffer = [0; 2048];
    for _ in 0..count {
        let (length, client) = front.recv_from(&mut buffer)?;
        back.send_to(&buffer[..length], to)?;
        let length = back.recv(&mut buffer)?;
        buffer[length - 1] ^= 1;
        front.send_to(&buffer[..length], client)?;
    }
    Ok(())
}

fn relay_connection(front: &TcpListener, host: &Netns, to: SocketAddr, patience: Duration) -> io::Result<()> {
    let (mut client, _) = front.accept()?;
    let mut server = host.run(|| TcpStream::connect_timeout(&to, patience))?;
    client.set_read_timeout(Some(patience))?;
    server.set_read_timeout(Some(patience))?;
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes)?;
    server.write_all(&bytes)?;
    server.shutdown(Shutdown::Write)?;
    bytes.clear();
    server.read_to_end(&mut bytes)?;
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    client.write_all(&bytes)?;
    client.shutdown(Shutdown::Write)
}

const LOSS: Case =
    Case::new("K15", "losses-are-counted", "A stream has lost exactly the datagrams that a program dropped.", loss)
        .on(library::PAIR)
        .over(on_veth);
fn loss(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let stream = testbed.stream(ctx, "pod", "host", Family::V4)?;
    flows::some_traffic(ctx, &stream)?;
    let config = Config { verdict: DROP, ..Config::new(ctx.marker) };
    let program = testbed.load(ctx, P0, ProgramKind::Count, config)?;
    let filter = testbed.filter(P0, Direction::FromWorkload, &program, TcOptions::default())?;
    let dropped = ctx.wait_until(2_000, || Ok(program.stats()?.marked >= 3))?;
    filter.detach()?;
    flows::some_traffic(ctx, &stream)?;
    let report = stream.stop(DRAIN_WINDOW);
    ctx.require("the program drops datagrams", dropped, program.stats()?.marked)?;
    ctx.equal("datagrams lost", u64::from(report.lost_count()), program.stats()?.marked);
    Ok(())
}

const OTHER_ECHOES: Case = Case::new(
    "K16",
    "echoes-of-others-are-none",
    "Replies to another sender's echo requests do not count as replies to the own ones.",
    other_echoes,
)
.on(library::PAIR)
.over(on_veth);
fn other_echoes(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    // Drops the cell's own packets only.
    let filter = dropping(ctx, &testbed, Direction::FromWorkload)?;
    let (pod, host, to) = (testbed.net.ns("pod"), testbed.net.ns("host"), testbed.net.addr("host", Family::V4));
    let (id, over) = (ctx.marker - 1, AtomicBool::new(false));
    let patience = ctx.patience(PATIENCE_MS);
    let answered = thread::scope(|scope| {
        let other = scope.spawn(|| {
            let (mut answered, mut asked) = (0, 0);
            while !over.load(Ordering::Relaxed) || answered == 0 && asked < 2 {
                answered += ping(pod, Some(host), to, id, 1, patience).received;
                asked += 1;
            }
            answered
        });
        testbed.none_pass(ctx, [("pod", "host", Proto::Icmp, Family::V4)]);
        over.store(true, Ordering::Relaxed);
        other.join().map_err(|_| Stop::check("the other sender panicked"))
    })?;
    ctx.check("replies to the other sender", answered > 0, answered);
    filter.detach()?;
    Ok(())
}

const COPIES: Case = Case::new(
    "K17",
    "copies-are-counted",
    "A datagram that is answered twice counts as one answer and one copy.",
    copies,
)
.on(library::PAIR)
.over(on_veth);
fn copies(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (pod, host) = (testbed.net.ns("pod"), testbed.net.ns("host"));
    let (count, patience) = (u32::from(flows::EXCHANGES), ctx.patience(PATIENCE_MS));
    let dial = SocketAddr::new(testbed.net.addr("host", Family::V4), ctx.marker);
    let listen = SocketAddr::new(dial.ip(), ctx.marker ^ 1);
    let path = Path { dial, listen, ..Path::direct(pod, host, dial.ip(), ctx.marker) };
    let front = host.run(|| UdpSocket::bind(dial))?;
    front.set_read_timeout(Some(patience))?;
    let (report, answered) = thread::scope(|scope| {
        let twice = scope.spawn(|| {
            for _ in 0..count {
                let mut buffer = [0; 2048];
                let (length, client) = front.recv_from(&mut buffer)?;
                front.send_to(&buffer[..length], client)?;
                front.send_to(&buffer[..length], client)?;
            }
            Ok(())
        });
        let report = udp_exchange(path, count, UdpOptions::default(), patience);
        (report, joined(twice))
    });
    answered?;
    ctx.equal("answered", report.echoed, count);
    // The exchange ends with the last answer, whose copy it may not see.
    ctx.check("copies", (count - 1..=count).contains(&report.duplicates), report.duplicates);
    Ok(())
}
