//! What a program hands on besides its verdict, and what clsact counts of it.

use lab_bpf::{Config, ProgramKind, STAMP_MARK, STAMP_PRIORITY, STAMP_QUEUE};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, Spot},
    variants,
};
use lab_protocol::{AttachRequest, LinkKind};
use lab_topology::{Family, library};
use lab_traffic::{Proto, UdpProbe, UdpSink};
use std::net::SocketAddr;

/// In the order in which they run.
pub const CASES: &[Case] = &[CLASS_AND_QUEUE, CLSACT_COUNTS, MARK_AND_PRIORITY];

/// The workload's own end.
const ETH0: Spot = Spot { node: "pod", dev: "eth0" };
const PASS: i32 = 0;

const CLASS_AND_QUEUE: Case = Case::new(
    "V21",
    "class-and-queue",
    "tc_classid of a program that passes becomes tc_index behind clsact and tcx only; its queue_mapping stays behind netkit only.",
    class_and_queue,
)
.on(library::PAIR)
.over(variants::one_each);
fn class_and_queue(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const CLASS: u32 = 0x65;
    let testbed = ctx.testbed()?;
    let behind = testbed.counter(ctx, ETH0)?;
    let inside = if variant.attach() == AttachRequest::Tc { AttachRequest::Tc } else { AttachRequest::Tcx };
    let _behind = testbed.attach(ctx, ETH0, inside, Direction::FromWorkload, &behind)?;
    testbed.flow_passes(ctx, "host", "pod", Proto::Udp, Family::V4);
    let last = behind.stats()?.last;
    ctx.equal("tc_index and queue_mapping without the program", (last.tc_index, last.queue_mapping), (0, 0));
    let config = Config { number: CLASS, verdict: PASS, ..Config::new(ctx.marker) };
    let program = testbed.load(ctx, P0, ProgramKind::Stamp, config)?;
    let _program = testbed.attach(ctx, P0, variant.attach(), Direction::ToWorkload, &program)?;
    testbed.flow_passes(ctx, "host", "pod", Proto::Udp, Family::V4);
    // tc_run() and tcx_run() make it tc_index; netkit_run() has no such thing.
    let class = if variant.attach() == AttachRequest::Netkit { 0 } else { CLASS };
    let last = behind.stats()?.last;
    ctx.equal("tc_index in the pod", last.tc_index, class);
    // Behind clsact and tcx the stack chooses the queue (netdev_core_pick_tx()); netkit's program runs after that.
    let queue = if variant.attach() == AttachRequest::Netkit { STAMP_QUEUE } else { 0 };
    ctx.equal("queue_mapping in the pod", last.queue_mapping, queue);
    Ok(())
}

const CLSACT_COUNTS: Case = Case::new(
    "V22",
    "clsact-counts",
    "clsact counts the packets and bytes that its filters see, and of these the SHOT ones as drops, not the STOLEN ones.",
    clsact_counts,
)
.on(library::PAIR)
.over(|| variants::tc_hooks().into_iter().filter(|variant| variant.device() == LinkKind::Veth).collect());
fn clsact_counts(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const SENT: u64 = 20;
    /// Payload, UDP and IPv4; at ingress the length is that from the network header on (`sch_handle_ingress()`).
    const BYTES: u64 = 100 + 8 + 20;
    let testbed = ctx.testbed()?;
    let (from, to) = variant.direction().ends("pod", "host");
    let ifindex = testbed.ifindex(P0);
    let counted = || {
        let qdiscs = testbed.run(P0, || lab_bpf::qdiscs(ifindex))?;
        Ok::<_, Stop>(qdiscs.iter().find(|qdisc| qdisc.kind == "clsact").map_or([0; 3], |qdisc| qdisc.counted))
    };
    let to = SocketAddr::new(testbed.net.addr(to, Family::V4), ctx.marker);
    let _sink = UdpSink::bind(testbed.net.ns(if from == "pod" { "host" } else { "pod" }), to)?;
    let probe = UdpProbe::connect(testbed.net.ns(from), to)?;
    // STOLEN and TRAP take the packet too, and are no drops.
    for (what, verdict, drops) in
        [("UNSPEC", -1, 0), ("OK", PASS, 0), ("SHOT", 2, SENT), ("STOLEN", 4, 0), ("TRAP", 8, 0)]
    {
        let program = testbed.load(ctx, P0, ProgramKind::Count, Config { verdict, ..Config::new(ctx.marker) })?;
        let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
        let before = counted()?;
        for _ in 0..SENT {
            // An egress hook reports the drop.
            drop(probe.send(&[0; 100]));
        }
        ctx.becomes(format!("{what}: packets at the program"), SENT, || Ok(program.stats()?.marked))?;
        let after = counted()?;
        let [packets, bytes, dropped] = std::array::from_fn(|at| after[at] - before[at]);
        // The kernel's own packets pass the qdisc too.
        let few = (SENT..2 * SENT).contains(&packets) && bytes >= SENT * BYTES;
        ctx.check(format!("{what}: packets and bytes of clsact"), few, format!("{packets}, {bytes} bytes"));
        ctx.equal(format!("{what}: drops of clsact"), dropped, drops);
        attachment.detach()?;
    }
    Ok(())
}

const MARK_AND_PRIORITY: Case = Case::new(
    "V24",
    "mark-and-priority",
    "What a program writes to mark and priority is what the next program of the hook reads.",
    mark_and_priority,
)
.on(library::PAIR)
.over(variants::hooks);
fn mark_and_priority(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let writer = testbed.load(ctx, P0, ProgramKind::Stamp, Config::new(ctx.marker))?;
    let reader = testbed.counter(ctx, P0)?;
    let _writer = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &writer)?;
    let _reader = testbed.attach_behind(ctx, P0, variant.attach(), variant.direction(), &reader)?;
    let (from, to) = variant.direction().ends("pod", "host");
    testbed.flow_passes(ctx, from, to, Proto::Udp, Family::V4);
    let [came, read] = [writer.stats()?.last, reader.stats()?.last];
    ctx.equal("mark and priority at the program that writes them", (came.mark, came.priority), (0, 0));
    ctx.equal("at the next one", (read.mark, read.priority), (STAMP_MARK, STAMP_PRIORITY));
    Ok(())
}
