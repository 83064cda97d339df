//! The miniature datapath between workloads: policy, forwarding, reverse path check, and one jump map per mechanism.

use crate::areas::datapath::node::{DatapathNode, NEEDS, W0, W1, W2, Workload, service_address};
use crate::topologies::{PODS_SAME_IFINDEX, SHARED_IFINDEX};
use lab_bpf::datapath::WorkloadRule;
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows,
    testbed::P1,
    variants,
};
use lab_protocol::{AttachRequest, Capability};
use lab_topology::{Family, library};
use lab_traffic::Proto;
use std::net::IpAddr;

const DROP: i32 = 2;

/// In the order in which they run.
pub const CASES: &[Case] = &[
    DATAPATH_POD_TO_POD,
    DATAPATH_DENY,
    DATAPATH_SPOOFED_SOURCE,
    DATAPATH_BY_HOST_IFINDEX,
    DATAPATH_POLICY_SLOTS,
    DATAPATH_ON_MIXED_NODE,
];

const DATAPATH_POD_TO_POD: Case = Case::new(
    "T02",
    "datapath-pod-to-pod",
    "Two pods reach each other and the node through entry, policy and forwarding, each stage counting every packet.",
    pod_to_pod,
)
.on(library::PODS)
.over(variants::mechanisms)
.needs(NEEDS);
fn pod_to_pod(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let (_mechanism, attached) = node.attach(ctx, variant.attach())?;
    for (proto, family) in flows::all() {
        node.passes_counted(ctx, W0, W1, proto, family)?;
    }
    // Packets to the node itself are passed to its stack.
    let before = node.counters(W0, Direction::FromWorkload)?;
    for family in Family::available().iter().copied() {
        node.passes(ctx, "w0", "host", Proto::Udp, family)?;
    }
    let after = node.counters(W0, Direction::FromWorkload)?;
    let sent = Family::available().len() as u64 * u64::from(flows::EXCHANGES);
    let stages = (after.forwarded - before.forwarded, after.redirected - before.redirected);
    ctx.equal("to the node: forwarded, redirected", stages, (sent, 0));
    for one in attached {
        node.detach(one)?;
    }
    let before = node.counters(W0, Direction::FromWorkload)?;
    node.passes(ctx, "w0", "w1", Proto::Udp, Family::V4)?;
    ctx.equal("packets seen after detaching", node.counters(W0, Direction::FromWorkload)?, before);
    Ok(())
}

/// Everything from one workload to another, at the second one's ingress.
fn ingress_rule(node: &DatapathNode, to: Workload, from: IpAddr) -> WorkloadRule {
    node.rule(to, Direction::ToWorkload, None, from, if from.is_ipv4() { 32 } else { 128 })
}

/// Checks that neither UDP nor ICMP passes from w0 to w1 in either family, and returns the number of sent packets.
fn nothing_arrives(ctx: &mut Ctx, node: &DatapathNode) -> u64 {
    let flows = [("w0", "w1", Proto::Udp, Family::V4), ("w0", "w1", Proto::Icmp, Family::V6)];
    node.testbed.none_pass(ctx, flows);
    flows.len() as u64 * u64::from(flows::EXCHANGES)
}

const DATAPATH_DENY: Case = Case::new(
    "V11",
    "datapath-deny",
    "A deny rule for one pod's ingress blocks packets from w0 to w1 and none from w1 to w0.",
    deny,
)
.on(library::PODS)
.over(variants::paired_mechanisms)
.needs(NEEDS);
fn deny(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    node.passes(ctx, "w0", "w1", Proto::Udp, Family::V4)?;
    let rules = Family::ALL.map(|family| ingress_rule(&node, W1, node.testbed.net.addr("w0", family)));
    for rule in &rules {
        node.datapath.set_rule(rule, DROP)?;
    }
    let legs = node.datapath.forget_connections()?;
    // One flow, an entry for each direction at each of the two workloads.
    ctx.equal("connection entries of the flow", legs, 4);

    let sent = nothing_arrives(ctx, &node);
    ctx.becomes("packets denied at w1", sent, || Ok(node.counters(W1, Direction::ToWorkload)?.denied))?;
    let denied = node.counters(W1, Direction::ToWorkload)?.denied;
    node.all_pass(ctx, "w1", "w0")?;
    node.all_pass(ctx, "host", "w1")?;
    ctx.equal("additional packets denied", node.counters(W1, Direction::ToWorkload)?.denied - denied, 0);

    for rule in &rules {
        node.datapath.clear_rule(rule)?;
    }
    for family in Family::available().iter().copied() {
        node.passes_counted(ctx, W0, W1, Proto::Udp, family)?;
    }
    // The same at the other pod's egress, for one service only.
    let remote = node.testbed.net.addr("w0", Family::V4);
    let rule = node.rule(W1, Direction::FromWorkload, Some((17, ctx.marker)), remote, 24);
    node.datapath.forget_connections()?;
    node.datapath.set_rule(&rule, DROP)?;
    let report = node.testbed.silence(ctx, "w1", "w0", Proto::Udp, Family::V4);
    ctx.check("the denied service", report.lost(), &report);
    node.passes(ctx, "w1", "w0", Proto::Tcp, Family::V4)?;
    node.passes(ctx, "w1", "w0", Proto::Udp, Family::V6)?;
    Ok(())
}

const DATAPATH_SPOOFED_SOURCE: Case = Case::new(
    "T17",
    "datapath-spoofed-source",
    "Packets with a source address other than the workload's are dropped, also in an established flow.",
    spoofed_source,
)
.on(library::PODS)
.over(variants::paired_mechanisms)
.needs(NEEDS);
fn spoofed_source(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    let ifindex = node.testbed.ifindex(W0.at);
    let own = Family::ALL.map(|family| node.testbed.net.addr("w0", family));
    // A workload that uses a false address looks the same as one for which the node's map has another address.
    let others = [IpAddr::from([10, 65, 0, 66]), IpAddr::from([0xfd65, 0, 0, 0, 0, 0, 0, 0x66])];

    node.all_pass(ctx, "w0", "w1")?;
    ctx.equal("valid packets counted as spoofed", node.counters(W0, Direction::FromWorkload)?.spoofed, 0);
    let stream = node.testbed.stream(ctx, "w0", "w1", Family::V4)?;
    flows::some_traffic(ctx, &stream)?;
    node.datapath.register(ifindex, &others)?;
    let closed = ctx.wait_until(2_000, || Ok(node.counters(W0, Direction::FromWorkload)?.spoofed >= 3))?;
    ctx.check("packets of the established flow are counted as spoofed", closed, "counters");
    let count = || node.counters(W0, Direction::FromWorkload).map(|counters| counters.spoofed);
    let report = stream.stop_less(ctx.patience(500), count)?;
    let spoofed = u64::from(report.lost_count());
    ctx.equal("datagrams lost", spoofed, node.counters(W0, Direction::FromWorkload)?.spoofed);

    let judged = node.counters(W0, Direction::FromWorkload)?.judged;
    let sent = nothing_arrives(ctx, &node);
    ctx.becomes("spoofed, judged", (sent, 0), || {
        let after = node.counters(W0, Direction::FromWorkload)?;
        Ok((after.spoofed - spoofed, after.judged - judged))
    })?;
    node.datapath.register(ifindex, &own)?;
    node.all_pass(ctx, "w0", "w1")
}

const DATAPATH_BY_HOST_IFINDEX: Case = Case::new(
    "G05",
    "datapath-by-host-ifindex",
    "Reverse path check, rules and counters use the node's device even if the pod's device has the same index as another.",
    by_host_ifindex,
)
.on(PODS_SAME_IFINDEX)
.over(variants::mechanisms)
.needs(NEEDS);
/// On the node, the second pod's device has the index that the first pod's own end has in the pod.
fn by_host_ifindex(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::build(ctx, &[W0, W1])?;
    let collide = (node.testbed.net.ifindex("w0", "eth0"), node.testbed.ifindex(P1));
    ctx.equal("indexes of one pod's end and the other's node end", collide, (SHARED_IFINDEX, SHARED_IFINDEX));
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    for (proto, family) in [(Proto::Udp, Family::V4), (Proto::Icmp, Family::V6)] {
        node.passes_counted(ctx, W0, W1, proto, family)?;
        node.passes_counted(ctx, W1, W0, proto, family)?;
    }
    let spoofed =
        (node.counters(W0, Direction::FromWorkload)?.spoofed, node.counters(W1, Direction::FromWorkload)?.spoofed);
    ctx.equal("packets counted as spoofed", spoofed, (0, 0));
    // From the node to one pod: nothing may be counted for the other.
    let before = (node.counters(W0, Direction::ToWorkload)?, node.counters(W1, Direction::ToWorkload)?);
    node.passes(ctx, "host", "w0", Proto::Udp, Family::V4)?;
    let after = (node.counters(W0, Direction::ToWorkload)?, node.counters(W1, Direction::ToWorkload)?);
    let counted = (after.0.entered - before.0.entered, after.1.entered - before.1.entered);
    ctx.equal("packets to w0 that were counted for w0 and for w1", counted, (flows::EXCHANGES.into(), 0));
    node.datapath.set_rule(&ingress_rule(&node, W1, node.testbed.net.addr("host", Family::V4)), DROP)?;
    node.datapath.forget_connections()?;
    node.passes(ctx, "host", "w0", Proto::Udp, Family::V4)?;
    let report = node.testbed.silence(ctx, "host", "w1", Proto::Udp, Family::V4);
    ctx.check("w1's rule applies only to w1", report.lost(), &report);
    Ok(())
}

const DATAPATH_POLICY_SLOTS: Case = Case::new(
    "P07",
    "datapath-policy-slots",
    "Two pods' policies in one jump map: an empty slot blocks its own pod only, and filling it again unblocks the pod.",
    policy_slots,
)
.on(library::PODS)
.over(variants::paired_mechanisms)
.needs(NEEDS);
fn policy_slots(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let (mechanism, attached) = node.attach(ctx, variant.attach())?;
    let only_w1 = |ctx: &mut Ctx, when: &str| {
        node.passes(ctx, "host", "w1", Proto::Udp, Family::V4)?;
        node.passes(ctx, "w1", "host", Proto::Tcp, Family::V6)?;
        let before = node.counters(W0, Direction::FromWorkload)?.missed;
        let report = node.testbed.silence(ctx, "w0", "w1", Proto::Udp, Family::V4);
        ctx.check(format!("{when}: no packet leaves w0"), report.lost(), &report);
        ctx.becomes(format!("{when}: tail calls into w0's empty slot"), flows::EXCHANGES.into(), || {
            Ok(node.counters(W0, Direction::FromWorkload)?.missed - before)
        })?;
        Ok::<_, Stop>(())
    };
    node.passes(ctx, "w0", "w1", Proto::Udp, Family::V4)?;
    mechanism.unplug(&attached[0].programs)?;
    only_w1(ctx, "emptied")?;
    mechanism.plug(&attached[0].programs)?;
    for family in Family::available().iter().copied() {
        node.passes_counted(ctx, W0, W1, Proto::Udp, family)?;
    }
    // A pod that is deleted and created again must get its own slot back.
    mechanism.unplug(&attached[0].programs)?;
    let again = node.datapath.workload(&mechanism, node.testbed.ifindex(W0.at), attached[0].programs.slot())?;
    ctx.check("its slot differs from w1's", again.slot() != attached[1].programs.slot(), again.slot());
    node.passes_counted(ctx, W0, W1, Proto::Icmp, Family::V6)?;
    let before = node.counters(W1, Direction::FromWorkload)?.missed;
    node.passes_counted(ctx, W1, W0, Proto::Udp, Family::V4)?;
    ctx.equal("tail calls of w1 into an empty slot", node.counters(W1, Direction::FromWorkload)?.missed - before, 0);
    Ok(())
}

const DATAPATH_ON_MIXED_NODE: Case = Case::new(
    "C01",
    "datapath-on-mixed-node",
    "Workloads on veth, netkit L2 and netkit L3, each with its own mechanism and jump map, reach each other.",
    mixed_node,
)
.on(library::MIXED)
.needs(&[Capability::Netkit, Capability::BpfJit])
.within(30_000);
fn mixed_node(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let workloads = [W0, W1, W2];
    let node = DatapathNode::build(ctx, &workloads)?;
    let native = node.attach_type(ctx, W1, AttachRequest::Auto)?;
    let other = node.mechanism(node.attach_type(ctx, W0, AttachRequest::Auto)?)?;
    let native = node.mechanism_beside(ctx, &other, native)?;
    let _attached = [(&other, W0), (&native, W1), (&native, W2)]
        .into_iter()
        .map(|(mechanism, workload)| node.attach_one(ctx, mechanism, workload, AttachRequest::Auto))
        .collect::<Result<Vec<_>, _>>()?;
    for from in workloads {
        for to in workloads.into_iter().filter(|to| to.name != from.name) {
            for (proto, family) in [(Proto::Udp, Family::V4), (Proto::Tcp, Family::V6)] {
                node.passes_counted(ctx, from, to, proto, family)?;
            }
        }
    }
    node.serve(ctx, "w2")?;
    for from in workloads {
        let own = |family| node.testbed.net.addr(from.name, family);
        node.service_passes(
            ctx,
            from,
            "w2",
            |family| {
                if from.name == "w2" { service_address(family) } else { own(family) }
            },
        )?;
    }
    Ok(())
}
