//! Interface indexes and other packet metadata, hook by hook.

use crate::topologies::{PODS_SAME_IFINDEX, SHARED_IFINDEX};
use lab_bpf::Seen;
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, P1, Spot, Testbed},
    variants,
};
use lab_protocol::{AttachType, LinkKind};
use lab_topology::{Family, library};
use lab_traffic::Proto;

/// In the order in which they run.
pub const CASES: &[Case] = &[SKB_IFINDEX, INDEX_COLLISION, INGRESS_IFINDEX, GLOBALS_PER_ATTACHMENT, ETHERNET_HEADER];

/// Attaches a counter, sends one UDP flow over IPv4, and returns the metadata that the program recorded.
fn seen_by(ctx: &mut Ctx, testbed: &Testbed, at: Spot, variant: &Variant, from: &str, to: &str) -> Result<Seen, Stop> {
    let program = testbed.counter(ctx, at)?;
    let _attachment = testbed.attach(ctx, at, variant.attach(), variant.direction(), &program)?;
    testbed.flow_passes(ctx, from, to, Proto::Udp, Family::V4);
    let stats = program.stats()?;
    ctx.require("the program ran on the flow", stats.marked > 0, stats.marked)?;
    Ok(stats.last)
}

const SKB_IFINDEX: Case = Case::new("G01", "skb-ifindex", "skb->ifindex is the node's device except in a PRIMARY program, where it is the pod's; host_ifindex is always right.", skb_ifindex).on(library::PAIR).over(variants::hooks);
fn skb_ifindex(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let seen = seen_by(ctx, &testbed, P0, variant, "pod", "host")?;
    let (host, pod) = (testbed.ifindex(P0), testbed.net.ifindex("pod", "eth0"));
    ctx.require("the two ends have different indexes", host != pod, format!("{host} and {pod}"))?;
    let is_primary_program =
        variant.attach() == AttachType::Netkit.into() && variant.direction() == Direction::ToWorkload;
    ctx.equal("skb->ifindex", seen.ifindex, if is_primary_program { pod } else { host });
    ctx.equal("host_ifindex in globals", seen.host_ifindex, host);
    Ok(())
}

const INDEX_COLLISION: Case = Case::new(
    "G02",
    "index-collision",
    "A PRIMARY program's skb->ifindex can equal that of an unrelated node device; host_ifindex distinguishes them.",
    index_collision,
)
.on(PODS_SAME_IFINDEX)
.over(variants::netkit_native);
fn index_collision(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    ctx.equal("the index of an unrelated node device", testbed.ifindex(P1), SHARED_IFINDEX);
    let to_workload = Variant { direction: Some(Direction::ToWorkload), ..*variant };
    let seen = seen_by(ctx, &testbed, P0, &to_workload, "host", "w0")?;
    ctx.equal("skb->ifindex is that of the unrelated device", seen.ifindex, SHARED_IFINDEX);
    ctx.equal("host_ifindex is that of the workload", seen.host_ifindex, testbed.ifindex(P0));
    Ok(())
}

const INGRESS_IFINDEX: Case = Case::new(
    "G03",
    "ingress-ifindex",
    "ingress_ifindex of a forwarded packet is its incoming device on clsact and tcx, and 0 on netkit.",
    ingress_ifindex,
)
.on(library::PODS)
.over(variants::mechanisms);
fn ingress_ifindex(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    // From w0 to w1, observed where the packet leaves the node towards w1.
    let to_workload = Variant { direction: Some(Direction::ToWorkload), ..*variant };
    let seen = seen_by(ctx, &testbed, P1, &to_workload, "w0", "w1")?;
    let wanted = if variant.attach() == AttachType::Netkit.into() { 0 } else { testbed.ifindex(P0) };
    ctx.equal("ingress_ifindex of a forwarded packet", seen.ingress_ifindex, wanted);
    Ok(())
}

const GLOBALS_PER_ATTACHMENT: Case = Case::new(
    "G04",
    "globals-per-attachment",
    "Two pods with programs of the same object each have their own host_ifindex.",
    globals_per_attachment,
)
.on(library::PODS)
.over(variants::mechanisms);
fn globals_per_attachment(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let mut watched = Vec::new();
    for spot in [P0, P1] {
        let program = testbed.counter(ctx, spot)?;
        let attachment = testbed.attach(ctx, spot, variant.attach(), Direction::FromWorkload, &program)?;
        watched.push((spot, program, attachment));
    }
    testbed.passes(ctx, "w0", "w1")?;
    for (spot, program, _attachment) in &watched {
        let last = program.stats()?.last;
        ctx.equal(format!("host_ifindex at {}", spot.dev), last.host_ifindex, testbed.ifindex(*spot));
    }
    Ok(())
}

const ETHERNET_HEADER: Case = Case::new(
    "G08",
    "ethernet-header",
    "A packet of an L3 netkit has an Ethernet header of zeros; packets of all other devices have the real addresses.",
    ethernet_header,
)
.on(library::PAIR)
.over(variants::hooks);
fn ethernet_header(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const ETH_P_IP: u32 = 0x0800;
    let testbed = ctx.testbed()?;
    let seen = seen_by(ctx, &testbed, P0, variant, "pod", "host")?;
    let mac = |node, dev| testbed.net.readback(node, dev).map(|info| info.mac.unwrap_or_default());
    let (host, pod) = (mac("host", "p0")?, mac("pod", "eth0")?);
    let (source, destination) = match variant.direction() {
        Direction::FromWorkload => (pod, host),
        Direction::ToWorkload => (host, pod),
    };
    ctx.equal("source", seen.eth_src, source);
    ctx.equal("destination", seen.eth_dst, destination);
    ctx.equal("EtherType", seen.protocol, ETH_P_IP);
    let zeros = seen.eth_src == [0; 6] && seen.eth_dst == [0; 6];
    ctx.equal("Ethernet header is zero", zeros, variant.device() == LinkKind::NetkitL3);
    Ok(())
}
