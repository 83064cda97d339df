//! Rejecting with an error: the program itself answers with an ICMP error.

use crate::areas::traffic::errors::{ExpectedError, PORT_UNREACHABLE, heard};
use lab_bpf::{Config, ProgramKind};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::Ctx,
    testbed::{P0, P1},
    variants,
};
use lab_protocol::AttachRequest;
use lab_topology::{Family, ethtool::send_checksummed, library};
use lab_traffic::{
    Capture, ConnectAttempt, Headers, Packet, Path, Proto, SILENCE_WINDOW, Transport, UdpProbe, UdpSink,
};
use nix::errno::Errno;
use std::net::SocketAddr;

/// `BPF_F_INGRESS`, include/uapi/linux/bpf.h.
const BPF_F_INGRESS: u64 = 1;

/// In the order in which they run.
pub const CASES: &[Case] = &[REJECT_BY_ICMP];

const REJECT_BY_ICMP: Case = Case::new(
    "V10",
    "reject-by-icmp",
    "A program answers packets with ICMP port unreachable: UDP and TCP get ECONNREFUSED, and no packet arrives.",
    reject_by_icmp,
)
.on(library::PODS)
.over(variants::usual_hooks);
fn reject_by_icmp(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    // The sender completes checksums, so that the receiver verifies those that the program computes.
    send_checksummed(testbed.net.ns("w0"), "eth0")?;
    let (at, way) = match variant.direction() {
        Direction::FromWorkload => (P0, 0),
        // At the node's end, the hooks answer into the node; PRIMARY runs as the pod's end, which sends to the node
        // anyway.
        Direction::ToWorkload if variant.attach() == AttachRequest::Netkit => (P1, 0),
        Direction::ToWorkload => (P1, BPF_F_INGRESS),
    };
    let config = Config { redirect_flags: way, ..Config::new(ctx.marker) };
    let program = testbed.load(ctx, at, ProgramKind::Reject, config)?;
    let attachment = testbed.attach(ctx, at, variant.attach(), variant.direction(), &program)?;
    let (client, server) = (testbed.net.ns("w0"), testbed.net.ns("w1"));
    let gateway = testbed.net.readback("host", P0.dev)?.mac.unwrap_or_default();
    for family in Family::available().iter().copied() {
        let mut capture = Capture::start(client)?;
        let to = SocketAddr::new(testbed.net.addr("w1", family), ctx.marker);
        let sink = UdpSink::bind(server, to)?;
        let before = program.stats()?.marked;
        let probe = UdpProbe::connect(client, to)?;
        probe.send(b"may I?")?;
        let wanted = ExpectedError { to, kinds: PORT_UNREACHABLE, offender: Some(to.ip()) };
        let what = format!("udp over {family}");
        heard(ctx, &what, &mut capture, testbed.net.addr("w0", family), &wanted)?;
        let arrived = capture
            .packets()?
            .iter()
            .filter(|packet| !packet.is_outgoing() && is_error(packet))
            .map(|packet| packet.source);
        ctx.equal(format!("{what}: link-layer sources of ICMP errors"), arrived.collect(), vec![gateway]);
        let error = probe.error(ctx.patience(1_000));
        ctx.equal(format!("{what}: error of the socket"), error, Some(Errno::ECONNREFUSED));
        ctx.equal(format!("{what}: datagram that arrives"), sink.receive(SILENCE_WINDOW), None);
        ctx.equal(format!("{what}: packets that the program dropped"), program.stats()?.marked - before, 1);

        // A server listens there, so that only the program refuses.
        let _listener = server.run(|| std::net::TcpListener::bind(to))?;
        let path = Path::direct(client, server, to.ip(), ctx.marker);
        let what = format!("tcp over {family}");
        let mut capture = Capture::start(client)?;
        let attempt = ConnectAttempt::start(path)?;
        heard(ctx, &what, &mut capture, testbed.net.addr("w0", family), &wanted)?;
        if family == Family::V6 {
            // If the first SYN over IPv6 is refused while connect() still sends it, the error is not delivered
            // (tcp_v6_err keeps it in sk_err_soft while the socket is locked), and the kernel repeats the SYN after a
            // second.
            let syn = capture.packets()?.iter().find(|packet| is_syn(packet, to)).cloned();
            ctx.require("the SYN was captured", syn.is_some(), to)?;
            syn.map_or(Ok(()), |syn| syn.send_again(client))?;
        }
        let errno = attempt.errno(ctx.patience(2_000));
        ctx.equal(format!("{what}: errno of the connect"), errno, Some(Errno::ECONNREFUSED));
    }
    attachment.detach()?;
    for (proto, family) in [(Proto::Udp, Family::V4), (Proto::Tcp, Family::V6)] {
        testbed.flow_passes(ctx, "w0", "w1", proto, family);
    }
    Ok(())
}

/// Whether it is an ICMP error; ICMPv6 has those below 128 (RFC 4443, 2.1), and nothing here sends an ICMPv4 message of another type.
fn is_error(packet: &Packet) -> bool {
    let headers = Headers::of(&packet.data);
    headers.is_some_and(|headers| matches!(headers.transport, Transport::Icmp { kind: ..128, .. }))
}

/// Whether the packet opens a connection to this address; there is no other TCP traffic to it.
fn is_syn(packet: &Packet, to: SocketAddr) -> bool {
    let opens = |headers: Headers| {
        matches!(headers.transport, Transport::Tcp { ports } if ports.1 == to.port()) && headers.destination == to.ip()
    };
    packet.is_outgoing() && Headers::of(&packet.data).is_some_and(opens)
}
