//! Rules and connections of the miniature datapath: what a connection is, which rule counts, which errors belong to none.

use crate::areas::datapath::node::{DatapathNode, NEEDS, W0, W1};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows::EXCHANGES,
    testbed::{P0, Spot},
    variants,
};
use lab_protocol::AttachRequest;
use lab_topology::{Family, library};
use lab_traffic::{
    Capture, ExtensionHeader, Headers, Packet, Proto, Transport, UdpProbe, UdpSink, internet_checksum, send_frame,
};
use nix::errno::Errno;
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

const PASS: i32 = 0;
const DROP: i32 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// In the order in which they run.
pub const CASES: &[Case] = &[
    PROTOCOL_OF_A_CONNECTION,
    RULE_PRECEDENCE,
    ERRORS_ABOUT_UNKNOWN_FLOWS,
    LINK_LAYER_SOURCE,
    FRAGMENTS_AND_EXTENSION_HEADERS,
];

const PROTOCOL_OF_A_CONNECTION: Case = Case::new(
    "V17",
    "protocol-of-a-connection",
    "A TCP connection opens nothing for UDP between the same addresses and ports, and goes on while UDP is denied.",
    protocol_of_a_connection,
)
.on(library::PODS)
.over(variants::usual_mechanisms)
.needs(NEEDS);
fn protocol_of_a_connection(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    for family in Family::available().iter().copied() {
        let net = &node.testbed.net;
        let (client, server) = (net.ns("w0"), net.ns("w1"));
        let to = SocketAddr::new(net.addr("w1", family), ctx.marker);
        let from = net.addr("w0", family);
        let listener = server.run(|| TcpListener::bind(to))?;
        let patience = ctx.patience(2_000);
        let mut stream = client.run(|| TcpStream::connect_timeout(&to, patience))?;
        let (mut served, _) = listener.accept()?;
        let mut talk = |ctx: &mut Ctx, when: &str| {
            let mut word = [0; 4];
            stream.set_read_timeout(Some(patience))?;
            served.set_read_timeout(Some(patience))?;
            let heard = stream.write_all(b"ping").and_then(|()| served.read_exact(&mut word));
            let answered = heard.and_then(|()| served.write_all(&word)).and_then(|()| stream.read_exact(&mut word));
            ctx.check(format!("{family}: the connection {when}"), answered.is_ok(), format!("{answered:?}"));
            Ok::<_, Stop>(stream.local_addr()?.port())
        };
        let port = talk(ctx, "before the rule")?;
        // A rule does not end connections that it would not have let in, so that only the key can tell the two apart.
        let deny =
            node.rule(W1, Direction::ToWorkload, Some((UDP, ctx.marker)), from, if from.is_ipv4() { 32 } else { 128 });
        node.datapath.set_rule(&deny, DROP)?;
        let sink = UdpSink::bind(server, to)?;
        let datagrams = client.run(|| UdpSocket::bind((from, port)))?;
        let before = node.counters(W1, Direction::ToWorkload)?.denied;
        for _ in 0..EXCHANGES {
            // A netkit or egress drop is no error of a socket without IP_RECVERR.
            datagrams.send_to(b"the other protocol", to)?;
        }
        ctx.equal(format!("{family}: a datagram that arrives"), sink.receive(lab_traffic::SILENCE_WINDOW), None);
        ctx.becomes(format!("{family}: datagrams denied"), EXCHANGES.into(), || {
            Ok(node.counters(W1, Direction::ToWorkload)?.denied - before)
        })?;
        talk(ctx, "while UDP is denied")?;
        node.datapath.clear_rule(&deny)?;
        datagrams.send_to(b"allowed", to)?;
        let arrived = sink.receive(ctx.patience(2_000)).map(|(bytes, _)| bytes);
        ctx.equal(format!("{family}: a datagram without the rule"), arrived.as_deref(), Some(&b"allowed"[..]));
    }
    Ok(())
}

const RULE_PRECEDENCE: Case = Case::new(
    "V18",
    "rule-precedence",
    "A rule for a service precedes one for everything, and of two rules for networks the one with the longer prefix counts.",
    rule_precedence,
)
.on(library::PODS)
.over(variants::usual_mechanisms)
.needs(NEEDS);
fn rule_precedence(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    let from = node.testbed.net.addr("w0", Family::V4);
    let (udp, tcp) = (Some((UDP, ctx.marker)), Some((TCP, ctx.marker)));
    // What is allowed and what is denied: everything by network, UDP by service, TCP by service and network.
    let rules = [
        (node.rule(W1, Direction::ToWorkload, None, from, 32), DROP),
        (node.rule(W1, Direction::ToWorkload, None, from, 24), PASS),
        (node.rule(W1, Direction::ToWorkload, udp, from, 24), PASS),
        (node.rule(W1, Direction::ToWorkload, tcp, from, 24), DROP),
        (node.rule(W1, Direction::ToWorkload, tcp, from, 32), PASS),
    ];
    let reaches = |ctx: &mut Ctx, when: &str, wanted: [bool; 3]| {
        node.datapath.forget_connections()?;
        for (proto, wanted) in [Proto::Icmp, Proto::Udp, Proto::Tcp].into_iter().zip(wanted) {
            if wanted {
                node.passes(ctx, "w0", "w1", proto, Family::V4)?;
            } else {
                let report = node.testbed.silence(ctx, "w0", "w1", proto, Family::V4);
                ctx.check(format!("{when}: {proto} is denied"), report.lost(), &report);
            }
        }
        Ok::<_, Stop>(())
    };
    for (rule, verdict) in &rules {
        node.datapath.set_rule(rule, *verdict)?;
    }
    reaches(ctx, "all rules", [false, true, true])?;
    node.datapath.clear_rule(&rules[0].0)?;
    reaches(ctx, "without the rule for one address", [true, true, true])?;
    node.datapath.clear_rule(&rules[2].0)?;
    node.datapath.set_rule(&rules[1].0, DROP)?;
    reaches(ctx, "the network denied, UDP without a rule of its own", [false, false, true])
}

/// The 28 bytes of a UDP datagram without content, from the IPv4 header on; the kernel fills in the header's checksum.
fn datagram([source, destination]: [Ipv4Addr; 2], [from, to]: [u16; 2]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 7, 0, 0, 64, UDP, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    packet.extend([0, 8, 0, 0]);
    packet
}

/// Port unreachable from one address to another, about a datagram.
fn unreachable([source, destination]: [Ipv4Addr; 2], about: &[u8]) -> Packet {
    const ICMP: u8 = 1;
    let mut icmp = vec![3, 3, 0, 0, 0, 0, 0, 0];
    icmp.extend(about);
    let sum = internet_checksum(&icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    let length = (20 + icmp.len()) as u16;
    let mut data = vec![0x45, 0, (length >> 8) as u8, length as u8, 0, 9, 0, 0, 64, ICMP, 0, 0];
    data.extend(source.octets());
    data.extend(destination.octets());
    data.extend(icmp);
    let (at, source, length) = (Duration::ZERO, [0; 6], length.into());
    Packet { at, ifindex: 0, hardware: 0, kind: 0, protocol: 0x0800, source, length, data }
}

/// ICMP errors that a namespace received.
fn errors_received(capture: &mut Capture) -> Result<usize, Stop> {
    let packets = capture.packets()?.iter().filter(|packet| !packet.is_outgoing());
    let headers = packets.filter_map(|packet| Headers::of(&packet.data));
    Ok(headers.filter(|headers| matches!(headers.transport, Transport::Icmp { kind: 3, code: 3, .. })).count())
}

const ERRORS_ABOUT_UNKNOWN_FLOWS: Case = Case::new(
    "T20",
    "errors-about-unknown-flows",
    "An ICMP error that quotes a datagram of no known connection is denied; the same about a known one reaches its sender.",
    errors_about_unknown_flows,
)
.on(library::PODS)
.over(variants::usual_mechanisms)
.needs(NEEDS);
fn errors_about_unknown_flows(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    let net = &node.testbed.net;
    let (w0, w1) = (net.addr4("w0"), net.addr4("w1"));
    let mut capture = Capture::start(net.ns("w1"))?;
    let probe = UdpProbe::connect(net.ns("w1"), SocketAddr::from((w0, ctx.marker)))?;
    let sink = UdpSink::bind(net.ns("w0"), SocketAddr::from((w0, ctx.marker)))?;
    probe.send(b"a known flow")?;
    let known = sink.receive(ctx.patience(2_000)).map(|(_, source)| source.port());
    ctx.require("the datagram of the known flow arrives", known.is_some(), format!("{known:?}"))?;
    let port = known.unwrap_or_default();
    let before = node.counters(W0, Direction::FromWorkload)?;
    for (number, (what, ports)) in
        [("another source port", [port ^ 1, ctx.marker]), ("another destination port", [port, ctx.marker ^ 1])]
            .into_iter()
            .enumerate()
    {
        unreachable([w0, w1], &datagram([w1, w0], ports)).send_again(net.ns("w0"))?;
        let denied = ctx.wait_until(1_000, || {
            Ok(node.counters(W0, Direction::FromWorkload)?.denied - before.denied == number as u64 + 1)
        })?;
        ctx.check(format!("{what}: denied"), denied, node.counters(W0, Direction::FromWorkload)?.denied);
        ctx.equal(format!("{what}: error of the sender"), probe.error(lab_traffic::SILENCE_WINDOW), None);
    }
    ctx.equal("errors that arrived", errors_received(&mut capture)?, 0);
    unreachable([w0, w1], &datagram([w1, w0], [port, ctx.marker])).send_again(net.ns("w0"))?;
    ctx.equal("the known flow: error of the sender", probe.error(ctx.patience(2_000)), Some(Errno::ECONNREFUSED));
    let related = node.counters(W0, Direction::FromWorkload)?.related - before.related;
    ctx.equal("errors that were assigned to a connection", related, 1);
    Ok(())
}

const LINK_LAYER_SOURCE: Case = Case::new(
    "T21",
    "link-layer-source",
    "Packets that the datapath forwards have the node's address as their link-layer source, never the sender's.",
    link_layer_source,
)
.on(library::PODS)
.over(|| {
    variants::paired_mechanisms()
        .into_iter()
        .filter(|variant| variant.device() != lab_protocol::LinkKind::NetkitL3)
        .collect()
})
.needs(NEEDS);
fn link_layer_source(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const W1_END: Spot = Spot { node: "w1", dev: "eth0" };
    let node = DatapathNode::pods(ctx)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    let arriving = node.testbed.counter(ctx, W1_END)?;
    let inside = if variant.attach() == AttachRequest::Tc { AttachRequest::Tc } else { AttachRequest::Tcx };
    let _arriving = node.testbed.attach(ctx, W1_END, inside, Direction::FromWorkload, &arriving)?;
    let mac = |name: &str, dev: &str| node.testbed.net.readback(name, dev).map(|info| info.mac.unwrap_or_default());
    for family in Family::available().iter().copied() {
        node.passes(ctx, "w0", "w1", Proto::Udp, family)?;
        let last = arriving.stats()?.last;
        let wanted = (mac("host", W1.at.dev)?, mac("w1", "eth0")?);
        ctx.equal(format!("{family}: source and destination of the frame"), (last.eth_src, last.eth_dst), wanted);
    }
    ctx.equal(
        "packets in the workload",
        arriving.stats()?.marked,
        u64::from(EXCHANGES) * Family::available().len() as u64,
    );
    Ok(())
}

const FRAGMENTS_AND_EXTENSION_HEADERS: Case = Case::new(
    "V19",
    "fragments-and-extension-headers",
    "Fragments and packets with extension headers, whose ports the datapath can't read, never get past it; it counts each.",
    fragments_and_extension_headers,
)
.on(library::PODS)
.over(variants::usual_mechanisms)
.needs(NEEDS);
fn fragments_and_extension_headers(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    /// More than one packet of the default MTU.
    const LONG: usize = 2_000;
    let node = DatapathNode::pods(ctx)?;
    let (net, marker) = (&node.testbed.net, ctx.marker);
    let send = |family: Family, header: Option<ExtensionHeader>, length: usize| {
        let to = SocketAddr::new(net.addr("w1", family), marker);
        net.ns("w0").run(|| {
            let socket = UdpSocket::bind((net.addr("w0", family), 0))?;
            if let Some(header) = header {
                header.add_to(&socket)?;
            }
            // netkit and egress hooks may report the drop.
            match socket.send_to(&vec![7; length], to) {
                Err(error) if error.raw_os_error() != Some(Errno::ENOBUFS as i32) => Err(error),
                _ => Ok(()),
            }
        })
    };
    let ways = [
        ("fragments, ipv4", Family::V4, None, LONG, 2),
        ("fragments, ipv6", Family::V6, None, LONG, 2),
        ("hop-by-hop options", Family::V6, Some(ExtensionHeader::HopByHop), 8, 1),
        ("destination options", Family::V6, Some(ExtensionHeader::Destination), 8, 1),
    ];
    let ways = ways.into_iter().filter(|(_, family, ..)| family.is_available());
    let mut sinks = Vec::new();
    for family in Family::available().iter().copied() {
        sinks.push((family, UdpSink::bind(net.ns("w1"), SocketAddr::new(net.addr("w1", family), marker))?));
    }
    let arrives = |family: Family, patience: Duration| {
        let sink = sinks.iter().find(|(known, _)| *known == family);
        sink.and_then(|(_, sink)| sink.receive(patience)).map(|(bytes, _)| bytes.len())
    };
    // Without the datapath the same packets arrive.
    for (what, family, header, length, _) in ways.clone() {
        send(family, header, length)?;
        ctx.equal(format!("{what}: bytes without the datapath"), arrives(family, ctx.patience(2_000)), Some(length));
    }
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    for (what, family, header, length, packets) in ways {
        // What the datapath handled last went the other way.
        node.passes(ctx, "w1", "w0", Proto::Udp, Family::V4)?;
        let before = node.counters(W0, Direction::FromWorkload)?;
        send(family, header, length)?;
        ctx.equal(format!("{what}: bytes that arrive"), arrives(family, lab_traffic::SILENCE_WINDOW), None);
        let counted = || {
            let after = node.counters(W0, Direction::FromWorkload)?;
            Ok((after.unreadable - before.unreadable, after.entered - before.entered))
        };
        // netkit tells the sender of the drop, which then sends no further fragment (ip_do_fragment(), ip6_fragment()).
        let packets = if variant.attach() == AttachRequest::Netkit { 1 } else { packets };
        ctx.becomes(format!("{what}: packets counted as unreadable, and as read"), (packets, 0), counted)?;
    }
    if Family::V6.is_available()
        && let (IpAddr::V6(from), IpAddr::V6(to)) = (net.addr("w0", Family::V6), net.addr("w1", Family::V6))
    {
        // A header that says that a hop-by-hop header follows, at the end of the packet.
        let cut_off = [&[0x60, 0, 0, 0, 0, 0, 0, 64][..], &from.octets(), &to.octets()].concat();
        let gateway = net.readback("host", P0.dev)?.mac.unwrap_or_default();
        let before = node.counters(W0, Direction::FromWorkload)?.unreadable;
        // netkit reports the drop.
        drop(send_frame(net.ns("w0"), net.ifindex("w0", "eth0"), gateway, 0x86dd, &cut_off));
        let counted = || Ok(node.counters(W0, Direction::FromWorkload)?.unreadable - before);
        ctx.becomes("a packet without the options that it announces is counted as unreadable", 1, counted)?;
    }
    drop(sinks);
    node.all_pass(ctx, "w0", "w1")
}
