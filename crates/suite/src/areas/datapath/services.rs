//! Services of the miniature datapath: translation both ways, and errors about translated packets.

use crate::{
    areas::{
        datapath::node::{DatapathNode, EXPIRED, NEEDS, REFUSED, W0, service_address},
        mtu::checksum_errors,
    },
    topologies::USUAL,
};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows, variants,
};
use lab_topology::{Family, Template, library};
use lab_traffic::{
    Capture, Headers, IcmpError, Oversized, Packet, Proto, UdpOptions, UdpProbe, UdpSink, icmp_error, udp_exchange,
};
use nix::errno::Errno;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// In the order in which they run.
pub const CASES: &[Case] = &[
    SERVICE,
    SERVICE_HAIRPIN,
    ICMP_ERRORS_ABOUT_TRANSLATED,
    SERVICE_WITH_OFFLOAD,
    PATH_MTU_THROUGH_SERVICE,
    CHECKSUM_OF_ZERO,
];

const SERVICE: Case = Case::new(
    "T08",
    "service",
    "UDP and TCP to a service's address reach the other pod, answers come from the service, checksums are correct.",
    service,
)
.on(library::PODS)
.over(variants::mechanisms)
.needs(NEEDS);
fn service(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    for family in Family::available().iter().copied() {
        let path = node.path(ctx, "w0", "w1", family);
        let report = udp_exchange(path, flows::EXCHANGES.into(), UdpOptions::default(), lab_traffic::SILENCE_WINDOW);
        let tried =
            report.sent as usize + report.send_errors.iter().filter(|errno| **errno == Errno::ENOBUFS as i32).count();
        ctx.equal(
            format!("no service yet, {family}: sent, delivered, answered"),
            (tried, report.delivered, report.echoed + report.foreign),
            (flows::EXCHANGES.into(), 0, 0),
        );
    }
    node.datapath.forget_connections()?;
    node.serve(ctx, "w1")?;
    let before = node.counters(W0, Direction::ToWorkload)?;
    node.service_passes(ctx, W0, "w1", |family| node.testbed.net.addr("w0", family))?;
    let after = node.counters(W0, Direction::ToWorkload)?;
    let (answers, translated) = (after.entered - before.entered, after.translated - before.translated);
    ctx.equal("answers that were translated back", translated, answers);
    let unsummed = UdpOptions { checksum: false, ..UdpOptions::default() };
    let path = node.path(ctx, "w0", "w1", Family::V4);
    let report = udp_exchange(path, flows::EXCHANGES.into(), unsummed, ctx.patience(1_000));
    ctx.equal("datagrams without a checksum that were answered", report.echoed, flows::EXCHANGES.into());
    // The backend is still reachable at its own address, without translation.
    let before = node.counters(W0, Direction::FromWorkload)?.translated;
    node.all_pass(ctx, "w0", "w1")?;
    ctx.equal(
        "translated packets to the backend's own address",
        node.counters(W0, Direction::FromWorkload)?.translated - before,
        0,
    );
    Ok(())
}

const SERVICE_HAIRPIN: Case = Case::new(
    "T03",
    "service-hairpin",
    "A pod reaches itself through the service whose backend it is, and sees the service's address as the client.",
    hairpin,
)
.on(library::PODS)
.over(variants::mechanisms)
.needs(NEEDS);
fn hairpin(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let mechanism = node.mechanism(node.attach_type(ctx, W0, variant.attach())?)?;
    let _attached = node.attach_one(ctx, &mechanism, W0, variant.attach())?;
    node.serve(ctx, "w0")?;
    node.service_passes(ctx, W0, "w0", service_address)
}

const ICMP_ERRORS_ABOUT_TRANSLATED: Case = Case::new(
    "T15",
    "icmp-errors-about-translated",
    "Port unreachable and time exceeded reach the client of a service, quoting the packet as the client sent it.",
    icmp_errors,
)
.on(library::PODS)
.over(variants::paired_mechanisms)
.needs(NEEDS);
fn icmp_errors(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    node.serve(ctx, "w1")?;
    for family in Family::available().iter().copied() {
        let path = node.path(ctx, "w0", "w1", family);
        let heard = icmp_error(path.from, path.dial, None, ctx.patience(1_000))?;
        let refused = heard == IcmpError::Errno(REFUSED);
        ctx.require(&format!("no server behind the service, {family}"), refused, heard)?;
        let related = node.counters(W0, Direction::ToWorkload)?.related;
        // One hop: the node itself answers, for a packet that is already translated.
        let heard = icmp_error(path.from, path.dial, Some(1), ctx.patience(1_000))?;
        ctx.equal(format!("with one hop, {family}"), heard, IcmpError::Errno(EXPIRED));
        let seen = node.counters(W0, Direction::ToWorkload)?.related - related;
        ctx.equal(format!("errors that were assigned to a connection, {family}"), seen, 1);
        let heard = icmp_error(path.from, path.dial, Some(2), ctx.patience(1_000))?;
        ctx.equal(format!("with two hops, {family}"), heard, IcmpError::Errno(REFUSED));
    }
    Ok(())
}

const SERVICE_WITH_OFFLOAD: Case = Case::new(
    "T19",
    "service-with-offload",
    "Packets that leave the workload without a complete checksum (CHECKSUM_PARTIAL) are translated so that it is completed right.",
    service_with_offload,
)
.on(library::PODS)
.over(variants::paired_mechanisms)
.needs(NEEDS);
fn service_with_offload(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::offloading(ctx)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    node.serve(ctx, "w1")?;
    node.service_passes(ctx, W0, "w1", |family| node.testbed.net.addr("w0", family))?;
    node.all_pass(ctx, "w0", "w1")?;
    for name in ["w0", "w1"] {
        ctx.equal(format!("wrong checksums at {name}"), checksum_errors(node.testbed.net.ns(name))?, 0);
    }
    Ok(())
}

/// MTU of the second workload's link, bytes; at least what IPv6 requires (RFC 8200, section 5).
const NARROW: u32 = 1_400;

/// The link of the backend is narrower than that of the client.
const PODS_NARROW: Template = Template::new(
    "pods-narrow",
    "Two workloads on one host; both ends of the second one's link have a smaller MTU.",
    |kind| {
        let mut topology = library::PODS.of(kind);
        topology.links[1].primary.mtu = Some(NARROW);
        topology.links[1].peer.mtu = Some(NARROW);
        topology
    },
);

const PATH_MTU_THROUGH_SERVICE: Case = Case::new(
    "T22",
    "path-mtu-through-service",
    "A client of a service learns the backend's smaller MTU for the service's address, and datagrams of that size are answered.",
    path_mtu,
)
.on(PODS_NARROW)
.over(variants::usual_mechanisms)
.needs(NEEDS);
fn path_mtu(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const HEADERS: [u32; 2] = [28, 48];
    let node = DatapathNode::pods(ctx)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    node.serve(ctx, "w1")?;
    for family in Family::available().iter().copied() {
        // bpf_fib_lookup() tells of a missing neighbour before it compares the length with the MTU, and an L3 netkit has no neighbour
        // before the first packet: the datapath then sends what does not fit, and nobody learns of it.
        node.passes(ctx, "host", "w1", Proto::Udp, family)?;
        let path = node.path(ctx, "w0", "w1", family);
        let probe = UdpProbe::connect(path.from, path.dial)?;
        ctx.equal(format!("{family}: path MTU before"), probe.path_mtu()?, USUAL);
        probe.set_oversized(Oversized::Refuse)?;
        let most = |mtu: u32| vec![0x4e; (mtu - HEADERS[family as usize]) as usize];
        probe.send(&most(USUAL))?;
        let learned = ctx.wait_until(2_000, || Ok(probe.path_mtu()? != USUAL))?;
        ctx.check(format!("{family}: the client learns of the narrower link"), learned, learned);
        ctx.equal(format!("{family}: path MTU to the service"), probe.path_mtu()?, NARROW);
        _ = probe.error(ctx.patience(100));
        let sink = UdpSink::bind(path.to, path.listen)?;
        probe.send(&most(NARROW))?;
        let arrived = sink.receive(ctx.patience(2_000)).map(|(datagram, _)| datagram == most(NARROW));
        ctx.equal(format!("{family}: a datagram of that size arrives at the backend"), arrived, Some(true));
        drop(sink);
        let options = UdpOptions { payload: most(NARROW).len(), ..UdpOptions::default() };
        let report = udp_exchange(path, flows::EXCHANGES.into(), options, ctx.patience(1_000));
        ctx.equal(
            format!("{family}: datagrams of that size that are answered"),
            report.echoed,
            flows::EXCHANGES.into(),
        );
    }
    Ok(())
}

const CHECKSUM_OF_ZERO: Case = Case::new(
    "T26",
    "checksum-of-zero",
    "A datagram to a service whose checksum would be 0 after the translation has 0xffff (RFC 768), and arrives.",
    checksum_of_zero,
)
.on(library::PODS)
.over(variants::mechanisms)
.needs(NEEDS);
fn checksum_of_zero(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    node.serve(ctx, "w1")?;
    for family in Family::available().iter().copied() {
        let path = node.path(ctx, "w0", "w1", family);
        let source = node.testbed.net.addr("w0", family);
        let backend = path.to.run(|| UdpSocket::bind(path.listen))?;
        let mut capture = Capture::start(path.to)?;
        let client = path.from.run(|| UdpSocket::bind((source, 0)))?;
        let content = sums_to_zero(client.local_addr()?, path.listen);
        client.send_to(&content, path.dial)?;
        let (arrived, at) = arrives(ctx, &backend)?;
        ctx.equal(format!("{family}: what the backend receives"), arrived, Some(content));
        let is_ours = |packet: &&Packet| {
            Headers::of(&packet.data).and_then(|it| it.ports()).map(|it| it.1) == Some(path.listen.port())
        };
        let at_checksum = [IPV4_HEADER, IPV6_HEADER][family as usize] + UDP_CHECKSUM;
        let checksum = capture.packets()?.iter().find(is_ours).and_then(|it| it.data.get(at_checksum..at_checksum + 2));
        ctx.equal(format!("{family}: the checksum"), checksum, Some(&[0xff, 0xff][..]));
        let Some(at) = at else { continue };
        backend.send_to(&content, at)?;
        ctx.equal(
            format!("{family}: the answer, and its source"),
            arrives(ctx, &client)?,
            (Some(content), Some(path.dial)),
        );
    }
    Ok(())
}

/// Lengths of the headers without options, and where the checksum is in that of UDP, bytes.
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_CHECKSUM: usize = 6;

/// The next datagram of two bytes, and where it is from.
fn arrives(ctx: &Ctx, socket: &UdpSocket) -> Result<(Option<[u8; 2]>, Option<SocketAddr>), Stop> {
    let mut content = [0; 2];
    socket.set_read_timeout(Some(ctx.patience(2_000)))?;
    let from = socket.recv_from(&mut content).ok().map(|(_, from)| from);
    Ok((from.map(|_| content), from))
}

/// The content of a datagram whose UDP checksum is 0 (RFC 768, RFC 8200 8.1): the 16 bit sum of pseudo-header, header and content
/// is 0xffff.
fn sums_to_zero(from: SocketAddr, to: SocketAddr) -> [u8; 2] {
    const UDP: u16 = 17;
    const LENGTH: u16 = 8 + 2;
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let addresses = [octets(from.ip()), octets(to.ip())].concat();
    let addresses = addresses.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let mut sum: u32 = addresses.chain([UDP, LENGTH, from.port(), to.port(), LENGTH]).map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
