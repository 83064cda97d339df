//! The miniature datapath and what is around it: rules of routing, services of one protocol, tagged frames, a stranger's filter, and
//! packets longer than 64 KiB.

use crate::areas::{
    datapath::node::{DatapathNode, NEEDS, W0, W1},
    ifindex::crossing::{datagram, tagged},
    mtu::{PODS_LARGE_WINDOWS, bulk_until},
};
use lab_bpf::TcOptions;
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::Ctx,
    testbed::{P0, Spot},
    variants,
};
use lab_protocol::{AttachRequest, Capability, LinkKind};
use lab_topology::{Family, library, link};
use lab_traffic::{ConnectAttempt, Path, Proto, SILENCE_WINDOW, UdpProbe, UdpSink, send_frame};
use std::net::{IpAddr, SocketAddr, TcpListener};

/// In the order in which they run.
pub const CASES: &[Case] =
    &[SOURCE_DEPENDENT_ROUTES, SERVICE_OF_ONE_PROTOCOL, TAGGED_FRAMES, STRANGER_BEHIND, BEYOND_64_KIB];

const DROP: i32 = 2;
const UDP: u8 = 17;

const SOURCE_DEPENDENT_ROUTES: Case = Case::new(
    "T23",
    "source-dependent-routes",
    "The datapath forwards by the rules of its node for incoming device and source, and leaves what no rule matches to the node.",
    source_dependent_routes,
)
.on(library::POLICY)
.over(variants::one_each)
.needs(NEEDS);
fn source_dependent_routes(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    for family in Family::available().iter().copied() {
        let [by_device, by_source, by_mark, ..] = library::POLICY_ADDRS[family as usize].map(str::parse::<IpAddr>);
        for (what, to, forwarded) in [("device", by_device?, 1), ("source", by_source?, 1), ("mark", by_mark?, 0)] {
            let to = SocketAddr::new(to, ctx.marker);
            let sink = UdpSink::bind(node.testbed.net.ns("w1"), to)?;
            let before = node.counters(W0, Direction::FromWorkload)?;
            UdpProbe::connect(node.testbed.net.ns("w0"), to)?.send(b"by rule")?;
            let counted = || {
                let after = node.counters(W0, Direction::FromWorkload)?;
                Ok((after.forwarded - before.forwarded, after.redirected - before.redirected))
            };
            ctx.becomes(format!("{family}, by {what}: forwarded, redirected"), (1, forwarded), counted)?;
            let patience = if forwarded == 1 { ctx.patience(2_000) } else { SILENCE_WINDOW };
            let arrived = sink.receive(patience).is_some();
            ctx.equal(format!("{family}, by {what}: arrives"), arrived, forwarded == 1);
        }
    }
    node.passes(ctx, "w1", "w0", Proto::Udp, Family::V4)
}

const SERVICE_OF_ONE_PROTOCOL: Case = Case::new(
    "T24",
    "service-of-one-protocol",
    "A service that has a backend for UDP only is none for TCP: a connection to its port is not translated.",
    service_of_one_protocol,
)
.on(library::PODS)
.over(variants::one_each)
.needs(NEEDS);
fn service_of_one_protocol(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    for family in Family::available().iter().copied() {
        let path = node.path(ctx, "w0", "w1", family);
        node.datapath.set_service(UDP, path.dial, path.listen)?;
        let sink = UdpSink::bind(path.to, path.listen)?;
        // A server that a translated connection would reach.
        let _listener = path.to.run(|| TcpListener::bind(path.listen))?;
        let before = node.counters(W0, Direction::FromWorkload)?;
        UdpProbe::connect(path.from, path.dial)?.send(b"to the service")?;
        ctx.check(format!("{family}: UDP is served"), sink.receive(ctx.patience(2_000)).is_some(), path.dial);
        let attempt = ConnectAttempt::start(path)?;
        let counted = || {
            let after = node.counters(W0, Direction::FromWorkload)?;
            Ok((after.entered - before.entered >= 2, after.translated - before.translated))
        };
        ctx.becomes(format!("{family}: a SYN is seen; packets translated"), (true, 1), counted)?;
        drop(attempt);
    }
    node.passes(ctx, "w1", "w0", Proto::Udp, Family::V4)
}

const TAGGED_FRAMES: Case = Case::new(
    "V20",
    "tagged-frames",
    "A rule holds for a datagram in a frame with a VLAN tag that the node takes off (VLAN 0): it is dropped and counted.",
    tagged_frames,
)
.on(library::PODS)
.over(variants::one_each)
.needs(NEEDS);
fn tagged_frames(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const PRIORITY: &[(u16, u16)] = &[(0x8100, 5 << 13)];
    let node = DatapathNode::pods(ctx)?;
    let net = &node.testbed.net;
    let gateway = net.readback("host", P0.dev)?.mac.unwrap_or_default();
    let packet = datagram(net.addr4("w0"), net.addr4("w1"), ctx.marker);
    let sink = UdpSink::bind(net.ns("w1"), SocketAddr::new(net.addr("w1", Family::V4), ctx.marker))?;
    let eth0 = net.ifindex("w0", "eth0");
    let send = || send_frame(net.ns("w0"), eth0, gateway, PRIORITY[0].0, &tagged(PRIORITY, &packet));
    send()?;
    let arrived = sink.receive(ctx.patience(2_000)).is_some();
    ctx.require("without the datapath the node takes the tag off", arrived, arrived)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    let rule = node.rule(W0, Direction::FromWorkload, Some((UDP, ctx.marker)), net.addr("w1", Family::V4), 32);
    node.datapath.set_rule(&rule, DROP)?;
    let before = node.counters(W0, Direction::FromWorkload)?;
    // netkit reports the drop.
    drop(send());
    // At tc ingress the tag is beside the packet already, which is judged like one without; netkit's programs find it in the packet.
    let wanted = if variant.attach() == AttachRequest::Netkit { (0, 1) } else { (1, 0) };
    ctx.becomes("denied, unreadable", wanted, || {
        let after = node.counters(W0, Direction::FromWorkload)?;
        Ok((after.denied - before.denied, after.unreadable - before.unreadable))
    })?;
    ctx.equal("the datagram arrives", sink.receive(SILENCE_WINDOW).is_some(), false);
    drop(sink);
    node.passes(ctx, "w0", "w1", Proto::Tcp, Family::V4)
}

const STRANGER_BEHIND: Case = Case::new(
    "C09",
    "stranger-behind-the-datapath",
    "A stranger's filter behind the datapath sees what the datapath leaves alone, and none of the packets that it handles.",
    stranger_behind,
)
.on(library::PODS)
.over(|| vec![Variant { attach: Some(AttachRequest::Tc), device: Some(LinkKind::Veth), ..Variant::default() }])
.needs(NEEDS);
fn stranger_behind(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    /// For local experiments (IEEE 802): nobody receives it.
    const EXPERIMENTAL: u16 = 0x88b5;
    let node = DatapathNode::pods(ctx)?;
    let net = &node.testbed.net;
    let stranger = node.testbed.counter(ctx, P0)?;
    let behind = TcOptions { priority: 9, handle: 9, ..TcOptions::default() };
    let filter = node.testbed.filter(P0, Direction::FromWorkload, &stranger, behind)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    for to in ["w1", "host"] {
        let before = node.counters(W0, Direction::FromWorkload)?.entered;
        node.passes(ctx, "w0", to, Proto::Udp, Family::V4)?;
        let entered = node.counters(W0, Direction::FromWorkload)?.entered - before;
        ctx.check(format!("the datapath handles the packets to {to}"), entered >= 3, entered);
        ctx.equal(format!("packets to {to} at the stranger's filter"), stranger.stats()?.marked, 0);
    }
    let before = stranger.stats()?.packets;
    let gateway = net.readback("host", P0.dev)?.mac.unwrap_or_default();
    send_frame(net.ns("w0"), net.ifindex("w0", "eth0"), gateway, EXPERIMENTAL, &[0; 46])?;
    ctx.becomes("the frame of an unknown type is at the stranger's filter", true, || {
        Ok(stranger.stats()?.packets > before)
    })?;
    filter.detach()?;
    Ok(())
}

const BEYOND_64_KIB: Case = Case::new(
    "U10",
    "datapath-beyond-64-kib",
    "IPv4 packets and IPv6 jumbograms beyond 64 KiB pass the datapath whole where devices may have them, and the content arrives.",
    beyond_64_kib,
)
.on(PODS_LARGE_WINDOWS)
.over(|| {
    [(AttachRequest::Tc, LinkKind::Veth), (AttachRequest::Netkit, LinkKind::NetkitL3)]
        .map(|(attach, device)| Variant { attach: Some(attach), device: Some(device), ..Variant::default() })
        .into()
})
// NEEDS, and limits beyond 64 KiB.
.needs(&[Capability::BpfJit, Capability::BigTcp])
.within(30_000);
fn beyond_64_kib(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const LIMIT: u32 = 180_000;
    const LEGACY: u32 = 65_536;
    const W1_END: Spot = Spot { node: "w1", dev: "eth0" };
    // Where checksums are complete, packets are cut first.
    let node = DatapathNode::unsummed(ctx, &[W0, W1])?;
    let net = &node.testbed.net;
    for (name, dev) in [("w0", "eth0"), ("host", P0.dev), ("host", W1.at.dev), ("w1", "eth0")] {
        link::set_gso_max_size(net.ns(name), dev, LIMIT)?;
    }
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    let inside = if variant.attach() == AttachRequest::Tc { AttachRequest::Tc } else { AttachRequest::Tcx };
    // "net: add gso_ipv4_max_size and gro_ipv4_max_size per device" (6.3).
    let [_, ipv4] = link::gso_max_sizes(net.ns("w0"), "eth0")?;
    for family in Family::available().iter().copied() {
        let arriving = node.testbed.counter(ctx, W1_END)?;
        let _arriving = node.testbed.attach(ctx, W1_END, inside, Direction::FromWorkload, &arriving)?;
        let path = Path::direct(net.ns("w0"), net.ns("w1"), net.addr("w1", family), ctx.marker);
        let least = if family == Family::V6 || ipv4.is_some() { LEGACY } else { 1_514 };
        let before = node.counters(W0, Direction::FromWorkload)?;
        bulk_until(ctx, &format!("{family}: "), path, || Ok(arriving.stats()?.max_len > least))?;
        let redirected = node.counters(W0, Direction::FromWorkload)?.redirected - before.redirected;
        ctx.check(format!("{family}: packets that the datapath redirects"), redirected > 0, redirected);
        let longest = arriving.stats()?.max_len;
        ctx.check(format!("{family}: the longest packet in the second workload"), longest > least, longest);
    }
    // What was read of a jumbogram does not remain for the packets behind it, whose ports decide.
    let denied = node.rule(W1, Direction::ToWorkload, Some((UDP, ctx.marker)), net.addr("w0", Family::V4), 32);
    node.datapath.set_rule(&denied, DROP)?;
    let report = node.testbed.silence(ctx, "w0", "w1", Proto::Udp, Family::V4);
    ctx.check("a denied port after jumbograms", report.lost(), &report);
    Ok(())
}
