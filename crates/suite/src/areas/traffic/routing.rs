//! Routing by rules and VRFs, not only by the destination.
//!
//! netkit's PEER programs see an ingress_ifindex of 0, but the packet arrives by the primary: rules for the incoming
//! device must match it as with a veth.

use crate::areas::ifindex::crossing::datagram;
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, P1, Spot, Testbed},
    trip::{HookCounters, Trip},
    variants,
};
use lab_topology::{Family, library};
use lab_traffic::{SILENCE_WINDOW, UdpProbe, UdpSink, send_frame};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

/// In the order in which they run.
pub const CASES: &[Case] = &[VRF, RULES, REVERSE_PATH];

const ETH_P_IP: u16 = 0x0800;

const VRF: Case =
    Case::new("T14", "vrf", "A workload in one VRF reaches a server in another through leaked routes, both ways.", vrf)
        .on(library::VRF)
        .over(variants::one_each);
fn vrf(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, Spot { node: "r1", dev: "p0" }, variant.attach())?;
    Trip::new(ctx, "h1", "h2").passes(ctx, &testbed, &[&watch])?;
    Trip::new(ctx, "h2", "h1").passes(ctx, &testbed, &[&watch])
}

/// Sends one datagram to an address of the second workload; returns whether it arrived.
fn arrives(
    ctx: &Ctx,
    testbed: &Testbed,
    from: &str,
    to: IpAddr,
    (mark, tos): (Option<u32>, u8),
    wanted: bool,
) -> Result<bool, Stop> {
    ctx.watch(&testbed.net, [from, "w1"]);
    let to = SocketAddr::new(to, ctx.marker);
    let sink = UdpSink::bind(testbed.net.ns("w1"), to)?;
    let patience = if wanted { ctx.patience(2_000) } else { SILENCE_WINDOW };
    // Without a route the kernel may return an error at once; this counts as not arrived.
    let sent = UdpProbe::connect_marked(testbed.net.ns(from), to, mark).and_then(|probe| {
        probe.set_tos(tos)?;
        probe.send(b"by rule")
    });
    Ok(match sent {
        Ok(()) => sink.receive(patience).is_some(),
        Err(_) if !wanted => false,
        Err(error) => return Err(error.into()),
    })
}

const RULES: Case = Case::new(
    "T14",
    "rules",
    "Rules by incoming device, source, mark or a part of it and DSCP route a workload's packets; without a match there is no route.",
    rules,
)
.on(library::POLICY)
.over(variants::one_each);
fn rules(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let first = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    let second = HookCounters::new(ctx, &testbed, P1, variant.attach())?;
    let (plain, tos, marked) = ((None, 0), (None, library::POLICY_TOS), |mark| (Some(mark), 0));
    let mark = library::POLICY_MARK;
    // Both differ from the mark in one bit: outside of the rule's mask, and within.
    let (also, other) = (marked(mark ^ 0x100), marked(mark ^ 0x10));
    let marked = marked(mark);
    for addresses in library::POLICY_ADDRS.map(|addrs| addrs.map(|addr| addr.parse::<IpAddr>())) {
        let [by_device, by_source, by_mark, by_tos, by_part] = addresses;
        let (by_device, by_source, by_mark, by_tos, by_part) = (by_device?, by_source?, by_mark?, by_tos?, by_part?);
        let before = (first.counted()?.from, second.counted()?.to);
        for (what, from, to, packet, wanted) in [
            ("iif, from the first workload", "w0", by_device, plain, true),
            ("iif, from the node itself", "host", by_device, plain, false),
            ("source, from the first workload", "w0", by_source, plain, true),
            ("source, from the node itself", "host", by_source, plain, false),
            ("mark, from the node itself", "host", by_mark, marked, true),
            ("mark, unmarked", "host", by_mark, plain, false),
            ("mark, another bit set", "host", by_mark, also, false),
            ("part of a mark, a bit set outside of the part", "host", by_part, also, true),
            ("part of a mark, another bit in the part", "host", by_part, other, false),
            // The mark is set by the sender, and is not kept across namespaces.
            ("mark, from the first workload", "w0", by_mark, marked, false),
            // What the sender sets is in the header.
            ("DSCP, from the first workload", "w0", by_tos, tos, true),
            ("DSCP, another one", "w0", by_tos, plain, false),
        ] {
            let arrived = arrives(ctx, &testbed, from, to, packet, wanted)?;
            ctx.equal(format!("{to} by {what}: arrives"), arrived, wanted);
        }
        let name = format!("packets that left the first workload and entered the second ({by_device})");
        ctx.becomes(name, (5, 5), || Ok((first.counted()?.from - before.0, second.counted()?.to - before.1)))?;
    }
    Trip::control(ctx, "w0", "w1").passes(ctx, &testbed, &[&first, &second])
}

const REVERSE_PATH: Case = Case::new(
    "T28",
    "reverse-path",
    "rp_filter of a workload's device drops packets with a source that is routed elsewhere, after the programs of the hook ran.",
    reverse_path,
)
.on(library::PODS)
.over(variants::usual_mechanisms);
fn reverse_path(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (host, pod) = (testbed.net.ns("host"), testbed.net.ns("w0"));
    let program = testbed.counter(ctx, P0)?;
    let _program = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    let node = testbed.net.readback("host", P0.dev)?.mac.unwrap_or_default();
    let (own, other, to) = (testbed.net.addr4("w0"), testbed.net.addr4("w1"), testbed.net.addr4("host"));
    let sink = UdpSink::bind(host, SocketAddr::new(testbed.net.addr("host", Family::V4), ctx.marker))?;
    let out = testbed.net.ifindex("w0", "eth0");
    let send = |source| send_frame(pod, out, node, ETH_P_IP, &datagram(source, to, ctx.marker));
    let filter = |value: &str| {
        let set = |dev| fs::write(format!("/proc/sys/net/ipv4/conf/{dev}/rp_filter"), value);
        // The greater of the two holds (IN_DEV_RPFILTER, include/linux/inetdevice.h).
        host.run(|| ["all", P0.dev].into_iter().try_for_each(set))
    };
    let mut sources = Vec::new();
    for (strict, from) in [("1", other), ("1", own), ("0", other)] {
        filter(strict)?;
        send(from)?;
        // A packet that is dropped is followed by one that is not.
        if (strict, from) != ("1", other) {
            sources.push(sink.receive(ctx.patience(2_000)).map(|(_, source)| source.ip()));
        }
    }
    ctx.equal("sources of the packets that arrive", sources, vec![Some(own.into()), Some(other.into())]);
    ctx.becomes("packets at the program", 3, || Ok(program.stats()?.marked))?;
    Ok(())
}
