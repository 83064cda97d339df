//! Where routing decides by more than the destination: rules and VRFs.
//!
//! netkit's PEER programs see an ingress_ifindex of 0, and the packet still arrives by the primary: rules about the
//! incoming device must match it like that of a veth.

use crate::{
    bench::{Bench, P0, P1, Spot},
    case::{Area, Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
    trip::{Trip, Watch},
    variants,
};
use lab_topology::library;
use lab_traffic::{SILENCE_WINDOW, UdpProbe, UdpSink};
use std::net::{IpAddr, SocketAddr};

pub const CASES: &[Case] = &[
    Case::new(
        "T14",
        "vrf",
        Area::Traffic,
        "vrf",
        "A workload in one VRF reaches a server in another through leaked routes, both ways.",
        vrf,
    )
    .over(variants::one_each),
    Case::new(
        "T14",
        "rules",
        Area::Traffic,
        "policy",
        "Rules by incoming device, source and mark decide where a workload's packets go; without a match there is no way.",
        rules,
    )
    .over(variants::one_each),
];

fn vrf(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::on(library::vrf, variant.device())?;
    let watch = Watch::new(ctx, &bench, Spot { node: "r1", dev: "p0" }, variant.attach())?;
    Trip::new(ctx, "h1", "h2").passes(ctx, &bench, &[&watch])?;
    Trip::new(ctx, "h2", "h1").passes(ctx, &bench, &[&watch])
}

/// One datagram to an address of the second workload; gives whether it arrived.
fn arrives(ctx: &Ctx, bench: &Bench, from: &str, to: IpAddr, mark: Option<u32>, wanted: bool) -> Result<bool, Stop> {
    ctx.watch(&bench.net, [from, "w1"]);
    let to = SocketAddr::new(to, ctx.marker);
    let sink = UdpSink::bind(bench.net.ns("w1"), to)?;
    let patience = if wanted { ctx.patience(2_000) } else { SILENCE_WINDOW };
    // Without a route the kernel may say so at once; that is as good as silence.
    let sent = UdpProbe::connect_marked(bench.net.ns(from), to, mark).and_then(|probe| probe.send(b"by rule"));
    Ok(match sent {
        Ok(()) => sink.receive(patience).is_some(),
        Err(_) if !wanted => false,
        Err(error) => return Err(error.into()),
    })
}

fn rules(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::on(library::policy, variant.device())?;
    let first = Watch::new(ctx, &bench, P0, variant.attach())?;
    let second = Watch::new(ctx, &bench, P1, variant.attach())?;
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
            // The mark is the sender's: it does not cross into another namespace.
            ("mark, from the first workload", "w0", by_mark, mark, false),
        ] {
            let arrived = arrives(ctx, &bench, from, to, mark, wanted)?;
            ctx.equal(format!("{to} by {what}: arrives"), arrived, wanted);
        }
        let after = (first.counted()?.from, second.counted()?.to);
        ctx.equal(
            format!("packets that left the first workload and entered the second ({by_device})"),
            (after.0 - before.0, after.1 - before.1),
            (3, 3),
        );
    }
    Trip::control(ctx, "w0", "w1").passes(ctx, &bench, &[&first, &second])
}
