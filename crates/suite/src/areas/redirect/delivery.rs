//! bpf_redirect, bpf_redirect_peer and bpf_redirect_neigh, from every hook.
//!
//! Cases check which programs a packet runs on its way, not only its arrival: redirecting into the peer bypasses the
//! destination's own program, and therefore its policy.

use lab_bpf::{Config, Mprog, Program, ProgramKind};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows,
    testbed::{P0, P1, Spot, Testbed, UNTYPED},
    variants,
};
use lab_protocol::{AttachRequest, Capability, DeviceKind, Hook, LinkKind};
use lab_topology::{Family, library, link};
use lab_traffic::Proto;
use std::sync::Arc;

/// In the order in which they run.
pub const CASES: &[Case] = &[
    REDIRECT_TO_POD,
    REDIRECT_PEER,
    REDIRECT_PEER_FROM_NETKIT,
    REDIRECT_NEIGH,
    PRIMARY_REDIRECTS_IN_THE_POD,
    FOREIGN_ADDRESS_INTO_L3,
    REDIRECT_TO_NOWHERE,
    FOREIGN_ADDRESS_INTO_L2,
    REDIRECT_COUNTERS,
];

/// tc and tcx, on every device: the hooks that skb_do_redirect() treats as ingress.
pub fn from_ingress() -> Vec<Variant> {
    variants::mechanisms().into_iter().filter(|variant| variant.attach != Some(AttachRequest::Netkit)).collect()
}

/// A program at the first pod that sends marked packets to the second.
pub fn steer(ctx: &Ctx, testbed: &Testbed, kind: ProgramKind, target_ifindex: u32) -> Result<Arc<Program>, Stop> {
    // Felix writes the link-layer addresses when it forwards by FIB; an L3 netkit has none to write.
    let eth_dst = testbed.net.readback("w1", "eth0")?.mac.unwrap_or_default();
    testbed.load(ctx, P0, kind, Config { target_ifindex, eth_dst, ..Config::new(ctx.marker) })
}

/// Redirects from w0 to w1 with the helper, and returns the number of packets of one UDP flow that w1's own program
/// counted.
pub fn redirected(ctx: &mut Ctx, kind: ProgramKind) -> Result<(Testbed, Arc<Program>, Arc<Program>), Stop> {
    let testbed = ctx.testbed()?;
    let steering = steer(ctx, &testbed, kind, testbed.ifindex(P1))?;
    let own = testbed.counter(ctx, P1)?;
    Ok((testbed, steering, own))
}

/// Every flow passes from w0 to w1; for ICMP and UDP, `own` programs run per exchange.
pub fn delivered(
    ctx: &mut Ctx,
    testbed: &Testbed,
    steering: &Program,
    own: &Program,
    meets_own: bool,
) -> Result<(), Stop> {
    for (proto, family) in flows::all() {
        let before = (steering.stats()?.marked, own.stats()?.marked);
        testbed.flow_passes(ctx, "w0", "w1", proto, family);
        let (steered, met) = (steering.stats()?.marked - before.0, own.stats()?.marked - before.1);
        let name = format!("packets that ran the pod's own program ({proto}, {family})");
        ctx.check(format!("the helper redirected the flow ({proto}, {family})"), steered > 0, steered);
        ctx.equal(name, met, if meets_own { steered } else { 0 });
    }
    Ok(())
}

const REDIRECT_TO_POD: Case = Case::new(
    "R01",
    "redirect-to-pod",
    "bpf_redirect to the other pod's device on the node delivers, and that pod's own program runs once per packet.",
    redirect_to_pod,
)
.on(library::PODS)
.over(variants::mechanisms);
fn redirect_to_pod(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let (testbed, steering, own) = redirected(ctx, ProgramKind::Redirect)?;
    let _steering = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
    let _own = testbed.attach(ctx, P1, variant.attach(), Direction::ToWorkload, &own)?;
    delivered(ctx, &testbed, &steering, &own, true)
}

const REDIRECT_NEIGH: Case = Case::new(
    "R04",
    "redirect-neigh",
    "bpf_redirect_neigh to the other pod's device on the node delivers, and fills in the link-layer addresses.",
    redirect_neigh,
)
.on(library::PODS)
.over(variants::mechanisms);
fn redirect_neigh(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let (testbed, steering, own) = redirected(ctx, ProgramKind::RedirectNeigh)?;
    let _steering = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
    let _own = testbed.attach(ctx, P1, variant.attach(), Direction::ToWorkload, &own)?;
    delivered(ctx, &testbed, &steering, &own, true)
}

const REDIRECT_PEER: Case = Case::new(
    "R02",
    "redirect-peer",
    "bpf_redirect_peer from clsact or tcx ingress delivers into the pod and bypasses the pod's own program.",
    redirect_peer,
)
.on(library::PODS)
.over(from_ingress);
/// The pod's own program must be attached and working: a flow before the redirection is the control.
fn redirect_peer(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let (testbed, steering, own) = redirected(ctx, ProgramKind::RedirectPeer)?;
    let _own = testbed.attach(ctx, P1, variant.attach(), Direction::ToWorkload, &own)?;
    testbed.flow_passes(ctx, "w0", "w1", Proto::Udp, Family::V4);
    ctx.check("the pod's own program sees routed packets", own.stats()?.marked > 0, own.stats()?.marked);
    let _steering = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
    delivered(ctx, &testbed, &steering, &own, false)
}

const REDIRECT_PEER_FROM_NETKIT: Case = Case::new(
    "R03",
    "redirect-peer-from-netkit",
    "bpf_redirect_peer from a netkit program drops silently: netkit runs on transmit, and the helper requires tc ingress.",
    redirect_peer_from_netkit,
)
.on(library::PODS)
.over(variants::netkit_native);
fn redirect_peer_from_netkit(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let (testbed, steering, own) = redirected(ctx, ProgramKind::RedirectPeer)?;
    let _own = testbed.attach(ctx, P1, variant.attach(), Direction::ToWorkload, &own)?;
    testbed.passes(ctx, "w0", "w1")?;
    let met = own.stats()?.marked;
    let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
    testbed.blocked(ctx, "w0", "w1");
    ctx.check("the helper ran", steering.stats()?.marked > 0, steering.stats()?.marked);
    ctx.equal("packets that ran the pod's own program", own.stats()?.marked - met, 0);
    attachment.detach()?;
    let plain = steer(ctx, &testbed, ProgramKind::Redirect, testbed.ifindex(P1))?;
    let _plain = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &plain)?;
    delivered(ctx, &testbed, &plain, &own, true)
}

const PRIMARY_REDIRECTS_IN_THE_POD: Case = Case::new(
    "R07",
    "primary-redirects-in-the-pod",
    "A PRIMARY program's redirect uses indexes of the pod: a node's index fails, a pod's device transmits.",
    primary_redirects_in_the_pod,
)
.on(library::PODS)
.over(variants::netkit_native)
.needs(&[Capability::Dummy, Capability::Tcx]);
fn primary_redirects_in_the_pod(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let pod = testbed.net.ns("w0");
    link::create_dummy(pod, "sink")?;
    link::set_up(pod, "sink")?;
    let sink = link::info(pod, "sink")?.ifindex;
    // Programs count the flow's packets only: devices count listener reports and neighbour discovery too.
    let left = ctx.programs.load(ProgramKind::Count, &Config::new(ctx.marker), &UNTYPED)?;
    let _left = pod.run(|| lab_bpf::attach_link(Hook::TcxEgress, sink, &left, &Mprog::default()))?;
    let (witness, p1) = (testbed.counter(ctx, P1)?, testbed.ifindex(P1));
    let _watch = testbed.run(P1, || lab_bpf::attach_link(Hook::NetkitPrimary, p1, &*witness, &Mprog::default()))?;
    for (name, target, wanted) in
        [("the node's p1", testbed.ifindex(P1), 0), ("the pod's dummy", sink, u64::from(flows::EXCHANGES))]
    {
        let config = Config { target_ifindex: target, ..Config::new(ctx.marker) };
        let program = testbed.load(ctx, P0, ProgramKind::Redirect, config)?;
        let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::ToWorkload, &program)?;
        let before = (witness.stats()?.marked, left.stats()?.marked);
        let report = testbed.silence(ctx, "host", "w0", Proto::Udp, Family::V4);
        ctx.check(format!("{name}: the workload receives nothing"), report.lost(), &report);
        ctx.equal(
            format!("{name}: packets that left through the dummy device"),
            left.stats()?.marked - before.1,
            wanted,
        );
        let strayed = witness.stats()?.marked - before.0;
        ctx.equal(format!("{name}: packets at the other pod"), strayed, 0);
        attachment.detach()?;
    }
    testbed.flow_passes(ctx, "host", "w0", Proto::Udp, Family::V4);
    Ok(())
}

const FOREIGN_ADDRESS_INTO_L3: Case = Case::new(
    "R09",
    "foreign-address-into-l3",
    "A veth pod's packet redirected into an L3 netkit is PACKET_OTHERHOST and lost; redirect_neigh delivers it.",
    foreign_address_into_l3,
)
.on(library::MIXED)
.over(|| vec![Variant { attach: Some(AttachRequest::Tcx), ..Variant::default() }])
.needs(&[Capability::Netkit]);
fn foreign_address_into_l3(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const L3: Spot = Spot { node: "host", dev: "p2" };
    let testbed = ctx.testbed()?;
    let kind = testbed.net.readback("w2", "eth0")?.kind;
    ctx.equal("the third workload's link", kind, DeviceKind::NetkitL3);
    let target = Config { target_ifindex: testbed.ifindex(L3), ..Config::new(ctx.marker) };
    let plain = testbed.load(ctx, P0, ProgramKind::Redirect, target)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &plain)?;
    testbed.blocked(ctx, "w0", "w2");
    ctx.becomes("the helper ran", true, || Ok(plain.stats()?.marked > 0))?;
    attachment.detach()?;
    let neigh = testbed.load(ctx, P0, ProgramKind::RedirectNeigh, target)?;
    let _attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &neigh)?;
    testbed.passes(ctx, "w0", "w2")
}

const REDIRECT_TO_NOWHERE: Case = Case::new(
    "R14",
    "redirect-to-nowhere",
    "Redirecting to an index without a device or to a device that is down drops packets; without it traffic passes.",
    redirect_to_nowhere,
)
.on(library::PODS)
.over(variants::mechanisms)
.needs(&[Capability::Dummy]);
fn redirect_to_nowhere(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const NOWHERE: u32 = 4_000;
    let testbed = ctx.testbed()?;
    link::create_dummy(testbed.net.ns("host"), "down0")?;
    let down = link::info(testbed.net.ns("host"), "down0")?.ifindex;
    for (name, target) in [("no such index", NOWHERE), ("a device that is down", down)] {
        let program = steer(ctx, &testbed, ProgramKind::Redirect, target)?;
        let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
        let report = testbed.silence(ctx, "w0", "w1", Proto::Udp, Family::V4);
        ctx.check(format!("{name}: dropped"), report.lost(), &report);
        let name = format!("{name}: packets that the program redirected");
        ctx.becomes(name, report.wanted.into(), || Ok(program.stats()?.marked))?;
        attachment.detach()?;
    }
    testbed.flow_passes(ctx, "w0", "w1", Proto::Udp, Family::V4);
    Ok(())
}

const FOREIGN_ADDRESS_INTO_L2: Case = Case::new(
    "R15",
    "foreign-address-into-l2",
    "A packet that is redirected with another host's link-layer address is not received, with its own address it is.",
    foreign_address_into_l2,
)
.on(library::PODS)
.over(|| {
    let on = |device| Variant { device: Some(device), attach: Some(AttachRequest::Tc), ..Variant::default() };
    vec![on(LinkKind::Veth), on(LinkKind::NetkitL2)]
});
fn foreign_address_into_l2(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 9];
    let testbed = ctx.testbed()?;
    let own = testbed.net.readback("w1", "eth0")?.mac.unwrap_or_default();
    for (eth_dst, arrives) in [(NOBODY, false), (own, true)] {
        let config = Config { target_ifindex: testbed.ifindex(P1), eth_dst, ..Config::new(ctx.marker) };
        let program = testbed.load(ctx, P0, ProgramKind::Redirect, config)?;
        let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
        if arrives {
            testbed.flow_passes(ctx, "w0", "w1", Proto::Udp, Family::V4);
        } else {
            testbed.none_pass(ctx, [("w0", "w1", Proto::Udp, Family::V4), ("w0", "w1", Proto::Icmp, Family::V4)]);
        }
        ctx.becomes("the helper ran", true, || Ok(program.stats()?.marked > 0))?;
        attachment.detach()?;
    }
    Ok(())
}

const REDIRECT_COUNTERS: Case = Case::new(
    "R16",
    "redirect-counters",
    "Packets that bpf_redirect or bpf_redirect_neigh redirects count as sent by the sender's and the node's end, and as \
     received by the receiver's, and by the node's but where netkit redirects.",
    redirect_counters,
)
.on(library::PODS)
.over(variants::mechanisms);
fn redirect_counters(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let ends = [("w0", "eth0", true), ("host", P0.dev, false), ("host", P1.dev, true), ("w1", "eth0", false)];
    let counts = || {
        let mut counts = [0; 4];
        for (count, (node, dev, sends)) in counts.iter_mut().zip(ends) {
            let stats = link::stats(testbed.net.ns(node), dev)?;
            *count = if sends { stats.tx_packets } else { stats.rx_packets };
        }
        Ok::<_, Stop>(counts)
    };
    for kind in [ProgramKind::Redirect, ProgramKind::RedirectNeigh] {
        let steering = steer(ctx, &testbed, kind, testbed.ifindex(P1))?;
        let attached = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
        let before = counts()?;
        testbed.flow_passes(ctx, "w0", "w1", Proto::Udp, Family::V4);
        let (after, sent) = (counts()?, steering.stats()?.marked);
        let seen: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        // The kernel's own packets count too. A netkit device redirects before its peer counts (netkit_xmit()).
        let by_peer = if variant.attach() == AttachRequest::Netkit { seen[1] < sent } else { seen[1] >= sent };
        let all = by_peer && [0, 2, 3].into_iter().all(|end| seen[end] >= sent);
        let all = all && sent == u64::from(flows::EXCHANGES);
        ctx.check(format!("{}: counted at the four ends", kind.name()), all, format!("{seen:?}, at least {sent}"));
        attached.detach()?;
    }
    Ok(())
}
