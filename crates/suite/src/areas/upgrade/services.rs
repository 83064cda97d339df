//! Changing the miniature datapath's mechanism under traffic to a service.

use crate::areas::datapath::node::{DatapathNode, W0};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows, variants,
};
use lab_protocol::{AttachRequest, AttachType, Capability};
use lab_topology::{Family, library};
use lab_traffic::{Proto, UdpStream};

/// In the order in which they run.
pub const CASES: &[Case] = &[DATAPATH_TC_TO_TCX, DATAPATH_TO_NETKIT, TWO_AFTER_A_DOWNGRADE];

const DATAPATH_TC_TO_TCX: Case = Case::new(
    "H03",
    "datapath-tc-to-tcx",
    "Changing the datapath from tc to tcx under traffic to a service loses no packet.",
    tc_to_tcx,
)
.on(library::PODS)
.over(variants::devices)
.needs(&[Capability::Tcx, Capability::BpfJit]);
fn tc_to_tcx(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    upgrade(ctx, variant, &[AttachRequest::Tc, AttachRequest::Tcx])
}

const DATAPATH_TO_NETKIT: Case = Case::new(
    "H06",
    "datapath-to-netkit",
    "Changing the datapath from tc to tcx to netkit under traffic to a service loses no packet.",
    tc_to_netkit,
)
.on(library::PODS)
.over(variants::netkit_devices)
.needs(&[Capability::Tcx, Capability::BpfJit]);
fn tc_to_netkit(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    upgrade(ctx, variant, &[AttachRequest::Tc, AttachRequest::Tcx, AttachRequest::Netkit])
}

/// Mechanisms in turn: the new one is attached before the old one is detached. Connections are kept in the shared maps.
fn upgrade(ctx: &mut Ctx, _variant: &Variant, steps: &[AttachRequest]) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    node.serve(ctx, "w1")?;
    let (mut mechanism, mut attached) = node.attach(ctx, steps[0])?;
    let client = |family| node.testbed.net.addr("w0", family);
    node.service_passes(ctx, W0, "w1", client)?;
    let before = node.counters(W0, Direction::FromWorkload)?.translated;
    let streams = Family::ALL
        .map(|family| UdpStream::start(node.path(ctx, "w0", "w1", family), flows::STREAM_INTERVAL))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    for request in &steps[1..] {
        streams.iter().try_for_each(|stream| flows::some_traffic(ctx, stream))?;
        let attach_type = node.attach_type(ctx, W0, *request)?;
        let next = node.mechanism_beside(ctx, &mechanism, attach_type)?;
        let newer = node.attach_by(ctx, &next, *request)?;
        streams.iter().try_for_each(|stream| flows::some_traffic(ctx, stream))?;
        for old in std::mem::replace(&mut attached, newer) {
            node.detach(old)?;
        }
        mechanism = next;
    }
    streams.iter().try_for_each(|stream| flows::some_traffic(ctx, stream))?;
    let mut sent = 0;
    for (stream, family) in streams.into_iter().zip(Family::ALL) {
        let report = stream.stop(ctx.patience(500));
        sent += u64::from(report.sent);
        ctx.equal(format!("datagrams lost over {family}"), report.lost_count(), 0);
        ctx.equal(format!("datagrams refused over {family}"), report.send_errors.len(), 0);
        flows::in_order(ctx, &report);
    }
    let counted = node.counters(W0, Direction::FromWorkload)?;
    ctx.equal("every datagram was translated exactly once", counted.translated - before, sent);
    ctx.equal("tail calls into an empty slot", counted.missed, 0);
    node.service_passes(ctx, W0, "w1", client)
}

const TWO_AFTER_A_DOWNGRADE: Case = Case::new(
    "H11",
    "two-after-a-downgrade",
    "A downgrade to tc that leaves the old programs attached leaves them in charge of what they saw first, until they are detached.",
    two_after_a_downgrade,
)
.on(library::PODS)
.over(variants::link_mechanisms)
.needs(&[Capability::Clsact, Capability::BpfJit]);
fn two_after_a_downgrade(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let (old, old_programs) = node.attach(ctx, variant.attach())?;
    node.passes(ctx, "w0", "w1", Proto::Udp, Family::V4)?;
    let new = node.mechanism_beside(ctx, &old, AttachType::Tc)?;
    let new_programs = node.attach_by(ctx, &new, AttachRequest::Tc)?;
    let programs = node.testbed.observe(W0.at)?.len();
    ctx.equal("programs on the first workload's device", programs, 4);
    // Nothing passes the new programs without their policy, so that a packet shows who has seen it.
    new.unplug(&new_programs[0].programs)?;
    let missed = |direction| Ok::<_, Stop>(node.counters(W0, direction)?.missed);
    let before = missed(Direction::FromWorkload)?;
    node.datapath.forget_connections()?;
    let out = node.testbed.silence(ctx, "w0", "w1", Proto::Udp, Family::V4);
    ctx.equal("packets from the workload that reach the other one", out.delivered, out.wanted);
    ctx.equal("packets from the workload at the new programs", missed(Direction::FromWorkload)? - before, 0);
    // To the workload, tcx is before clsact on the node's device, but netkit's program behind it.
    let reach = match variant.attach() {
        AttachRequest::Netkit => 0,
        _ => out.wanted,
    };
    ctx.equal("answers that reach the workload", out.returned, reach);
    new.plug(&new_programs[0].programs)?;
    for old in old_programs {
        node.detach(old)?;
    }
    ctx.equal("programs without the old ones", node.testbed.observe(W0.at)?.len(), 2);
    new.unplug(&new_programs[0].programs)?;
    let before = missed(Direction::FromWorkload)?;
    let out = node.testbed.silence(ctx, "w0", "w1", Proto::Udp, Family::V4);
    ctx.check("the new programs alone decide", out.lost(), &out);
    ctx.becomes("packets at the new programs", out.wanted.into(), || Ok(missed(Direction::FromWorkload)? - before))?;
    new.plug(&new_programs[0].programs)?;
    node.all_pass(ctx, "w0", "w1")
}
