//! Packets that go on: forwarded ones, ones with VLAN tags, and who is charged for their memory.

use lab_bpf::{Config, ProgramKind, Seen, VLAN_PRESENT};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, P1, Spot},
    variants,
};
use lab_protocol::{AttachRequest, Capability, LinkKind};
use lab_topology::{Family, library};
use lab_traffic::{UdpProbe, UdpSink, send_frame};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg, setsockopt, sockopt};
use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use super::metadata::DATAGRAMS_DEPART;

/// The workload's own end.
const ETH0: Spot = Spot { node: "pod", dev: "eth0" };
const ETHERNET: u32 = 14;

/// In the order in which they run.
pub const CASES: &[Case] = &[FORWARDED_DEPARTURE_TIME, VLAN_TAGS, SENDERS_MEMORY, KINDS_OF_FRAMES];

const FORWARDED_DEPARTURE_TIME: Case = Case::new(
    "G13",
    "forwarded-departure-time",
    "A forwarded packet keeps its departure time (SO_TXTIME) up to the second pod; its arrival time never gets there, redirected or not.",
    forwarded_departure_time,
)
.on(library::PODS)
.over(variants::one_each);
fn forwarded_departure_time(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let leaving = testbed.counter(ctx, P1)?;
    let _leaving = testbed.attach(ctx, P1, variant.attach(), Direction::ToWorkload, &leaving)?;
    let due = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    let due_ns = Duration::from(due).as_nanos() as u64;
    let to = SocketAddr::new(testbed.net.addr("w1", Family::V4), ctx.marker);
    let send = |timed: bool| {
        testbed.net.ns("w0").run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            let clock = nix::libc::sock_txtime { clockid: nix::libc::CLOCK_MONOTONIC, flags: 0 };
            setsockopt(&socket, sockopt::TxTime, &clock)?;
            let times = [ControlMessage::TxTime(&due_ns)];
            let times = if timed { &times[..] } else { &[] };
            let to = SockaddrStorage::from(to);
            sendmsg(socket.as_raw_fd(), &[IoSlice::new(b"forwarded")], times, MsgFlags::empty(), Some(&to))
                .map(drop)?;
            Ok::<_, io::Error>(())
        })
    };
    send(true)?;
    ctx.becomes("packets to the second pod", 1, || Ok(leaving.stats()?.marked))?;
    let seen = leaving.stats()?.last.tstamp_ns;
    // ip_forward() takes every time off a packet that is not one of departure (skb_clear_tstamp()).
    match ctx.capabilities.has_change(&DATAGRAMS_DEPART) {
        Some(departs) => ctx.equal("departure time", seen, if departs { due_ns } else { 0 }),
        // Of a kernel whose version says nothing only one of the two is known.
        None => ctx.check("departure time", seen == due_ns || seen == 0, seen),
    };
    send(false)?;
    ctx.becomes("packets to the second pod, one without a time", 2, || Ok(leaving.stats()?.marked))?;
    ctx.equal("the time of a packet without one", leaving.stats()?.last.tstamp_ns, 0);
    // The agent keeps the kernel stamping packets ([`lab_traffic::Stamping`]), so that every packet that a device receives has an
    // arrival time. The kernel takes it off a packet that bpf_redirect sends (__bpf_tx_skb()).
    let config = Config { target_ifindex: testbed.ifindex(P1), ..Config::new(ctx.marker) };
    let redirecting = testbed.load(ctx, P0, ProgramKind::Redirect, config)?;
    let _redirecting = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &redirecting)?;
    send(false)?;
    ctx.becomes("redirected packets", 1, || Ok(redirecting.stats()?.marked))?;
    let at_first = redirecting.stats()?.last.tstamp_ns;
    // netkit's program runs before the packet arrives anywhere.
    let arrives = variant.attach() != AttachRequest::Netkit;
    ctx.check("the arrival time where the packet is redirected", (at_first != 0) == arrives, at_first);
    ctx.becomes("packets to the second pod, with the redirected one", 3, || Ok(leaving.stats()?.marked))?;
    ctx.equal("the time of a redirected packet", leaving.stats()?.last.tstamp_ns, 0);
    Ok(())
}

/// Each variant in both directions.
pub fn both_ways(variants: Vec<Variant>) -> Vec<Variant> {
    let both = |variant| Direction::BOTH.map(|direction| Variant { direction: Some(direction), ..variant });
    variants.into_iter().flat_map(both).collect()
}

/// The device that a frame of this direction leaves by, and where it comes out.
pub const fn ends(direction: Direction) -> (Spot, Spot) {
    match direction {
        Direction::FromWorkload => (ETH0, P0),
        Direction::ToWorkload => (P0, ETH0),
    }
}

/// Tags of a frame from the outside in: EtherType and tag control information.
type Tags = &'static [(u16, u16)];
const CUSTOMER: u16 = 0x8100;
const SERVICE: u16 = 0x88a8;
pub const ETH_P_IP: u16 = 0x0800;
const TAG: u32 = 4;
const FRAMES: [(&str, Tags); 3] = [
    ("VLAN 100", &[(CUSTOMER, 100)]),
    ("priority 5, VLAN 0", &[(CUSTOMER, 5 << 13)]),
    ("QinQ, 200 and 100", &[(SERVICE, 200), (CUSTOMER, 100)]),
];

/// What follows the first EtherType of such a frame.
pub fn tagged(tags: Tags, packet: &[u8]) -> Vec<u8> {
    let types = tags[1..].iter().map(|(ethertype, _)| *ethertype).chain([ETH_P_IP]);
    let mut bytes = Vec::new();
    for ((_, control), ethertype) in tags.iter().zip(types) {
        bytes.extend(control.to_be_bytes());
        bytes.extend(ethertype.to_be_bytes());
    }
    bytes.extend(packet);
    bytes
}

/// A UDP datagram without content and checksum, from the IPv4 header on.
pub fn datagram(source: Ipv4Addr, destination: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 7, 0, 0, 64, 17, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let words = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend([0x4e, 0x4b]);
    packet.extend(port.to_be_bytes());
    packet.extend([0, 8, 0, 0]);
    packet
}

const VLAN_TAGS: Case = Case::new(
    "G14",
    "vlan-tags",
    "Tagged frames cross a pair whole: tc ingress sees the outer tag beside the packet, netkit and egress see it in the packet.",
    vlan_tags,
)
.on(library::PAIR)
.over(|| both_ways(variants::one_each()));
fn vlan_tags(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (from, to) = ends(variant.direction());
    let program = testbed.counter(ctx, P0)?;
    let _attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    // Where the frame comes out, whatever the mechanism: a second filter where the first one is there already.
    let arriving = testbed.counter(ctx, to)?;
    let behind = lab_bpf::TcOptions { priority: 9, handle: 9, ..lab_bpf::TcOptions::default() };
    let filter = testbed.filter(to, Direction::FromWorkload, &arriving, behind)?;
    let mac = testbed.net.readback(to.node, to.dev)?.mac.unwrap_or_default();
    let packet = datagram(testbed.net.addr4(from.node), testbed.net.addr4(to.node), ctx.marker);
    // skb_vlan_untag() in __netif_receive_skb_core() is before tc ingress.
    let at_ingress = variant.attach() != AttachRequest::Netkit && variant.direction() == Direction::FromWorkload;
    for (number, (what, tags)) in (1..).zip(FRAMES) {
        send_frame(testbed.net.ns(from.node), testbed.ifindex(from), mac, tags[0].0, &tagged(tags, &packet))?;
        let counts = || Ok((program.stats()?.marked, arriving.stats()?.marked));
        ctx.becomes(format!("{what}: packets at the program and where they come out"), (number, number), counts)?;
        let whole = packet.len() as u32 + ETHERNET + TAG * tags.len() as u32;
        for (where_, last, beside) in
            [("the program", program.stats()?.last, at_ingress), ("ingress", arriving.stats()?.last, true)]
        {
            let (outer, inner) = (tags[0], tags.get(1).map_or(ETH_P_IP, |(ethertype, _)| *ethertype));
            let wanted = if beside {
                (inner.into(), VLAN_PRESENT | u32::from(outer.1), outer.0.into(), whole - TAG)
            } else {
                (outer.0.into(), 0, 0, whole)
            };
            let Seen { protocol, vlan_tci, vlan_proto, len, .. } = last;
            // Without a tag beside the packet, the field has no meaning.
            let vlan_proto = if vlan_tci == 0 { 0 } else { vlan_proto };
            ctx.equal(
                format!("{what}: EtherType, tag beside the packet, its type, length at {where_}"),
                (protocol, vlan_tci, vlan_proto, len),
                wanted,
            );
        }
    }
    filter.detach()?;
    Ok(())
}

const SENDERS_MEMORY: Case = Case::new(
    "G15",
    "senders-memory",
    "A sender is not charged for packets that wait at their receiver in another namespace, and gets back what a hook drops.",
    senders_memory,
)
.on(library::PAIR)
.over(variants::one_each)
.needs(&[Capability::Clsact]);
fn senders_memory(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const SENT: u64 = 20;
    let testbed = ctx.testbed()?;
    for (what, verdict) in [("delivered", -1), ("dropped", 2)] {
        let config = lab_bpf::Config { verdict, ..lab_bpf::Config::new(ctx.marker) };
        let program = testbed.load(ctx, P0, lab_bpf::ProgramKind::Count, config)?;
        let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
        let to: IpAddr = testbed.net.addr("host", Family::V4);
        let _unread = UdpSink::bind(testbed.net.ns("host"), SocketAddr::new(to, ctx.marker))?;
        let probe = UdpProbe::connect(testbed.net.ns("pod"), SocketAddr::new(to, ctx.marker))?;
        for _ in 0..SENT {
            // netkit may report the drop.
            drop(probe.send(&[0; 512]));
        }
        ctx.becomes(format!("{what}: packets at the program"), SENT, || Ok(program.stats()?.marked))?;
        ctx.becomes(format!("{what}: bytes that the sender is charged for"), 0, || Ok(probe.charged()?))?;
        attachment.detach()?;
    }
    Ok(())
}

/// Devices with link-layer addresses, in both directions.
fn framed() -> Vec<Variant> {
    let on = |attach, device| Variant { attach: Some(attach), device: Some(device), ..Variant::default() };
    both_ways(vec![
        on(AttachRequest::Tc, LinkKind::Veth),
        on(AttachRequest::Tcx, LinkKind::Veth),
        on(AttachRequest::Netkit, LinkKind::NetkitL2),
    ])
}

/// An ARP probe (RFC 5227) for an address that nobody has, from the hardware type on.
fn arp_probe(own: [u8; 6]) -> Vec<u8> {
    const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    let mut probe = vec![0, 1, 8, 0, 6, 4, 0, 1];
    probe.extend(own);
    probe.extend([0; 10]);
    probe.extend(NOBODY.octets());
    probe
}

const KINDS_OF_FRAMES: Case = Case::new(
    "G17",
    "kinds-of-frames",
    "Programs run for ARP as for IP, and for frames to all and to a group as for frames to one device.",
    kinds_of_frames,
)
.on(library::PAIR)
.over(framed);
fn kinds_of_frames(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const ETH_P_ARP: u16 = 0x0806;
    const SENT: u64 = 20;
    const ALL: [u8; 6] = [0xff; 6];
    // The group address 224.0.0.251 as an Ethernet address (RFC 1112, 6.4).
    const GROUP: [u8; 6] = [0x01, 0, 0x5e, 0, 0, 0xfb];
    let testbed = ctx.testbed()?;
    let (from, to) = ends(variant.direction());
    let program = testbed.counter(ctx, P0)?;
    let _attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    let address = |spot: Spot| Ok::<_, Stop>(testbed.net.readback(spot.node, spot.dev)?.mac.unwrap_or_default());
    let (own, other) = (address(from)?, address(to)?);
    let send = |to, ethertype, packet: &[u8]| {
        (0..SENT).try_for_each(|_| send_frame(testbed.net.ns(from.node), testbed.ifindex(from), to, ethertype, packet))
    };
    for (what, to) in [("ARP to all", ALL), ("ARP to one device", other)] {
        let before = program.stats()?.packets;
        send(to, ETH_P_ARP, &arp_probe(own))?;
        // What else the end sends (MLD, for example) counts too.
        let ran = ctx.wait_until(2_000, || Ok(program.stats()?.packets >= before + SENT))?;
        ctx.check(format!("{what}: the program runs"), ran, program.stats()?.packets - before);
    }
    let source = testbed.net.addr4(from.node);
    for (number, (what, to, ip)) in (1..).zip([
        ("a datagram to all", ALL, Ipv4Addr::BROADCAST),
        ("a datagram to a group", GROUP, Ipv4Addr::new(224, 0, 0, 251)),
        ("a datagram to one device", other, testbed.net.addr4(to.node)),
    ]) {
        send(to, ETH_P_IP, &datagram(source, ip, ctx.marker))?;
        ctx.becomes(format!("{what}: packets at the program"), number * SENT, || Ok(program.stats()?.marked))?;
    }
    Ok(())
}
