//! Interface indexes and other packet metadata, hook by hook.

use crate::{
    bench::{Bench, P0, P1, Spot},
    case::{Area, Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    variants,
};
use lab_bpf::Seen;
use lab_protocol::{AttachType, LinkKind};
use lab_topology::{Family, library};
use lab_traffic::Proto;

pub const CASES: &[Case] = &[
    Case::new(
        "G01",
        "skb-ifindex",
        Area::Ifindex,
        "pair",
        "skb->ifindex is the node's device everywhere but in a PRIMARY program, which sees the pod's; host_ifindex is right everywhere.",
        skb_ifindex,
    )
    .over(variants::hooks),
    Case::new(
        "G02",
        "index-collision",
        Area::Ifindex,
        "pods",
        "A PRIMARY program's skb->ifindex can be the number of an unrelated node device; host_ifindex tells them apart.",
        index_collision,
    )
    .over(variants::netkit_native),
    Case::new(
        "G03",
        "ingress-ifindex",
        Area::Ifindex,
        "pods",
        "ingress_ifindex of a forwarded packet is the device it came in by on clsact and tcx, and 0 on netkit.",
        ingress_ifindex,
    )
    .over(variants::mechanisms),
    Case::new(
        "G04",
        "globals-per-attachment",
        Area::Ifindex,
        "pods",
        "Two pods served by one object each see their own host_ifindex.",
        globals_per_attachment,
    )
    .over(variants::mechanisms),
    Case::new(
        "G08",
        "ethernet-header",
        Area::Ifindex,
        "pair",
        "An L3 netkit packet carries an Ethernet header of zeros, every other device the real addresses.",
        ethernet_header,
    )
    .over(variants::hooks),
];

/// Attaches a counter, sends one UDP flow over IPv4, and gives back what the program saw of it.
fn seen_by(ctx: &mut Ctx, bench: &Bench, at: Spot, variant: &Variant, from: &str, to: &str) -> Result<Seen, Stop> {
    let program = bench.counter(ctx, at)?;
    let _attachment = bench.attach(ctx, at, variant.attach(), variant.direction(), &program)?;
    bench.flow_passes(ctx, from, to, Proto::Udp, Family::V4);
    let stats = program.stats()?;
    ctx.require("the program saw the flow", stats.marked > 0, stats.marked)?;
    Ok(stats.last)
}

fn skb_ifindex(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let seen = seen_by(ctx, &bench, P0, variant, "pod", "host")?;
    let (host, pod) = (bench.ifindex(P0), bench.net.ifindex("pod", "eth0"));
    ctx.require("the two ends have different indexes", host != pod, format!("{host} and {pod}"))?;
    let is_primary_program =
        variant.attach() == AttachType::Netkit.into() && variant.direction() == Direction::ToWorkload;
    ctx.equal("skb->ifindex", seen.ifindex, if is_primary_program { pod } else { host });
    ctx.equal("host_ifindex in globals", seen.host_ifindex, host);
    Ok(())
}

fn index_collision(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    // The pod's end gets the number of the other workload's device on the node: both count from 1, so this is common.
    const NUMBER: u32 = 77;
    let mut topology = library::pods(variant.device());
    topology.links[0].peer.ifindex = Some(NUMBER);
    topology.links[1].primary.ifindex = Some(NUMBER);
    let bench = Bench::build(&topology)?;
    ctx.equal("the number of an unrelated node device", bench.ifindex(P1), NUMBER);
    let to_workload = Variant { direction: Some(Direction::ToWorkload), ..*variant };
    let seen = seen_by(ctx, &bench, P0, &to_workload, "host", "w0")?;
    ctx.equal("skb->ifindex names the unrelated device", seen.ifindex, NUMBER);
    ctx.equal("host_ifindex names the workload's", seen.host_ifindex, bench.ifindex(P0));
    Ok(())
}

fn ingress_ifindex(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pods(variant.device())?;
    // From w0 to w1, watched where the packet leaves the node towards w1.
    let to_workload = Variant { direction: Some(Direction::ToWorkload), ..*variant };
    let seen = seen_by(ctx, &bench, P1, &to_workload, "w0", "w1")?;
    let wanted = if variant.attach() == AttachType::Netkit.into() { 0 } else { bench.ifindex(P0) };
    ctx.equal("ingress_ifindex of a forwarded packet", seen.ingress_ifindex, wanted);
    Ok(())
}

fn globals_per_attachment(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pods(variant.device())?;
    let mut watched = Vec::new();
    for spot in [P0, P1] {
        let program = bench.counter(ctx, spot)?;
        let attachment = bench.attach(ctx, spot, variant.attach(), Direction::FromWorkload, &program)?;
        watched.push((spot, program, attachment));
    }
    bench.passes(ctx, "w0", "w1")?;
    for (spot, program, _attachment) in &watched {
        let last = program.stats()?.last;
        ctx.equal(format!("host_ifindex at {}", spot.dev), last.host_ifindex, bench.ifindex(*spot));
    }
    Ok(())
}

fn ethernet_header(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const ETH_P_IP: u32 = 0x0800;
    let bench = Bench::pair(variant.device())?;
    let seen = seen_by(ctx, &bench, P0, variant, "pod", "host")?;
    let mac = |node, dev| bench.net.readback(node, dev).map(|info| info.mac.unwrap_or_default());
    let (host, pod) = (mac("host", "p0")?, mac("pod", "eth0")?);
    let (source, destination) = match variant.direction() {
        Direction::FromWorkload => (pod, host),
        Direction::ToWorkload => (host, pod),
    };
    ctx.equal("source", seen.eth_src, source);
    ctx.equal("destination", seen.eth_dst, destination);
    ctx.equal("EtherType", seen.protocol, ETH_P_IP);
    let zeros = seen.eth_src == [0; 6] && seen.eth_dst == [0; 6];
    ctx.equal("header of zeros", zeros, variant.device() == LinkKind::NetkitL3);
    Ok(())
}
