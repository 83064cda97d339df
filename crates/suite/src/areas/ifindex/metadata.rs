//! Metadata of packets that cross a pair: mark, priority, packet type, departure time, segments.

use lab_bpf::Program;
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, Spot, Testbed},
    variants,
};
use lab_netlink::route::link::NetkitScrub;
use lab_protocol::{AttachRequest, Capability, KernelVersion, LinkKind, capability::Since};
use lab_topology::{Family, NetkitOptions, Scrub, Template, Topology, library};
use lab_traffic::{Path, Proto, tcp_exchange};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg, setsockopt, sockopt};
use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

/// The workload's own end.
const ETH0: Spot = Spot { node: "pod", dev: "eth0" };
/// Values that no other code sets.
const MARK: u32 = 0x2a;
const PRIORITY: i32 = 5;

/// In the order in which they run.
pub const CASES: &[Case] = &[SCRUB, PACKET_TYPE, DEPARTURE_TIME, SEGMENTS_UNCUT, CLEARED_ON_ARRIVAL];

/// Only packets that the primary sends keep their metadata.
const AT_PRIMARY: &str = "scrub-none-at-primary";
/// Only packets that the peer sends keep their metadata.
const AT_PEER: &str = "scrub-none-at-peer";

fn scrubs() -> Vec<Variant> {
    const TAGS: [&str; 4] = ["scrub-default", "scrub-none", AT_PRIMARY, AT_PEER];
    variants::netkit_hooks()
        .into_iter()
        .flat_map(|variant| TAGS.map(|tag| Variant { tag: Some(tag), ..variant }))
        .collect()
}

/// Sends one datagram to the cell's marker, through a socket that `prepare` has configured.
fn datagram(
    ctx: &Ctx,
    testbed: &Testbed,
    from: &str,
    to: IpAddr,
    prepare: impl FnOnce(&UdpSocket) -> io::Result<()> + Send,
) -> Result<(), Stop> {
    let to = SocketAddr::new(to, ctx.marker);
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    Ok(testbed.net.ns(from).run(|| {
        let socket = UdpSocket::bind((any, 0))?;
        prepare(&socket)?;
        socket.send_to(b"metadata", to).map(drop)
    })?)
}

/// Waits until the program has seen one more marked packet than before.
fn met(ctx: &mut Ctx, what: &str, program: &Program, before: u64) -> Result<(), Stop> {
    let seen = ctx.wait_until(2_000, || Ok(program.stats()?.marked > before))?;
    ctx.require(&format!("the program ran on the packet {what}"), seen, program.stats()?.marked)
}

fn scrubbed_pair(kind: LinkKind, primary: Scrub, peer: Scrub) -> Topology {
    let mut topology = library::PAIR.of(kind);
    topology.links[0].netkit =
        NetkitOptions { scrub: Some(primary), peer_scrub: Some(peer), ..NetkitOptions::default() };
    topology
}

fn scrubbing(variant: &Variant) -> Template {
    const DEFAULT: Template =
        Template::new("pair-scrub-default", "A pair with NETKIT_SCRUB_DEFAULT at both ends.", |kind| {
            scrubbed_pair(kind, Scrub::Default, Scrub::Default)
        });
    const NONE: Template = Template::new("pair-scrub-none", "A pair with NETKIT_SCRUB_NONE at both ends.", |kind| {
        scrubbed_pair(kind, Scrub::None, Scrub::None)
    });
    const PRIMARY: Template =
        Template::new("pair-scrub-none-at-primary", "A pair with NETKIT_SCRUB_NONE at the primary only.", |kind| {
            scrubbed_pair(kind, Scrub::None, Scrub::Default)
        });
    const PEER: Template =
        Template::new("pair-scrub-none-at-peer", "A pair with NETKIT_SCRUB_NONE at the peer only.", |kind| {
            scrubbed_pair(kind, Scrub::Default, Scrub::None)
        });
    match variant.tag {
        Some("scrub-none") => NONE,
        Some(AT_PRIMARY) => PRIMARY,
        Some(AT_PEER) => PEER,
        _ => DEFAULT,
    }
}

/// Whether a packet in the variant's direction keeps mark and priority: netkit_xmit() asks the end that sends.
fn keeps_metadata(variant: &Variant) -> bool {
    match variant.tag {
        Some("scrub-none") => true,
        Some(AT_PRIMARY) => variant.direction() == Direction::ToWorkload,
        Some(AT_PEER) => variant.direction() == Direction::FromWorkload,
        _ => false,
    }
}

const SCRUB: Case = Case::new(
    "G06",
    "scrub",
    "Mark and priority are cleared between namespaces; an end with scrub none keeps them in what it sends.",
    scrub,
)
.on_each(scrubbing)
.over(scrubs)
.needs(&[Capability::NetkitScrub]);
fn scrub(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let kept = keeps_metadata(variant);
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let _attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    let (from, to) = variant.direction().ends("pod", "host");
    for family in Family::available().iter().copied() {
        let before = program.stats()?.marked;
        datagram(ctx, &testbed, from, testbed.net.addr(to, family), |socket| {
            setsockopt(socket, sockopt::Mark, &MARK)?;
            Ok(setsockopt(socket, sockopt::Priority, &PRIORITY)?)
        })?;
        met(ctx, family.name(), &program, before)?;
        let last = program.stats()?.last;
        let wanted = if kept { (MARK, PRIORITY.cast_unsigned()) } else { (0, 0) };
        ctx.equal(format!("mark and priority ({family})"), (last.mark, last.priority), wanted);
    }
    // netkit_fill_info(): each end tells its own setting and that of the other end.
    let none_at = |end| variant.tag == Some("scrub-none") || variant.tag == Some(end);
    let settings = [none_at(AT_PRIMARY), none_at(AT_PEER)].map(|none| match none {
        true => NetkitScrub::None,
        false => NetkitScrub::Default,
    });
    for (node, dev, wanted) in [("host", P0.dev, settings), ("pod", ETH0.dev, [settings[1], settings[0]])] {
        let told = testbed.net.readback(node, dev)?.netkit.unwrap_or_default();
        ctx.equal(format!("scrubbing that {dev} tells"), [told.scrub, told.peer_scrub], wanted.map(Some));
    }
    Ok(())
}

const PACKET_TYPE: Case = Case::new(
    "G07",
    "packet-type",
    "Inside the pod a packet for it is PACKET_HOST and one for a group PACKET_MULTICAST, in all modes of the device.",
    packet_type,
)
.on(library::PAIR)
.over(variants::devices)
.needs(&[Capability::Tcx]);
fn packet_type(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const PACKET_HOST: u32 = 0;
    const PACKET_MULTICAST: u32 = 2;
    const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, ETH0)?;
    let _attachment = testbed.attach(ctx, ETH0, AttachRequest::Tcx, Direction::FromWorkload, &program)?;
    testbed.flow_passes(ctx, "host", "pod", Proto::Udp, Family::V4);
    ctx.equal("a packet for the pod", program.stats()?.last.pkt_type, PACKET_HOST);
    testbed.flow_passes(ctx, "host", "pod", Proto::Udp, Family::V6);
    ctx.equal("a packet for the pod (ipv6)", program.stats()?.last.pkt_type, PACKET_HOST);
    let before = program.stats()?.marked;
    let IpAddr::V4(source) = testbed.net.addr("host", Family::V4) else {
        return Err(Stop::check("the host has no IPv4 address"));
    };
    datagram(ctx, &testbed, "host", GROUP.into(), |socket| {
        socket2::SockRef::from(socket).set_multicast_if_v4(&source)
    })?;
    met(ctx, "for a group", &program, before)?;
    ctx.equal("a packet for a group", program.stats()?.last.pkt_type, PACKET_MULTICAST);
    Ok(())
}

/// The version since which the kernel treats the time in any datagram as a departure time; before, only TCP's.
pub const DATAGRAMS_DEPART: Since = Since {
    mainline: KernelVersion::new(6, 11, 0),
    backports: &[],
    source: "net: Add additional bit to support clockid_t timestamp type",
};

const DEPARTURE_TIME: Case = Case::new(
    "G09",
    "departure-time",
    "A departure time (SO_TXTIME) is unchanged in a netkit program; programs at tc ingress never read it.",
    departure_time,
)
.on(library::PAIR)
.over(variants::mechanisms);
fn departure_time(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (leaving, arriving) = (testbed.counter(ctx, ETH0)?, testbed.counter(ctx, P0)?);
    let inside = if ctx.capabilities.has(Capability::Tcx) { AttachRequest::Tcx } else { AttachRequest::Tc };
    // The pod's own egress: for its end of the pair the directions are reversed.
    let _leaving = testbed.attach(ctx, ETH0, inside, Direction::ToWorkload, &leaving)?;
    let _arriving = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &arriving)?;
    let due = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    let due_ns = Duration::from(due).as_nanos() as u64;
    let to = SocketAddr::new(testbed.net.addr("host", Family::V4), ctx.marker);
    testbed.net.ns("pod").run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let clock = nix::libc::sock_txtime { clockid: nix::libc::CLOCK_MONOTONIC, flags: 0 };
        setsockopt(&socket, sockopt::TxTime, &clock)?;
        let times = [ControlMessage::TxTime(&due_ns)];
        let to = SockaddrStorage::from(to);
        sendmsg(socket.as_raw_fd(), &[IoSlice::new(b"metadata")], &times, MsgFlags::empty(), Some(&to)).map(drop)?;
        Ok::<_, io::Error>(())
    })?;
    met(ctx, "at the node", &arriving, 0)?;
    ctx.equal("departure time in the pod", leaving.stats()?.last.tstamp_ns, due_ns);
    // skb_clear_tstamp() keeps departure times; bpf_convert_tstamp_read() hides them at ingress, but netkit is not
    // ingress.
    let seen = arriving.stats()?.last.tstamp_ns;
    if variant.attach() == AttachRequest::Netkit {
        ctx.equal("departure time at the node", seen, due_ns);
        return Ok(());
    }
    match ctx.capabilities.has_change(&DATAGRAMS_DEPART) {
        Some(true) => {
            ctx.equal("departure time at the node", seen, 0);
            return Ok(());
        }
        // Of a kernel whose version says nothing only one of the two is known.
        None if seen == 0 => return Ok(()),
        None | Some(false) => {}
    }
    // A time that is not treated as a departure time is cleared, and the packet then has its arrival time: the agent
    // enables receive timestamps.
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME)?;
    let since = Duration::from(now).checked_sub(Duration::from_nanos(seen));
    let arrived = since.is_some_and(|since| since < ctx.patience(10_000));
    ctx.check("arrival time at the node", arrived, seen);
    Ok(())
}

const SEGMENTS_UNCUT: Case = Case::new(
    "G10",
    "segments-uncut",
    "Bulk TCP crosses as packets longer than the MTU with the connection's segment size, and wire_len says what they take on a wire.",
    segments_uncut,
)
.on(library::PAIR)
.over(variants::hooks);
fn segments_uncut(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const BYTES: u64 = 64 * 1024;
    const MTU: u32 = 1500;
    const ETHERNET: u32 = 14;
    /// IPv4 or IPv6, TCP, and TCP's timestamps.
    const HEADERS: [(Family, u32); 2] = [(Family::V4, 20 + 20 + 12), (Family::V6, 40 + 20 + 12)];
    let testbed = ctx.testbed()?;
    let (from, to) = variant.direction().ends("pod", "host");
    for (family, headers) in HEADERS {
        // One program per family: the counters keep the largest values.
        let program = testbed.counter(ctx, P0)?;
        let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
        let path = Path::direct(testbed.net.ns(from), testbed.net.ns(to), testbed.net.addr(to, family), ctx.marker);
        let report = tcp_exchange(path, BYTES, ctx.patience(4_000));
        ctx.check(format!("the bytes are returned intact ({family})"), report.content_ok, report.to_string());
        let stats = program.stats()?;
        ctx.equal(format!("segment size ({family})"), stats.max_gso_size, MTU - headers);
        ctx.check(format!("packets longer than a frame ({family})"), stats.max_len > MTU + ETHERNET, stats.max_len);
        // qdisc_pkt_len_init() counts the headers of every segment. sch_handle_ingress() takes the length behind the link-layer header,
        // and newer kernels (7.2, not yet 6.18) count the headers there too.
        let at_ingress = variant.attach() != AttachRequest::Netkit && variant.direction() == Direction::FromWorkload;
        let bare = stats.max_len.saturating_sub(ETHERNET);
        let more = bare.saturating_sub(headers).div_ceil(MTU - headers).saturating_sub(1);
        let possible = match at_ingress {
            true => vec![bare, bare + more * headers],
            false => vec![stats.max_len + more * (ETHERNET + headers)],
        };
        let seen = stats.max_wire_len;
        let right = possible.iter().any(|length| u64::from(*length) == seen);
        let name = format!("wire_len of the longest ({family})");
        ctx.check(name, right, format!("{seen} of a packet of {} bytes, possible: {possible:?}", stats.max_len));
        attachment.detach()?;
    }
    Ok(())
}

const CLEARED_ON_ARRIVAL: Case = Case::new(
    "G16",
    "cleared-on-arrival",
    "A packet that arrives from another namespace has neither mark nor priority, on every kind of link and at both ends.",
    cleared_on_arrival,
)
.on(library::PAIR)
.over(variants::devices)
.needs(&[Capability::Clsact]);
fn cleared_on_arrival(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    for (from, at) in [("pod", P0), ("host", ETH0)] {
        let program = testbed.counter(ctx, at)?;
        let _attachment = testbed.attach(ctx, at, AttachRequest::Tc, Direction::FromWorkload, &program)?;
        for family in Family::available().iter().copied() {
            let before = program.stats()?.marked;
            datagram(ctx, &testbed, from, testbed.net.addr(at.node, family), |socket| {
                setsockopt(socket, sockopt::Mark, &MARK)?;
                Ok(setsockopt(socket, sockopt::Priority, &PRIORITY)?)
            })?;
            met(ctx, family.name(), &program, before)?;
            let last = program.stats()?.last;
            ctx.equal(format!("mark and priority at {} ({family})", at.dev), (last.mark, last.priority), (0, 0));
        }
    }
    Ok(())
}
