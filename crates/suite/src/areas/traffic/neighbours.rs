//! Neighbours: link-layer addresses that change, and addresses that a node answers for.

use lab_bpf::{Config, ProgramKind};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, P1, Spot, Testbed},
    variants,
};
use lab_topology::{
    Family, Hop, LinkKind, Template, Topology, library,
    neighbour::{self, NeighbourState},
};
use lab_traffic::{UdpProbe, UdpSink};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

/// In the order in which they run.
pub const CASES: &[Case] = &[PROXY_ENTRIES, CHANGED_NEIGHBOUR];

/// Addresses behind the node, for which it answers at the first workload's device, and at both. Both IPv6 ones have one
/// solicited-node group (RFC 4291, 2.7.1): a device that answers for either receives the questions for both.
const BEHIND: [[&str; 2]; 2] = [["203.0.113.40", "203.0.113.41"], ["2001:db8:c:1::40", "2001:db8:c:2::40"]];

/// The workloads take the addresses for neighbours; the node has them behind another device.
fn behind(kind: LinkKind) -> Topology {
    let mut topology = library::PODS.of(kind).dummy("host", "behind").addr("host", "behind", &["10.69.0.1/32"]);
    for (family, addresses) in Family::ALL.into_iter().zip(BEHIND) {
        for address in addresses {
            let to = format!("{address}/{}", if family == Family::V4 { 32 } else { 128 });
            for (node, dev) in [("host", "behind"), ("w0", "eth0"), ("w1", "eth0")] {
                topology = topology.route(node, &to, Hop::dev(dev));
            }
        }
    }
    topology
}

const PROXY_ENTRIES: Case = Case::new(
    "T27",
    "proxy-entries",
    "A node answers for an address at the devices that have an entry for it and at no other, in both families; who is answered takes \
     the neighbour for reachable.",
    proxy_entries,
)
.on(Template::new("pods-proxied", "Two workloads on a host that answers for addresses behind it.", behind))
.over(|| variants::devices().into_iter().filter(|variant| variant.device().has_macs()).collect());
fn proxy_entries(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let host = testbed.net.ns("host");
    let mut entries = Vec::new();
    for family in Family::available().iter().copied() {
        let version = if family == Family::V4 { "ipv4" } else { "ipv6" };
        for dev in [P0.dev, P1.dev] {
            // Otherwise the answer waits for up to 0.8 s (pneigh_enqueue()).
            host.run(|| fs::write(format!("/proc/sys/net/{version}/neigh/{dev}/proxy_delay"), "0"))?;
            if family == Family::V6 {
                host.run(|| fs::write(format!("/proc/sys/net/ipv6/conf/{dev}/proxy_ndp"), "1"))?;
            }
        }
        let [first, both] = BEHIND[family as usize].map(str::parse::<IpAddr>);
        let (first, both) = (first?, both?);
        for (at, addr) in [(P0, first), (P0, both), (P1, both)] {
            neighbour::add_proxy(host, at.dev, addr)?;
            entries.push((testbed.ifindex(at), addr));
        }
        // The question that is not answered is followed by one that is.
        asked(ctx, &testbed, ("w0", P0), [(first, true), (both, true)])?;
        asked(ctx, &testbed, ("w1", P1), [(first, false), (both, true)])?;
    }
    let mut listed = neighbour::proxies(host)?;
    listed.sort_unstable();
    entries.sort_unstable();
    ctx.equal("devices and addresses for which the node answers", listed, entries);
    Ok(())
}

/// Has a workload ask for addresses, and checks for which of them it gets the link-layer address of the node's end.
fn asked(
    ctx: &mut Ctx,
    testbed: &Testbed,
    (node, at): (&str, Spot),
    addresses: [(IpAddr, bool); 2],
) -> Result<(), Stop> {
    let ns = testbed.net.ns(node);
    let mac = testbed.net.readback(at.node, at.dev)?.mac;
    for (addr, _) in addresses {
        UdpProbe::connect(ns, SocketAddr::new(addr, ctx.marker))?.send(b"who has it")?;
    }
    let wanted = addresses.map(|(addr, answered)| (addr, answered.then_some((NeighbourState::Reachable, mac))));
    ctx.becomes(format!("what {node} knows of addresses behind the node"), wanted, || {
        let known = neighbour::list(ns)?;
        Ok(addresses.map(|(addr, _)| {
            // Without an answer there is an entry without an address.
            let entry = known.iter().find(|entry| entry.addr == addr && entry.mac.is_some());
            (addr, entry.map(|entry| (entry.state, entry.mac)))
        }))
    })?;
    Ok(())
}

const CHANGED_NEIGHBOUR: Case = Case::new(
    "T29",
    "changed-neighbour",
    "After a neighbour's link-layer address has changed, packets that are routed and those of bpf_redirect_neigh go to the new one.",
    changed_neighbour,
)
.on(library::PODS)
.over(|| variants::usual_mechanisms().into_iter().filter(|variant| variant.device().has_macs()).collect());
fn changed_neighbour(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const ELSEWHERE: [u8; 6] = [0x02, 0x4e, 0x4b, 9, 9, 9];
    /// The first one fills the cached header in (neigh_hh_init()), the second one has it from there (neigh_hh_output()).
    const EACH: u64 = 2;
    let testbed = ctx.testbed()?;
    let (host, own) = (testbed.net.ns("host"), testbed.counter(ctx, P1)?);
    let mac = testbed.net.readback("w1", "eth0")?.mac.unwrap_or_default();
    let target = Config { target_ifindex: testbed.ifindex(P1), ..Config::new(ctx.marker) };
    let steering = testbed.load(ctx, P0, ProgramKind::RedirectNeigh, target)?;
    let _own = testbed.attach(ctx, P1, variant.attach(), Direction::ToWorkload, &own)?;
    let mut sent = 0;
    let mut send = |ctx: &mut Ctx, how: &str| {
        for family in Family::available().iter().copied() {
            let to = SocketAddr::new(testbed.net.addr("w1", family), ctx.marker);
            let _sink = UdpSink::bind(testbed.net.ns("w1"), to)?;
            let probe = UdpProbe::connect(testbed.net.ns("w0"), to)?;
            for (when, mac) in [("at first", mac), ("changed", ELSEWHERE), ("changed back", mac)] {
                neighbour::set(host, P1.dev, to.ip(), mac)?;
                for _ in 0..EACH {
                    probe.send(b"to a neighbour")?;
                    sent += 1;
                    let seen = || {
                        let stats = own.stats()?;
                        Ok((stats.marked, stats.last.eth_dst))
                    };
                    ctx.becomes(format!("{family}, {how}, {when}: packets, destination"), (sent, mac), seen)?;
                }
            }
        }
        Ok::<_, Stop>(())
    };
    send(ctx, "routed")?;
    let _steering = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
    send(ctx, "bpf_redirect_neigh")?;
    ctx.equal("packets that were redirected", steering.stats()?.marked, sent / 2);
    Ok(())
}
