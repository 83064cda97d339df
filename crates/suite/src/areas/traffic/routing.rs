//! Routing by rules and VRFs, not only by the destination.
//!
//! netkit's PEER programs see an ingress_ifindex of 0, but the packet arrives by the primary: rules for the incoming
//! device must match it as with a veth.

use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, P1, Spot, Testbed},
    trip::{HookCounters, Trip},
    variants,
};
use lab_topology::library;
use lab_traffic::{SILENCE_WINDOW, UdpProbe, UdpSink};
use std::net::{IpAddr, SocketAddr};

/// In the order in which they run.
pub const CASES: &[Case] = &[VRF, RULES];

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
    mark: Option<u32>,
    wanted: bool,
) -> Result<bool, Stop> {
    ctx.watch(&testbed.net, [from, "w1"]);
    let to = SocketAddr::new(to, ctx.marker);
    let sink = UdpSink::bind(testbed.net.ns("w1"), to)?;
    let patience = if wanted { ctx.patience(2_000) } else { SILENCE_WINDOW };
    // Without a route the kernel may return an error at once; this counts as not arrived.
    let sent = UdpProbe::connect_marked(testbed.net.ns(from), to, mark).and_then(|probe| probe.send(b"by rule"));
    Ok(match sent {
        Ok(()) => sink.receive(patience).is_some(),
        Err(_) if !wanted => false,
        Err(error) => return Err(error.into()),
    })
}

const RULES: Case = Case::new(
    "T14",
    "rules",
    "Rules by incoming device, source and mark route a workload's packets; without a match there is no route.",
    rules,
)
.on(library::POLICY)
.over(variants::one_each);
fn rules(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let first = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    let second = HookCounters::new(ctx, &testbed, P1, variant.attach())?;
    let mark = Some(library::POLICY_MARK);
    for [by_device, by_source, by_mark] in library::POLICY_ADDRS.map(|addrs| addrs.map(|addr| addr.parse::<IpAddr>())) {
        let (by_device, by_source, by_mark) = (by_device?, by_source?, by_mark?);
        let before = (first.counted()?.from, second.counted()?.to);
        for (what, from, to, mark, wanted) in [
            ("iif, from the first workload", "w0", by_device, None, true),
            ("iif, from the node itself", "host", by_device, None, false),
            ("source, from the first workload", "w0", by_source, None, true),
            ("source, from the node itself", "host", by_source, None, false),
            ("mark, from the node itself", "host", by_mark, mark, true),
            ("mark, unmarked", "host", by_mark, None, false),
            // The mark is set by the sender, and is not kept across namespaces.
            ("mark, from the first workload", "w0", by_mark, mark, false),
        ] {
            let arrived = arrives(ctx, &testbed, from, to, mark, wanted)?;
            ctx.equal(format!("{to} by {what}: arrives"), arrived, wanted);
        }
        let name = format!("packets that left the first workload and entered the second ({by_device})");
        ctx.becomes(name, (3, 3), || Ok((first.counted()?.from - before.0, second.counted()?.to - before.1)))?;
    }
    Trip::control(ctx, "w0", "w1").passes(ctx, &testbed, &[&first, &second])
}
