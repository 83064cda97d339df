//! Several mechanisms on one device, and several kinds of device on one node.

mod path;

use lab_bpf::{Config, Program, ProgramKind, TcOptions};
use lab_harness::{
    case::{Area, Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows::EXCHANGES,
    testbed::{MprogCall, P0, Spot, Testbed},
    variants,
};
use lab_protocol::{AttachRequest, AttachType, Capability, Hook};
use lab_topology::{Family, library};
use lab_traffic::Proto;
use std::sync::Arc;

pub static AREA: Area = Area::new("coexistence", &[CASES, path::CASES]);

/// In the order in which they run.
const CASES: &[Case] = &[
    VETH_AND_NETKIT_ON_ONE_NODE,
    TCX_BEFORE_CLSACT,
    NATIVE_BEFORE_TCX,
    STRANGERS_FILTER_OUTLIVES_OUR_CHANGE,
    WHAT_THE_DUMPS_TELL,
    STRANGERS_SURVIVE,
];

const VETH_AND_NETKIT_ON_ONE_NODE: Case = Case::new(
    "C01",
    "veth-and-netkit-on-one-node",
    "Workloads on veth, netkit L2 and netkit L3 reach each other in all pairs, each through its own attach type.",
    mixed_node,
)
.on(library::MIXED)
.needs(&[Capability::Netkit])
.within(30_000);
fn mixed_node(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let nodes = [("w0", "p0"), ("w1", "p1"), ("w2", "p2")];
    let mut attachments = Vec::new();
    for (workload, dev) in nodes {
        let spot = Spot { node: "host", dev };
        for direction in Direction::BOTH {
            let program = testbed.counter(ctx, spot)?;
            let attachment = testbed.attach(ctx, spot, AttachRequest::Auto, direction, &program)?;
            attachments.push((workload, direction, program, attachment));
        }
    }
    for (from, _) in nodes {
        for (to, _) in nodes.into_iter().filter(|(to, _)| *to != from) {
            let seen = |workload, direction| {
                let of = |entry: &&(&str, Direction, Arc<Program>, _)| entry.0 == workload && entry.1 == direction;
                attachments.iter().find(of).map_or(Ok(0), |entry| entry.2.stats().map(|stats| stats.marked))
            };
            let before = (seen(from, Direction::FromWorkload)?, seen(to, Direction::ToWorkload)?);
            testbed.passes(ctx, from, to)?;
            let (out, into) =
                (seen(from, Direction::FromWorkload)? - before.0, seen(to, Direction::ToWorkload)? - before.1);
            ctx.check(
                format!("{from} to {to}: both ends' programs counted the same packets"),
                out == into && out > 0,
                format!("{out} and {into}"),
            );
        }
    }
    Ok(())
}

/// Sends one UDP flow and checks which of the programs ran on it.
fn meets(ctx: &mut Ctx, testbed: &Testbed, what: &str, programs: &[(&Program, bool)]) -> Result<(), Stop> {
    let before =
        programs.iter().map(|(program, _)| program.stats().map(|s| s.marked)).collect::<Result<Vec<_>, _>>()?;
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    for ((program, wanted), before) in programs.iter().zip(before) {
        let ran = program.stats()?.marked - before;
        let packets = if *wanted { u64::from(EXCHANGES) } else { 0 };
        ctx.equal(format!("{what}: packets that program {} saw", program.id()), ran, packets);
    }
    Ok(())
}

const TCX_BEFORE_CLSACT: Case = Case::new(
    "C02",
    "tcx-before-clsact",
    "tcx runs before clsact on one device, on ingress and egress: NEXT continues with the filter, PASS skips it.",
    tcx_before_clsact,
)
.on(library::PAIR)
.over(variants::devices)
.needs(&[Capability::Tcx, Capability::Clsact]);
fn tcx_before_clsact(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    Direction::BOTH.into_iter().try_for_each(|direction| tcx_and_filter(ctx, &testbed, direction))
}

fn tcx_and_filter(ctx: &mut Ctx, testbed: &Testbed, direction: Direction) -> CaseResult {
    let filter = testbed.counter(ctx, P0)?;
    let attached_filter = testbed.attach(ctx, P0, AttachRequest::Tc, direction, &filter)?;
    let next = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, AttachRequest::Tcx, direction, &next)?;
    meets(ctx, testbed, "after NEXT the filter runs", &[(&next, true), (&filter, true)])?;
    let (first, second) = (next.stats()?.last.time_ns, filter.stats()?.last.time_ns);
    ctx.check("tcx ran first", first < second, format!("{first} and {second} ns"));
    attachment.detach()?;
    let pass = testbed.load(ctx, P0, ProgramKind::Count, Config { verdict: 0, ..Config::new(ctx.marker) })?;
    let _pass = testbed.attach(ctx, P0, AttachRequest::Tcx, direction, &pass)?;
    meets(ctx, testbed, "after PASS the filter does not run", &[(&pass, true), (&filter, false)])?;
    attached_filter.detach()?;
    let ifindex = testbed.ifindex(P0);
    testbed.run(P0, || lab_bpf::clsact_del(ifindex))?;
    meets(ctx, testbed, "deleting clsact leaves tcx", &[(&pass, true)])
}

const NATIVE_BEFORE_TCX: Case = Case::new(
    "C03",
    "native-before-tcx",
    "A packet from the pod runs the PEER program first, then tcx on the primary, then clsact.",
    native_before_tcx,
)
.on(library::PAIR)
.over(variants::netkit_native)
.needs(&[Capability::Tcx, Capability::Clsact]);
fn native_before_tcx(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let requests = [AttachRequest::Netkit, AttachRequest::Tcx, AttachRequest::Tc];
    let mut programs = Vec::new();
    let mut attachments = Vec::new();
    for request in requests {
        let program = testbed.counter(ctx, P0)?;
        attachments.push(testbed.attach(ctx, P0, request, Direction::FromWorkload, &program)?);
        programs.push(program);
    }
    let all: Vec<(&Program, bool)> = programs.iter().map(|program| (&**program, true)).collect();
    meets(ctx, &testbed, "all three programs run", &all)?;
    let times = programs.iter().map(|p| p.stats().map(|s| s.last.time_ns)).collect::<Result<Vec<_>, _>>()?;
    ctx.check("native, tcx, clsact in this order", times.is_sorted(), format!("{times:?} ns"));
    ctx.equal("programs on the device", testbed.observe(P0)?.len(), requests.len());
    Ok(())
}

const STRANGERS_SURVIVE: Case = Case::new(
    "C04",
    "strangers-survive",
    "Another owner's programs on the same hooks stay attached through attach, update and detach.",
    strangers_survive,
)
.on(library::PAIR)
.over(variants::mechanisms)
.needs(&[Capability::Clsact]);
fn strangers_survive(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let ifindex = testbed.ifindex(P0);
    let mut strangers = Vec::new();
    let foreign = testbed.counter(ctx, P0)?;
    let options = lab_bpf::TcOptions { priority: 7, handle: 7, ..lab_bpf::TcOptions::default() };
    let filter = testbed.run(P0, || lab_bpf::attach_tc(ifindex, lab_bpf::TcDirection::Ingress, &*foreign, options))?;
    strangers.push(foreign);
    let mut links = Vec::new();
    let mut hooks = Vec::new();
    if ctx.capabilities.has(Capability::Tcx) {
        hooks.push(lab_protocol::Hook::TcxIngress);
    }
    if variant.device().is_netkit() {
        hooks.push(lab_protocol::Hook::NetkitPeer);
    }
    for hook in hooks {
        let foreign = testbed.counter(ctx, P0)?;
        links.push(testbed.run(P0, || lab_bpf::attach_link(hook, ifindex, &*foreign, &lab_bpf::Mprog::default()))?);
        strangers.push(foreign);
    }
    let mut before = testbed.observe(P0)?;
    before.sort_by_key(|seen| seen.prog_id);

    let own = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &own)?;
    let everyone: Vec<(&Program, bool)> = strangers.iter().chain([&own]).map(|program| (&**program, true)).collect();
    meets(ctx, &testbed, "other owners' and our own programs", &everyone)?;
    attachment.detach()?;
    let mut after = testbed.observe(P0)?;
    after.sort_by_key(|seen| seen.prog_id);
    ctx.equal("programs of others", after, before);
    let others: Vec<(&Program, bool)> = strangers.iter().map(|program| (&**program, true)).collect();
    meets(ctx, &testbed, "after detaching our programs", &others)?;
    drop(filter);
    Ok(())
}

const STRANGERS_FILTER_OUTLIVES_OUR_CHANGE: Case = Case::new(
    "C05",
    "strangers-filter-outlives-our-change",
    "Changing from clsact to tcx keeps another owner's filter with another priority; deleting clsact would remove it.",
    strangers_filter,
)
.on(library::PAIR)
.over(variants::devices)
.needs(&[Capability::Tcx, Capability::Clsact]);
fn strangers_filter(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let foreign = testbed.counter(ctx, P0)?;
    let options = TcOptions { priority: 7, handle: 7, ..TcOptions::default() };
    let _foreign = testbed.filter(P0, Direction::FromWorkload, &foreign, options)?;
    let (old, new) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?);
    let filter = testbed.attach(ctx, P0, AttachRequest::Tc, Direction::FromWorkload, &old)?;
    meets(ctx, &testbed, "before", &[(&old, true), (&foreign, true)])?;
    let _link = testbed.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &new)?;
    filter.detach()?;
    meets(ctx, &testbed, "after", &[(&new, true), (&old, false), (&foreign, true)])?;
    let seen = testbed.find(P0, &foreign)?.map(|seen| seen.hook);
    ctx.equal("the other owner's filter", seen, Some(Hook::ClsactIngress));
    let ifindex = testbed.ifindex(P0);
    testbed.run(P0, || lab_bpf::clsact_del(ifindex))?;
    ctx.equal("programs listed after deleting clsact", testbed.observe(P0)?.len(), 1);
    meets(ctx, &testbed, "without clsact", &[(&new, true), (&foreign, false)])
}

const WHAT_THE_DUMPS_TELL: Case = Case::new(
    "C06",
    "what-the-dumps-tell",
    "A device's dumps list filter, attached program and link together; only the link has a link id, which is its own.",
    dumps,
)
.on(library::PAIR)
.over(variants::mechanisms);
fn dumps(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    let is_filter = attachment.hook.attach_type() == AttachType::Tc;
    let mut wanted = vec![(attachment.hook, program.id(), false)];
    if let Ok(link) = attachment.link() {
        let info = link.info()?;
        wanted[0].2 = true;
        ctx.equal("program id in the link's info", info.prog_id, program.id());
        ctx.check("the link's id is in the kernel's list", lab_bpf::link_ids()?.contains(&info.id), info.id);
        let listed = testbed.find(P0, &program)?.and_then(|seen| seen.link_id);
        ctx.equal("link id in the dump", listed, Some(info.id));
        let plain = testbed.counter(ctx, P0)?;
        let _plain = testbed.attach_as(ctx, P0, variant.attach(), Direction::FromWorkload, &plain, MprogCall::Prog)?;
        testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
        wanted.push((attachment.hook, plain.id(), false));
    }
    let ids = lab_bpf::prog_ids()?;
    ctx.check("the program ids are in the kernel's list", wanted.iter().all(|(_, id, _)| ids.contains(id)), ids.len());
    let listed: Vec<_> =
        testbed.observe(P0)?.iter().map(|seen| (seen.hook, seen.prog_id, seen.link_id.is_some())).collect();
    ctx.equal("hook, program id, has a link", listed, wanted);
    let ifindex = testbed.ifindex(P0);
    let filters = testbed.run(P0, || lab_bpf::filters(ifindex))?;
    let named = filters.iter().filter(|filter| filter.prog_id == program.id());
    let named: Vec<_> = named.map(|filter| (filter.name.clone(), filter.direct_action)).collect();
    let wanted = is_filter.then(|| (format!("lab-{}", program.id()), true));
    ctx.equal("filters that have the program: name, direct action", named, wanted.into_iter().collect());
    Ok(())
}
