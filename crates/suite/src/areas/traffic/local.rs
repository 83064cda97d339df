//! Traffic within one node.

use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
    flows::EXCHANGES,
    testbed::{P0, P1, Testbed},
    trip::{HookCounters, Trip},
    variants,
};
use lab_protocol::LinkKind;
use lab_topology::{
    Family, Hop, Template, Topology, library, link,
    neighbour::{self, NeighbourState},
};
use lab_traffic::{Capture, Headers, Path, Proto, UdpProbe};
use nix::errno::Errno;
use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

/// Size of a large transfer, bytes: many windows, but fast enough under emulation.
const LARGE: u64 = 256 << 10;

/// In the order in which they run.
pub const CASES: &[Case] = &[POD_AND_HOST, POD_TO_POD, TCP_ENDS, NEIGHBOURS_RESOLVE, PROXY_ARP, MANY_CONNECTIONS];

const POD_AND_HOST: Case = Case::new(
    "T01",
    "pod-and-host",
    "ICMP, UDP and TCP pass between a pod and its node in both directions, and both hooks count every packet.",
    pod_and_host,
)
.on(library::PAIR)
.over(variants::mechanisms);
fn pod_and_host(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    Trip::new(ctx, "pod", "host").passes(ctx, &testbed, &[&watch])?;
    Trip::new(ctx, "host", "pod").passes(ctx, &testbed, &[&watch])
}

const POD_TO_POD: Case = Case::new(
    "T02",
    "pod-to-pod",
    "ICMP, UDP and TCP pass between two pods of a node that routes, and both pods' hooks count every packet.",
    pod_to_pod,
)
.on(library::PODS)
.over(variants::mechanisms);
fn pod_to_pod(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let first = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    let second = HookCounters::new(ctx, &testbed, P1, variant.attach())?;
    Trip::new(ctx, "w0", "w1").passes(ctx, &testbed, &[&first, &second])?;
    Trip::new(ctx, "w1", "w0").passes(ctx, &testbed, &[&first, &second])
}

const TCP_ENDS: Case = Case::new(
    "T02",
    "tcp-ends",
    "A large transfer arrives intact, a half-closed connection still transfers in the other direction, a reset and a closed \
         port are reported at once.",
    tcp_ends,
)
.on(library::PODS)
.over(variants::usual_mechanisms);
fn tcp_ends(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    ctx.watch(&testbed.net, ["w0", "w1"]);
    let (from, to) = (testbed.net.ns("w0"), testbed.net.ns("w1"));
    for family in Family::available().iter().copied() {
        let path = Path::direct(from, to, testbed.net.addr("w1", family), ctx.marker);
        let large = lab_traffic::tcp_exchange(path, LARGE, ctx.patience(5_000));
        let intact = large.content_ok && large.bytes_delivered == LARGE;
        ctx.check(format!("{LARGE} bytes sent and returned ({family})"), intact, large.to_string());
        let half = lab_traffic::half_closed(path, LARGE, ctx.patience(5_000));
        let answered = half.as_ref().is_ok_and(|bytes| *bytes == LARGE);
        ctx.check(
            format!("bytes received after our direction was closed ({family})"),
            answered,
            half.map_or_else(|error| error.to_string(), |bytes| format!("received {bytes} of {LARGE} bytes")),
        );
        let reset = lab_traffic::reset(path, ctx.patience(2_000))?;
        ctx.equal(format!("error of the server after a reset ({family})"), reset, Some(Errno::ECONNRESET));
        let refused = lab_traffic::refused(path, ctx.patience(2_000));
        ctx.equal(format!("connecting to a closed port ({family})"), refused, Some(Errno::ECONNREFUSED));
    }
    let seen = watch.counted()?;
    let enough = seen.from.min(seen.to) > 20;
    ctx.check("the programs ran on all packets", enough, format!("{seen:?}"));
    Ok(())
}

const NEIGHBOURS_RESOLVE: Case = Case::new(
    "T16",
    "neighbours-resolve",
    "ARP, neighbour discovery, broadcast and multicast pass the programs; who is answered is reachable; an L3 netkit resolves no \
     neighbours.",
    neighbours_resolve,
)
.on(library::PAIR_RESOLVING)
.over(variants::usual_mechanisms);
fn neighbours_resolve(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let kind = variant.device();
    // Unlike in other cases, the ends must resolve each other's addresses.
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    let mut capture = Capture::start(testbed.net.ns("host"))?;
    if kind.has_macs() {
        answered(ctx, &testbed, "pod", ("host", P0.dev))?;
    }
    Trip::new(ctx, "pod", "host").passes(ctx, &testbed, &[&watch])?;
    let resolving = |packets: &[lab_traffic::Packet]| {
        let arp = packets.iter().filter(|packet| packet.protocol == ETH_P_ARP).count();
        let solicited = packets.iter().filter_map(|packet| Headers::of(&packet.data)).filter(is_neighbour_discovery);
        (arp, solicited.count())
    };
    let (arp, discovery) = resolving(capture.packets()?);
    let seen = format!("{arp} ARP packets, {discovery} of neighbour discovery");
    let resolved = if kind.has_macs() { arp >= 2 && discovery >= 2 } else { arp == 0 && discovery == 0 };
    ctx.check(if kind.has_macs() { "both families are resolved" } else { "nothing is resolved" }, resolved, seen);

    let before = watch.outgoing.stats()?.marked;
    let all: [IpAddr; 2] = ["224.0.0.1".parse()?, "ff02::1".parse()?];
    for group in all {
        let to = match group {
            IpAddr::V4(_) => SocketAddr::new(group, ctx.marker),
            IpAddr::V6(group) => {
                let scope = link::info(testbed.net.ns("pod"), "eth0")?.ifindex;
                std::net::SocketAddrV6::new(group, ctx.marker, 0, scope).into()
            }
        };
        UdpProbe::connect(testbed.net.ns("pod"), to)?.send(b"to all")?;
    }
    let marker = ctx.marker;
    let heard = ctx.wait_until(1_000, || {
        let packets = capture.packets()?.iter().filter_map(|packet| Headers::of(&packet.data));
        let groups: Vec<IpAddr> = packets
            .filter(|headers| headers.ports().is_some_and(|(_, to)| to == marker))
            .map(|headers| headers.destination)
            .collect();
        Ok(all.iter().all(|group| groups.contains(group)))
    })?;
    ctx.check("the node receives the pod's multicast in both families", heard, heard);
    // A capture has a packet before the programs at ingress (`ptype_all`, `__netif_receive_skb_core()`).
    ctx.becomes("packets to the groups that the program saw", 2, || Ok(watch.outgoing.stats()?.marked - before))?;
    Ok(())
}

/// An answer to a solicitation proves that the neighbour is reachable (`NUD_REACHABLE`: ndisc_recv_na(), arp_process()); one without
/// the solicited flag, or to all, does not (RFC 4861, 7.2.5). Asked before there is a connection, whose progress proves it too.
fn answered(ctx: &mut Ctx, testbed: &Testbed, from: &str, (to, dev): (&str, &str)) -> Result<(), Stop> {
    let (ns, mac) = (testbed.net.ns(from), testbed.net.readback(to, dev)?.mac);
    for family in Family::available().iter().copied() {
        let addr = testbed.net.addr(to, family);
        UdpProbe::connect(ns, SocketAddr::new(addr, ctx.marker))?.send(b"who has it")?;
        ctx.becomes(format!("what {from} knows of {to} ({family})"), Some((NeighbourState::Reachable, mac)), || {
            let known = neighbour::list(ns)?.into_iter().find(|entry| entry.addr == addr);
            Ok(known.map(|entry| (entry.state, entry.mac)))
        })?;
    }
    Ok(())
}

const ETH_P_ARP: u16 = 0x0806;

/// Neighbour solicitation or advertisement.
fn is_neighbour_discovery(headers: &Headers) -> bool {
    matches!(headers.transport, lab_traffic::Transport::Icmp { kind: 135 | 136, .. } if headers.source.is_ipv6())
}

/// To the first workload the second one is on its link, so that it asks for the link-layer address of the second one.
fn on_link(kind: LinkKind) -> Topology {
    library::PODS.of(kind).route("w0", "10.65.0.3/32", Hop::dev("eth0"))
}

const PROXY_ARP: Case = Case::new(
    "T27",
    "proxy-arp",
    "With proxy_arp the node answers a pod's ARP request for another pod while programs are attached, and the flow passes.",
    proxy_arp,
)
.on(Template::new("pods-on-link", "Two workloads on a host; to the first one the second is on its link.", on_link))
.over(|| variants::usual_mechanisms().into_iter().filter(|variant| variant.device().has_macs()).collect());
fn proxy_arp(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let host = testbed.net.ns("host");
    // Otherwise the answer waits for up to 0.8 s (arp_process()).
    for (parameter, value) in [("conf/p0/proxy_arp", "1"), ("neigh/p0/proxy_delay", "0")] {
        host.run(|| fs::write(format!("/proc/sys/net/ipv4/{parameter}"), value))?;
    }
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    let mut capture = Capture::start(testbed.net.ns("w0"))?;
    testbed.flow_passes(ctx, "w0", "w1", Proto::Udp, Family::V4);
    let seen = watch.counted()?;
    ctx.equal("packets of the flow at both hooks", (seen.from, seen.to), (EXCHANGES.into(), EXCHANGES.into()));
    // Operation, and the addresses that the sender of the packet says it has (RFC 826).
    let claims = |packet: &lab_traffic::Packet| {
        let data = packet.data.get(6..18)?;
        (packet.protocol == ETH_P_ARP && data[..2] == [0, 2]).then(|| data[2..].to_vec())
    };
    let answers: Vec<Vec<u8>> = capture.packets()?.iter().filter_map(claims).collect();
    let node = testbed.net.readback("host", P0.dev)?.mac.unwrap_or_default();
    let wanted = [&node[..], &testbed.net.addr4("w1").octets()].concat();
    ctx.equal("the link-layer and IPv4 address in the answer", answers.first(), Some(&wanted));
    Ok(())
}

const MANY_CONNECTIONS: Case = Case::new(
    "T18",
    "many-connections",
    "A thousand short connections one after another, and 64 at the same time, all succeed.",
    many_connections,
)
.on(library::PODS)
.over(variants::one_each)
.within(30_000);
fn many_connections(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const SHORT: u32 = 1_000;
    const PARALLEL: u32 = 64;
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    let (from, to) = (testbed.net.ns("w0"), testbed.net.ns("w1"));
    let path = Path::direct(from, to, testbed.net.addr("w1", Family::V4), ctx.marker);
    for (what, count, parallel) in [("one after another", SHORT, 1), ("at the same time", PARALLEL, PARALLEL)] {
        let before = watch.counted()?;
        let result = lab_traffic::many(path, count, parallel, ctx.patience(20_000));
        let shown = result.as_ref().map_or_else(|error| error.to_string(), |()| "all through".to_owned());
        ctx.check(format!("{count} connections {what}"), result.is_ok(), shown);
        let now = watch.counted()?;
        // SYN, ACK, data, ACK of the answer or FIN: at least four packets each way in the fewest case.
        let fewest = (now.from - before.from).min(now.to - before.to);
        ctx.check(format!("packets per connection {what}"), fewest >= u64::from(count) * 3, fewest);
    }
    Ok(())
}
