//! Changing the miniature datapath's mechanism under traffic to a service.

use crate::areas::datapath::node::{DatapathNode, W0};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::Ctx,
    flows, variants,
};
use lab_protocol::{AttachRequest, Capability};
use lab_topology::{Family, library};
use lab_traffic::UdpStream;

/// In the order in which they run.
pub const CASES: &[Case] = &[DATAPATH_TC_TO_TCX, DATAPATH_TO_NETKIT];

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
    }
    let counted = node.counters(W0, Direction::FromWorkload)?;
    ctx.equal("every datagram was translated exactly once", counted.translated - before, sent);
    ctx.equal("tail calls into an empty slot", counted.missed, 0);
    node.service_passes(ctx, W0, "w1", client)
}
