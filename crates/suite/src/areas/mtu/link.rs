//! Packet sizes: limits of links and paths, and packets that are not split.

use crate::topologies::{JUMBO, UNEVEN_PAIR, USUAL};
use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, Spot, Testbed},
    trip::{HookCounters, Trip},
    variants,
};
use lab_protocol::{Capability, LinkKind};
use lab_topology::{Family, Netns, PairRequest, ethtool, library, library::Overlay, link};
use lab_traffic::{Capture, Headers, Oversized, Path, SILENCE_WINDOW, Transport, UdpOptions, UdpProbe, UdpSink};
use nix::errno::Errno;
use std::{fs, net::SocketAddr};

/// Headers of IPv4 or IPv6 and UDP.
const UDP_HEADERS: [u32; 2] = [28, 48];
/// `ETH_HLEN`: part of the packet as programs see it.
const ETHERNET: u32 = 14;

/// In the order in which they run.
pub const CASES: &[Case] = &[
    LARGER_THAN_THE_PEER,
    PEER_MTU_IS_ITS_OWN,
    PATH_MTU_PER_PATH,
    PATH_MTU_OF_A_TUNNEL,
    SEGMENTS_CROSS_UNSPLIT,
    SEGMENTED_AND_FRAGMENTED_UDP,
    SAME_LINK_LOCAL_ADDRESS,
];

const LARGER_THAN_THE_PEER: Case = Case::new(
    "U01",
    "larger-than-the-peer",
    "A packet longer than the pod's MTU is lost on veth, which checks the receiver's MTU, and delivered on netkit.",
    larger_than_the_peer,
)
.on(UNEVEN_PAIR)
.over(variants::usual_mechanisms);
fn larger_than_the_peer(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const LARGE: usize = 3_000;
    let testbed = ctx.testbed()?;
    ctx.equal("MTU of the pod's end", testbed.net.readback("pod", "eth0")?.mtu, USUAL);
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    ctx.watch(&testbed.net, ["host", "pod"]);
    for family in Family::available().iter().copied() {
        let to = SocketAddr::new(testbed.net.addr("pod", family), ctx.marker);
        let sink = UdpSink::bind(testbed.net.ns("pod"), to)?;
        let probe = UdpProbe::connect(testbed.net.ns("host"), to)?;
        probe.set_oversized(Oversized::Refuse)?;
        let lost = || link::stats(testbed.net.ns("host"), P0.dev).map(|stats| stats.tx_dropped);
        let before = (watch.counted()?.to, lost()?);
        let netkit = variant.device().is_netkit();
        match probe.send(&[1; LARGE]) {
            // Newer kernels report veth's drop to the sender, older ones don't.
            Err(error) if !netkit && error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
            sent => sent?,
        }
        let patience = if netkit { ctx.patience(2_000) } else { SILENCE_WINDOW };
        let arrived = sink.receive(patience).map(|(datagram, _)| datagram.len());
        ctx.equal(format!("{family}: bytes of {LARGE} that arrive"), arrived, netkit.then_some(LARGE));
        ctx.equal(format!("{family}: packets that ran the program"), watch.counted()?.to - before.0, 1);
        // veth_xmit() counts what the other end refuses.
        ctx.equal(format!("{family}: tx_dropped of the node's end"), lost()? - before.1, u64::from(!netkit));
    }
    let whole = LARGE as u32 + UDP_HEADERS[1] + ETHERNET;
    ctx.equal("the longest packet that ran the program", watch.incoming.stats()?.max_len, whole);
    Trip::control(ctx, "host", "pod").passes(ctx, &testbed, &[&watch])
}

const PEER_MTU_IS_ITS_OWN: Case =
    Case::new("U02", "peer-mtu-is-its-own", "The peer has the MTU that is set for it, never the primary's.", peer_mtu)
        .on(library::SOLO)
        .over(variants::devices);
fn peer_mtu(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let kind = variant.device();
    let testbed = ctx.testbed()?;
    let ns = testbed.net.ns("host");
    for (given, wanted) in [(None, USUAL), (Some(4_000), 4_000)] {
        let request = PairRequest { mtu: Some(JUMBO), peer_mtu: given, ..PairRequest::new(kind, "one", "two") };
        link::create_pair(ns, &request)?;
        ctx.equal(format!("primary, peer given {given:?}"), link::info(ns, "one")?.mtu, JUMBO);
        ctx.equal(format!("peer, given {given:?}"), link::info(ns, "two")?.mtu, wanted);
        link::delete(ns, "one")?;
    }
    Ok(())
}

/// Sends one datagram that is too large for the path, waits until the kernel has learned the path MTU, and checks
/// that a fragmented datagram then arrives. Before, the kernel knows of another path MTU: that of the device, or one that it
/// has learned.
fn learns(
    ctx: &mut Ctx,
    testbed: &Testbed,
    (from, to): (&str, &str),
    at: SocketAddr,
    (before, wanted): (u32, u32),
) -> Result<(), Stop> {
    ctx.watch(&testbed.net, [from, to]);
    let sink = UdpSink::bind(testbed.net.ns(to), at)?;
    let probe = UdpProbe::connect(testbed.net.ns(from), at)?;
    let way = format!("{}, {before} to {wanted}", at.ip());
    ctx.equal(format!("{way}: path MTU before"), probe.path_mtu()?, before);
    let family = Family::of(at.ip());
    let payload = vec![0x4e; (before - UDP_HEADERS[family as usize]) as usize];
    probe.set_oversized(Oversized::Refuse)?;
    probe.send(&payload)?;
    let learned = ctx.wait_until(2_000, || Ok(probe.path_mtu()? != before))?;
    ctx.check(format!("{way}: the kernel updates the path MTU"), learned, learned);
    ctx.equal(format!("{way}: path MTU after"), probe.path_mtu()?, wanted);
    _ = probe.error(ctx.patience(100));
    probe.set_oversized(Oversized::Fragment)?;
    probe.send(&payload)?;
    let arrived = sink.receive(ctx.patience(2_000)).map(|(datagram, _)| datagram == payload);
    ctx.equal(format!("{way}: the same datagram in fragments arrives"), arrived, Some(true));
    Ok(())
}

const PATH_MTU_PER_PATH: Case = Case::new(
    "U03",
    "path-mtu-per-path",
    "Each path to the same server has its own path MTU, which can shrink once more, and datagrams and connections pass afterwards.",
    path_mtu_per_path,
)
.on(library::DIAMOND)
.over(variants::one_each);
fn path_mtu_per_path(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const BULK: u64 = 64 << 10;
    const NARROWER: u32 = 100;
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, Spot { node: "a", dev: "p0" }, variant.attach())?;
    let device = testbed.net.readback("w", "eth0")?.mtu;
    for (addr, wanted) in library::DIAMOND_PATHS {
        let addr = addr.parse()?;
        learns(ctx, &testbed, ("w", "b"), SocketAddr::new(addr, ctx.marker), (device, wanted))?;
        let path = Path::direct(testbed.net.ns("w"), testbed.net.ns("b"), addr, ctx.marker);
        let bulk = lab_traffic::tcp_exchange(path, BULK, ctx.patience(5_000));
        ctx.check(format!("{addr}: a connection transfers the data"), bulk.content_ok, bulk.to_string());
    }
    // By now the kernel keeps a route to each of these destinations (fnhe_rth_output); the second limit has to reach it.
    for (router, far, mtu) in [("r1", "e1", library::DIAMOND_PATHS[0].1), ("r2", "e2", library::DIAMOND_PATHS[2].1)] {
        for (node, dev) in [(router, "b"), ("b", far)] {
            link::set_mtu(testbed.net.ns(node), dev, mtu - NARROWER)?;
        }
    }
    for (addr, known) in library::DIAMOND_PATHS {
        let at = SocketAddr::new(addr.parse()?, ctx.marker);
        learns(ctx, &testbed, ("w", "b"), at, (known, known - NARROWER))?;
    }
    let seen = watch.counted()?;
    ctx.check("the programs ran on the packets", seen.from > 8 && seen.to > 8, format!("{seen:?}"));
    Ok(())
}

const PATH_MTU_OF_A_TUNNEL: Case = Case::new(
    "U04",
    "path-mtu-of-a-tunnel",
    "A pod learns that the path MTU through VXLAN is 50 bytes smaller, and its packets arrive afterwards.",
    path_mtu_of_a_tunnel,
)
.on(library::TWO_NODE_VXLAN)
.over(variants::one_each);
fn path_mtu_of_a_tunnel(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const OVERLAY: Overlay = Overlay::Vxlan4;
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, Spot { node: "nodeA", dev: "p0" }, variant.attach())?;
    for family in Family::available().iter().copied() {
        let at = SocketAddr::new(testbed.net.addr("w1", family), ctx.marker);
        learns(ctx, &testbed, ("w0", "w1"), at, (USUAL, USUAL - OVERLAY.overhead()))?;
    }
    Trip::control(ctx, "w0", "w1").passes(ctx, &testbed, &[&watch])
}

/// Number of all packets that the namespace's stack counted as having a wrong checksum.
pub fn checksum_errors(ns: &Netns) -> std::io::Result<u64> {
    ns.run(|| {
        let v4 = fs::read_to_string("/proc/thread-self/net/snmp")?;
        let v6 = fs::read_to_string("/proc/thread-self/net/snmp6")?;
        let lines: Vec<&str> = v4.lines().collect();
        let v4 = lines.chunks_exact(2).flat_map(|pair| pair[0].split_whitespace().zip(pair[1].split_whitespace()));
        let v6 = v6.lines().filter_map(|line| line.split_once(char::is_whitespace));
        let wrong = v4.chain(v6).filter(|(name, _)| name.ends_with("InCsumErrors"));
        Ok(wrong.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum())
    })
}

const SEGMENTS_CROSS_UNSPLIT: Case = Case::new(
    "U06",
    "segments-cross-unsplit",
    "Bulk TCP passes the programs in packets far longer than the MTU, and no receiver counts a wrong checksum.",
    segments_cross_unsplit,
)
.on(library::PAIR)
.over(variants::mechanisms);
fn segments_cross_unsplit(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const BULK: u64 = 512 << 10;
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    ctx.watch(&testbed.net, ["pod", "host"]);
    for family in Family::available().iter().copied() {
        let path =
            Path::direct(testbed.net.ns("pod"), testbed.net.ns("host"), testbed.net.addr("host", family), ctx.marker);
        let bulk = lab_traffic::tcp_exchange(path, BULK, ctx.patience(10_000));
        ctx.check(format!("{family}: {BULK} bytes sent and returned"), bulk.content_ok, bulk.to_string());
    }
    for (way, program) in [("from the pod", &watch.outgoing), ("to the pod", &watch.incoming)] {
        let stats = program.stats()?;
        ctx.metric(&format!("gso.max_len {way}"), f64::from(stats.max_len));
        ctx.check(
            format!("{way}: the longest packet is longer than the MTU"),
            stats.max_len > 2 * USUAL,
            stats.max_len,
        );
        let segment = stats.max_gso_size;
        // The MTU minus the headers of IP and TCP with timestamps.
        ctx.check(format!("{way}: bytes per segment"), (1_400..USUAL).contains(&segment), segment);
    }
    for node in ["pod", "host"] {
        ctx.equal(format!("wrong checksums at {node}"), checksum_errors(testbed.net.ns(node))?, 0);
    }
    Ok(())
}

const SEGMENTED_AND_FRAGMENTED_UDP: Case = Case::new(
    "U07",
    "segmented-and-fragmented-udp",
    "Datagrams that are segmented late (UDP_SEGMENT), by the receiver's device or in software, and datagrams that are fragmented arrive whole.",
    segmented_and_fragmented,
)
.on(library::GATEWAY)
.over(variants::one_each)
.needs(&[Capability::UdpGso]);
fn segmented_and_fragmented(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const SEGMENT: u16 = 1_200;
    const SEGMENTS: usize = 8;
    /// What the last segment lacks.
    const SHORTER: usize = 100;
    const FRAGMENTED: usize = 4_096;
    const COUNT: u32 = 3;
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    // Of the two ways one is segmented in software, behind the programs.
    ethtool::send_checksummed(testbed.net.ns("host"), "u0")?;
    for to in ["w1", "ext"] {
        ctx.watch(&testbed.net, ["w0", to]);
        for family in Family::available().iter().copied() {
            let at = SocketAddr::new(testbed.net.addr(to, family), ctx.marker);
            let sink = UdpSink::bind(testbed.net.ns(to), at)?;
            let before = watch.counted()?.from;
            let mut whole: Vec<u8> = (0..SEGMENTS).flat_map(|number| [number as u8; SEGMENT as usize]).collect();
            whole.truncate(whole.len() - SHORTER);
            UdpProbe::connect(testbed.net.ns("w0"), at)?.send_segments(&whole, SEGMENT)?;
            let mut arrived = Vec::new();
            while arrived.len() < SEGMENTS {
                let Some((datagram, _)) = sink.receive(ctx.patience(2_000)) else { break };
                arrived.push(datagram);
            }
            let right = arrived.iter().map(Vec::as_slice).eq(whole.chunks(SEGMENT.into()));
            ctx.check(format!("{to}, {family}: segments arrive as separate datagrams"), right, arrived.len());
            ctx.equal(format!("{to}, {family}: packets that ran the program"), watch.counted()?.from - before, 1);
            drop(sink);

            let all = |watch: &HookCounters<'_>| {
                Ok::<_, Stop>((watch.outgoing.stats()?.packets, watch.incoming.stats()?.packets))
            };
            let before = all(&watch)?;
            let readable = watch.counted()?;
            let path = Path::direct(testbed.net.ns("w0"), testbed.net.ns(to), at.ip(), ctx.marker);
            let options = UdpOptions { payload: FRAGMENTED, ..UdpOptions::default() };
            let report = lab_traffic::udp_exchange(path, COUNT, options, ctx.patience(3_000));
            ctx.equal(format!("{to}, {family}: fragmented datagrams that were returned"), report.echoed, COUNT);
            let after = all(&watch)?;
            // 4 KiB in packets of 1500 bytes.
            let fewest = (after.0 - before.0).min(after.1 - before.1);
            ctx.check(
                format!("{to}, {family}: fragments that ran the programs"),
                fewest >= u64::from(COUNT) * 3,
                fewest,
            );
            // The first one has the ports, but not the packet.
            ctx.equal(format!("{to}, {family}: fragments whose ports the programs read"), watch.counted()?, readable);
        }
    }
    ctx.equal("bytes per segment in the program", watch.outgoing.stats()?.max_gso_size, u32::from(SEGMENT));
    Trip::control(ctx, "w0", "ext").passes(ctx, &testbed, &[&watch])
}

/// Link-local addresses of a device, as the kernel lists them.
fn link_local(ns: &Netns, dev: &str) -> std::io::Result<Vec<String>> {
    let listed = ns.run(|| fs::read_to_string("/proc/thread-self/net/if_inet6"))?;
    let own = listed.lines().filter(|line| line.starts_with("fe80") && line.ends_with(dev));
    Ok(own.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

const SAME_LINK_LOCAL_ADDRESS: Case = Case::new(
    "U09",
    "same-link-local-address",
    "Both ends of an L3 netkit have the same link-local address, traffic passes, and no neighbour is ever resolved.",
    same_link_local,
)
.on(library::PAIR_RESOLVING)
.over(|| variants::netkit_native().into_iter().filter(|v| v.device == Some(LinkKind::NetkitL3)).collect());
fn same_link_local(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    let mut capture = Capture::start(testbed.net.ns("host"))?;
    let both = || Ok((link_local(testbed.net.ns("host"), "p0")?, link_local(testbed.net.ns("pod"), "eth0")?));
    // addrconf_notify() gives them when the carrier comes.
    ctx.becomes("link-local addresses of each end", (1, 1), || both().map(|(host, pod)| (host.len(), pod.len())))?;
    let (host, pod) = both()?;
    ctx.equal("the two ends' link-local addresses", host, pod);
    Trip::new(ctx, "pod", "host").passes(ctx, &testbed, &[&watch])?;
    Trip::new(ctx, "host", "pod").passes(ctx, &testbed, &[&watch])?;
    let headers: Vec<Headers> = capture.packets()?.iter().filter_map(|packet| Headers::of(&packet.data)).collect();
    let asked = headers.iter().filter(|headers| {
        headers.source.is_ipv6() && matches!(headers.transport, Transport::Icmp { kind: 135 | 136, .. })
    });
    ctx.equal("packets of neighbour discovery", asked.count(), 0);
    ctx.check("packets in the capture", headers.len() > 10, headers.len());
    Ok(())
}
