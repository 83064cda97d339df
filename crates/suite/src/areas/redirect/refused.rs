//! What the redirect helpers accept from a program and then drop: skb_do_redirect() and __bpf_redirect_neigh().

use super::delivery::from_ingress;
use crate::areas::ifindex::crossing::datagram;
use lab_bpf::{Config, ProgramKind, TcOptions};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::Ctx,
    testbed::{P0, P1, Spot},
    variants,
};
use lab_protocol::{AttachRequest, Capability, LinkKind};
use lab_topology::{End, Family, Template, Topology, library, link};
use lab_traffic::{UdpProbe, send_frame};
use std::net::{Ipv4Addr, SocketAddr};

/// In the order in which they run.
pub const CASES: &[Case] = &[NEIGH_DROPS, PEER_DROPS];

const ETH_P_IP: u16 = 0x0800;

const NEIGH_DROPS: Case = Case::new(
    "R26",
    "neigh-drops",
    "bpf_redirect_neigh drops frames that are for a group and packets that are for every host, and sends others.",
    neigh_drops,
)
.on(library::PODS)
.over(variants::usual_mechanisms);
fn neigh_drops(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    /// The link-layer address of IPv4's all-hosts group (RFC 1112, 6.4).
    const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];
    let testbed = ctx.testbed()?;
    let config = Config { target_ifindex: testbed.ifindex(P1), ..Config::new(ctx.marker) };
    let steering = testbed.load(ctx, P0, ProgramKind::RedirectNeigh, config)?;
    let own = testbed.counter(ctx, P1)?;
    let _steering = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
    let _own = testbed.attach(ctx, P1, variant.attach(), Direction::ToWorkload, &own)?;
    let node = testbed.net.readback("host", P0.dev)?.mac.unwrap_or_default();
    let (from, to) = (testbed.net.addr4("w0"), testbed.net.addr4("w1"));
    let out = testbed.net.ifindex("w0", "eth0");
    // The last one is the control: what was sent before it would arrive before it.
    for (number, (what, frame, packet)) in (1..).zip([
        ("a frame for a group", GROUP, to),
        ("a packet for every host", node, Ipv4Addr::BROADCAST),
        ("a packet for the second workload", node, to),
    ]) {
        send_frame(testbed.net.ns("w0"), out, frame, ETH_P_IP, &datagram(from, packet, ctx.marker))?;
        ctx.becomes(format!("{what}: packets redirected"), number, || Ok(steering.stats()?.marked))?;
    }
    ctx.becomes("packets that leave for the second workload", 1, || Ok(own.stats()?.marked))?;
    Ok(())
}

/// Both ends on the node.
const NEAR: Spot = Spot { node: "host", dev: "q0" };
const FAR: Spot = Spot { node: "host", dev: "q1" };

fn with_pair(kind: LinkKind) -> Topology {
    library::PODS.of(kind).link(LinkKind::Veth, End::new(NEAR.node, NEAR.dev), End::new(FAR.node, FAR.dev))
}

const PEER_DROPS: Case = Case::new(
    "R27",
    "peer-drops",
    "bpf_redirect_peer drops where the peer is in the same namespace or down, and delivers when it is up again.",
    peer_drops,
)
.on(Template::new("pods-and-pair", "Two workloads on a host, and a veth pair with both ends on the host.", with_pair))
.over(from_ingress)
.needs(&[Capability::Clsact]);
fn peer_drops(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const INSIDE: Spot = Spot { node: "w1", dev: "eth0" };
    let testbed = ctx.testbed()?;
    let pod = testbed.net.ns(INSIDE.node);
    let to = SocketAddr::new(testbed.net.addr("w1", Family::V4), ctx.marker);
    let steered = |ctx: &mut Ctx, kind, target: Spot, what: &str| {
        let target_ifindex = testbed.ifindex(target);
        let steering = testbed.load(ctx, P0, kind, Config { target_ifindex, ..Config::new(ctx.marker) })?;
        let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
        UdpProbe::connect(testbed.net.ns("w0"), to)?.send(b"for the peer")?;
        ctx.becomes(format!("{what}: packets redirected"), 1, || Ok(steering.stats()?.marked))?;
        attachment.detach()
    };
    let (far, inside) = (testbed.counter(ctx, FAR)?, testbed.counter(ctx, INSIDE)?);
    let far_filter = testbed.filter(FAR, Direction::FromWorkload, &far, TcOptions::default())?;
    let inside_filter = testbed.filter(INSIDE, Direction::FromWorkload, &inside, TcOptions::default())?;
    for (spot, program) in [(FAR, &far), (INSIDE, &inside)] {
        testbed.report(ctx, spot, AttachRequest::Tc, program.id(), Some(program.clone()))?;
    }
    steered(ctx, ProgramKind::RedirectPeer, NEAR, "to a peer in the same namespace")?;
    // What was sent before it would arrive before it.
    steered(ctx, ProgramKind::Redirect, NEAR, "to the pair itself")?;
    ctx.becomes("packets at the other end of the pair", 1, || Ok(far.stats()?.marked))?;
    link::set_down(pod, INSIDE.dev)?;
    steered(ctx, ProgramKind::RedirectPeer, P1, "to a peer that is down")?;
    link::set_up(pod, INSIDE.dev)?;
    steered(ctx, ProgramKind::RedirectPeer, P1, "to a peer that is up again")?;
    ctx.becomes("packets in the second workload", 1, || Ok(inside.stats()?.marked))?;
    far_filter.detach()?;
    inside_filter.detach()?;
    Ok(())
}
