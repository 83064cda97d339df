//! Effects of redirecting besides delivery: flags, counters, scrubbing, loops.

use super::delivery::{delivered, from_ingress, redirected, steer};
use lab_bpf::{BpfError, Config, Program, ProgramKind, probe::BPF_F_EGRESS};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows,
    testbed::{P0, P1, Spot, Testbed},
    variants,
};
use lab_protocol::{AttachRequest, Capability, KernelVersion, capability::Since};
use lab_topology::{Family, library, link};
use lab_traffic::Proto;

/// In the order in which they run.
pub const CASES: &[Case] = &[REDIRECT_PEER_EGRESS, REDIRECT_PEER_SCRUBS, REDIRECT_PEER_COUNTS, REDIRECT_LOOP];

const REDIRECT_PEER_EGRESS: Case = Case::new("R06", "redirect-peer-egress", "bpf_redirect_peer with BPF_F_EGRESS from netkit transmits from the other pod where supported, and otherwise drops.", redirect_peer_egress).on(library::PODS).over(variants::netkit_native);
fn redirect_peer_egress(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const DROP: i32 = 2;
    let testbed = ctx.testbed()?;
    // The other pod sends to its own gateway's address; an L3 netkit has none.
    let eth_dst = testbed.net.readback("host", P1.dev)?.mac.unwrap_or_default();
    let flags = Config { target_ifindex: testbed.ifindex(P1), redirect_flags: BPF_F_EGRESS, ..Config::new(ctx.marker) };
    let steering = testbed.load(ctx, P0, ProgramKind::RedirectPeer, Config { eth_dst, ..flags })?;
    let (from, to) = (testbed.counter(ctx, P1)?, testbed.counter(ctx, P1)?);
    let _from = testbed.attach(ctx, P1, variant.attach(), Direction::FromWorkload, &from)?;
    let _to = testbed.attach(ctx, P1, variant.attach(), Direction::ToWorkload, &to)?;
    testbed.flow_passes(ctx, "w0", "w1", Proto::Udp, Family::V4);
    let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
    if ctx.capabilities.has(Capability::RedirectPeerEgress) {
        return sent_by_the_other_pod(ctx, &testbed, [&steering, &from, &to]);
    }
    let report = testbed.silence(ctx, "w0", "w1", Proto::Udp, Family::V4);
    ctx.check("dropped", report.lost(), &report);
    let stats = steering.stats()?;
    ctx.equal("packets that the program redirected", stats.marked, u64::from(report.wanted));
    ctx.equal("return value of the helper", stats.last.verdict, DROP);
    attachment.detach()?;
    testbed.flow_passes(ctx, "w0", "w1", Proto::Udp, Family::V4);
    Ok(())
}

/// "bpf: Support BPF_F_EGRESS with bpf_redirect_peer": the packet leaves by the *egress* of the target's peer, as if
/// the other pod had sent it. It runs that pod's PEER program, and arrives at the node by its link.
fn sent_by_the_other_pod(ctx: &mut Ctx, testbed: &Testbed, [steering, from, to]: [&Program; 3]) -> CaseResult {
    for (proto, family) in flows::all() {
        let counts = || Ok::<_, BpfError>([steering.stats()?.marked, from.stats()?.marked, to.stats()?.marked]);
        let before = counts()?;
        // To the node itself, which answers the sender through the sender's link.
        testbed.flow_passes(ctx, "w0", "host", proto, family);
        let now = counts()?;
        let [steered, sent, received] = [0, 1, 2].map(|at: usize| now[at] - before[at]);
        let flow = format!("{proto}, {family}");
        match proto {
            Proto::Tcp => ctx.check(format!("the helper redirected the flow ({flow})"), steered >= 3, steered),
            _ => ctx.equal(format!("the helper redirected the flow ({flow})"), steered, flows::EXCHANGES.into()),
        };
        ctx.equal(format!("packets of the other pod's program for sent packets ({flow})"), sent, steered);
        ctx.equal(format!("packets of the other pod's program for received packets ({flow})"), received, 0);
    }
    Ok(())
}

/// The version since which the helper scrubs; before, the packet type stays that of the node's end.
const SCRUBS: Since = Since {
    mainline: KernelVersion::new(6, 15, 0),
    backports: &[KernelVersion::new(6, 12, 29), KernelVersion::new(6, 1, 139)],
    source: "bpf: Scrub packet on bpf_redirect_peer",
};

const REDIRECT_PEER_SCRUBS: Case = Case::new(
    "R11",
    "redirect-peer-scrubs",
    "bpf_redirect_peer scrubs: a packet that was PACKET_OTHERHOST on the node's end is delivered to the pod.",
    redirect_peer_scrubs,
)
.on(library::PODS)
.over(from_ingress);
fn redirect_peer_scrubs(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const PACKET_OTHERHOST: u32 = 3;
    let (testbed, steering, own) = redirected(ctx, ProgramKind::RedirectPeer)?;
    if testbed.net.readback("host", P0.dev)?.mac == Some([0; 6]) {
        // Without link-layer addresses no packet is for another host; the case then only checks that traffic passes.
        let _steering = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
        return delivered(ctx, &testbed, &steering, &own, false);
    }
    // The pod still sends to its permanent neighbour's address.
    link::set_mac(testbed.net.ns("host"), P0.dev, OTHER)?;
    let report = testbed.silence(ctx, "w0", "w1", Proto::Udp, Family::V4);
    ctx.check("another host's packets are not forwarded", report.lost(), &report);
    let _steering = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
    // One way: the answers are forwarded by the node, to the address that the pod's end really has.
    let Some(scrubs) = ctx.capabilities.has_change(&SCRUBS) else {
        ctx.log("not checked: it is unknown whether this kernel scrubs the packet type, because kernels.toml does not believe its version");
        return Ok(());
    };
    let report = match scrubs {
        true => testbed.flow(ctx, "w0", "w1", Proto::Udp, Family::V4),
        false => testbed.silence(ctx, "w0", "w1", Proto::Udp, Family::V4),
    };
    ctx.becomes("packet type on the node's end", PACKET_OTHERHOST, || Ok(steering.stats()?.last.pkt_type))?;
    ctx.equal("delivered to the pod", report.delivered, if scrubs { report.wanted } else { 0 });
    Ok(())
}

const REDIRECT_PEER_COUNTS: Case = Case::new(
    "R12",
    "redirect-peer-counts",
    "Packets that bpf_redirect_peer delivers are counted as received by the pod's end.",
    redirect_peer_counts,
)
.on(library::PODS)
.over(from_ingress);
fn redirect_peer_counts(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let (testbed, steering, own) = redirected(ctx, ProgramKind::RedirectPeer)?;
    let _steering = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
    let received = || link::stats(testbed.net.ns("w1"), "eth0").map(|stats| stats.rx_packets);
    for (proto, family) in flows::all().filter(|(proto, _)| *proto != Proto::Tcp) {
        let before = (received()?, steering.stats()?.marked);
        testbed.flow_passes(ctx, "w0", "w1", proto, family);
        let steered = steering.stats()?.marked - before.1;
        let counted = received()? - before.0;
        ctx.equal(format!("{proto} over {family}: packets that the helper steered"), steered, flows::EXCHANGES.into());
        // Neighbour discovery and listener reports may add to it.
        ctx.check(format!("{proto} over {family}: packets that the pod's end received"), counted >= steered, counted);
    }
    ctx.equal("packets that ran the pod's own program", own.stats()?.marked, 0);
    Ok(())
}

const REDIRECT_LOOP: Case = Case::new(
    "R13",
    "redirect-loop",
    "A packet that two programs redirect to each other's device is dropped after a bounded number of redirects.",
    redirect_loop,
)
.on(library::PODS)
.over(variants::usual_mechanisms);
fn redirect_loop(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    /// More redirects than any limit of the kernel allows (`XMIT_RECURSION_LIMIT`, 8).
    const MOST: u64 = 32;
    let testbed = ctx.testbed()?;
    testbed.flow_passes(ctx, "host", "w0", Proto::Udp, Family::V4);
    let native = variant.attach() == AttachRequest::Netkit;
    // From a node's egress hook, the other device's is one redirect away. A PRIMARY program redirects within the pod:
    // to the pod's own end, whose PEER program sends the packet back.
    let there = if native { testbed.net.ifindex("w0", "eth0") } else { testbed.ifindex(P1) };
    let (back_at, direction): (Spot, _) =
        if native { (P0, Direction::FromWorkload) } else { (P1, Direction::ToWorkload) };
    let first =
        testbed.load(ctx, P0, ProgramKind::Redirect, Config { target_ifindex: there, ..Config::new(ctx.marker) })?;
    let second = steer(ctx, &testbed, ProgramKind::Redirect, testbed.ifindex(P0))?;
    let links = [
        testbed.attach(ctx, P0, variant.attach(), Direction::ToWorkload, &first)?,
        testbed.attach(ctx, back_at, variant.attach(), direction, &second)?,
    ];
    let report = testbed.silence(ctx, "host", "w0", Proto::Udp, Family::V4);
    ctx.check("the packet is dropped", report.lost(), &report);
    let turns = || Ok::<_, Stop>([first.stats()?.marked, second.stats()?.marked]);
    ctx.becomes("both programs redirected it", true, || Ok(turns()?.iter().all(|turns| *turns > 0)))?;
    let turns = turns()?;
    let most = MOST * u64::from(report.wanted);
    ctx.check("a bounded number of times", turns.iter().all(|turns| *turns <= most), format!("{turns:?}"));
    for link in links {
        link.detach()?;
    }
    testbed.flow_passes(ctx, "host", "w0", Proto::Udp, Family::V4);
    Ok(())
}
