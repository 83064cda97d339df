//! Packets that go on: forwarded ones, ones with VLAN tags, and who is charged for their memory.

use lab_bpf::{Seen, VLAN_PRESENT};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::Ctx,
    testbed::{P0, P1, Spot},
    variants,
};
use lab_protocol::{AttachRequest, Capability};
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
pub const CASES: &[Case] = &[FORWARDED_DEPARTURE_TIME, VLAN_TAGS, SENDERS_MEMORY];

const FORWARDED_DEPARTURE_TIME: Case = Case::new(
    "G13",
    "forwarded-departure-time",
    "A forwarded packet keeps its departure time (SO_TXTIME) up to the second pod, and never has its arrival time there.",
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
    Ok(())
}

/// Tags of a frame from the outside in: EtherType and tag control information.
type Tags = &'static [(u16, u16)];
const CUSTOMER: u16 = 0x8100;
const SERVICE: u16 = 0x88a8;
const ETH_P_IP: u16 = 0x0800;
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
.over(|| {
    let both = |variant| Direction::BOTH.map(|direction| Variant { direction: Some(direction), ..variant });
    variants::one_each().into_iter().flat_map(both).collect()
});
fn vlan_tags(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (from, to) = match variant.direction() {
        Direction::FromWorkload => (ETH0, P0),
        Direction::ToWorkload => (P0, ETH0),
    };
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
