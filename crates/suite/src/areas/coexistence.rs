//! Several mechanisms on one device, several kinds of device on one node.

use crate::{
    bench::{Bench, How, P0, Spot},
    case::{Area, Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    variants,
};
use lab_bpf::{Config, Program, ProgramKind, TcOptions};
use lab_protocol::{AttachRequest, AttachType, Capability, Hook};
use lab_topology::{Family, library};
use lab_traffic::Proto;
use std::sync::Arc;

pub const CASES: &[Case] = &[
    Case::new(
        "C01",
        "veth-and-netkit-on-one-node",
        Area::Coexistence,
        "mixed",
        "Workloads on veth, netkit L2 and netkit L3 reach each other in all pairs, each through its own attach type.",
        mixed_node,
    )
    .needs(&[Capability::Netkit])
    .within(30_000),
    Case::new(
        "C02",
        "tcx-before-clsact",
        Area::Coexistence,
        "pair",
        "tcx runs before clsact on one device: NEXT falls through to the filter, PASS goes past it.",
        tcx_before_clsact,
    )
    .over(variants::devices)
    .needs(&[Capability::Tcx, Capability::Clsact]),
    Case::new(
        "C03",
        "native-before-tcx",
        Area::Coexistence,
        "pair",
        "A packet from the pod meets the PEER program first, then tcx on the primary, then clsact.",
        native_before_tcx,
    )
    .over(variants::netkit_native)
    .needs(&[Capability::Tcx, Capability::Clsact]),
    Case::new(
        "C05",
        "strangers-filter-outlives-our-change",
        Area::Coexistence,
        "pair",
        "Changing from clsact to tcx leaves a stranger's filter of another priority alone; deleting clsact would take it.",
        strangers_filter,
    )
    .over(variants::devices)
    .needs(&[Capability::Tcx, Capability::Clsact]),
    Case::new(
        "C06",
        "what-the-dumps-tell",
        Area::Coexistence,
        "pair",
        "One device's dumps list filter, attached program and link side by side; only the link has a link id, its own.",
        dumps,
    )
    .over(variants::mechanisms),
    Case::new(
        "C04",
        "strangers-survive",
        Area::Coexistence,
        "pair",
        "Somebody else's programs on the same hooks stay attached through our attach, update and detach.",
        strangers_survive,
    )
    .over(variants::mechanisms)
    .needs(&[Capability::Clsact]),
];

fn mixed_node(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let bench = Bench::build(&library::mixed())?;
    let nodes = [("w0", "p0"), ("w1", "p1"), ("w2", "p2")];
    let mut attachments = Vec::new();
    for (workload, dev) in nodes {
        let spot = Spot { node: "host", dev };
        for direction in Direction::BOTH {
            let program = bench.counter(ctx, spot)?;
            let attachment = bench.attach(ctx, spot, AttachRequest::Auto, direction, &program)?;
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
            bench.passes(ctx, from, to)?;
            let (out, into) =
                (seen(from, Direction::FromWorkload)? - before.0, seen(to, Direction::ToWorkload)? - before.1);
            ctx.check(
                format!("{from} to {to}: both ends' programs saw the same packets"),
                out == into && out > 0,
                format!("{out} and {into}"),
            );
        }
    }
    Ok(())
}

/// Sends one UDP flow and asserts which of the programs saw it.
fn meets(ctx: &mut Ctx, bench: &Bench, what: &str, programs: &[(&Program, bool)]) -> Result<(), Stop> {
    let before =
        programs.iter().map(|(program, _)| program.stats().map(|s| s.marked)).collect::<Result<Vec<_>, _>>()?;
    bench.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    for ((program, wanted), before) in programs.iter().zip(before) {
        let ran = program.stats()?.marked - before;
        ctx.check(format!("{what}: program {}", program.id()), (ran > 0) == *wanted, format!("saw {ran} packets"));
    }
    Ok(())
}

fn tcx_before_clsact(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let filter = bench.counter(ctx, P0)?;
    let attached_filter = bench.attach(ctx, P0, AttachRequest::Tc, Direction::FromWorkload, &filter)?;
    let next = bench.counter(ctx, P0)?;
    let attachment = bench.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &next)?;
    meets(ctx, &bench, "NEXT falls through", &[(&next, true), (&filter, true)])?;
    let (first, second) = (next.stats()?.last.time_ns, filter.stats()?.last.time_ns);
    ctx.check("tcx ran first", first < second, format!("{first} and {second} ns"));
    attachment.detach()?;
    let pass = bench.load(ctx, P0, ProgramKind::Count, Config { verdict: 0, ..Config::new(ctx.marker) })?;
    let _pass = bench.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &pass)?;
    meets(ctx, &bench, "PASS goes past", &[(&pass, true), (&filter, false)])?;
    attached_filter.detach()?;
    let ifindex = bench.ifindex(P0);
    bench.run(P0, || lab_bpf::clsact_del(ifindex))?;
    meets(ctx, &bench, "deleting clsact leaves tcx", &[(&pass, true)])
}

fn native_before_tcx(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let requests = [AttachRequest::Netkit, AttachRequest::Tcx, AttachRequest::Tc];
    let mut programs = Vec::new();
    let mut attachments = Vec::new();
    for request in requests {
        let program = bench.counter(ctx, P0)?;
        attachments.push(bench.attach(ctx, P0, request, Direction::FromWorkload, &program)?);
        programs.push(program);
    }
    let all: Vec<(&Program, bool)> = programs.iter().map(|program| (&**program, true)).collect();
    meets(ctx, &bench, "all three run", &all)?;
    let times = programs.iter().map(|p| p.stats().map(|s| s.last.time_ns)).collect::<Result<Vec<_>, _>>()?;
    ctx.check("native, tcx, clsact in this order", times.is_sorted(), format!("{times:?} ns"));
    ctx.equal("programs on the device", bench.observe(P0)?.len(), requests.len());
    Ok(())
}

fn strangers_survive(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let ifindex = bench.ifindex(P0);
    let mut strangers = Vec::new();
    let foreign = bench.counter(ctx, P0)?;
    let options = lab_bpf::TcOptions { priority: 7, handle: 7, ..lab_bpf::TcOptions::default() };
    let filter = bench.run(P0, || lab_bpf::attach_tc(ifindex, lab_bpf::Direction::Ingress, &*foreign, options))?;
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
        let foreign = bench.counter(ctx, P0)?;
        links.push(bench.run(P0, || lab_bpf::attach_link(hook, ifindex, &*foreign, &lab_bpf::Mprog::default()))?);
        strangers.push(foreign);
    }
    let mut before = bench.observe(P0)?;
    before.sort_by_key(|seen| seen.prog_id);

    let own = bench.counter(ctx, P0)?;
    let attachment = bench.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &own)?;
    let everyone: Vec<(&Program, bool)> = strangers.iter().chain([&own]).map(|program| (&**program, true)).collect();
    meets(ctx, &bench, "strangers and our own", &everyone)?;
    attachment.detach()?;
    let mut after = bench.observe(P0)?;
    after.sort_by_key(|seen| seen.prog_id);
    ctx.equal("programs of others", after, before);
    let others: Vec<(&Program, bool)> = strangers.iter().map(|program| (&**program, true)).collect();
    meets(ctx, &bench, "after we left", &others)?;
    drop(filter);
    Ok(())
}

fn strangers_filter(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let foreign = bench.counter(ctx, P0)?;
    let options = TcOptions { priority: 7, handle: 7, ..TcOptions::default() };
    let _foreign = bench.filter(P0, Direction::FromWorkload, &foreign, options)?;
    let (old, new) = (bench.counter(ctx, P0)?, bench.counter(ctx, P0)?);
    let filter = bench.attach(ctx, P0, AttachRequest::Tc, Direction::FromWorkload, &old)?;
    meets(ctx, &bench, "before", &[(&old, true), (&foreign, true)])?;
    let _link = bench.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &new)?;
    filter.detach()?;
    meets(ctx, &bench, "after", &[(&new, true), (&old, false), (&foreign, true)])?;
    let seen = bench.find(P0, &foreign)?.map(|seen| seen.hook);
    ctx.equal("the stranger's filter", seen, Some(Hook::ClsactIngress));
    let ifindex = bench.ifindex(P0);
    bench.run(P0, || lab_bpf::clsact_del(ifindex))?;
    ctx.equal("programs left without clsact", bench.observe(P0)?.len(), 1);
    meets(ctx, &bench, "without clsact", &[(&new, true), (&foreign, false)])
}

fn dumps(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let program = bench.counter(ctx, P0)?;
    let attachment = bench.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    bench.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    let is_filter = attachment.hook.attach_type() == AttachType::Tc;
    let mut wanted = vec![(attachment.hook, program.id(), false)];
    if let Ok(link) = attachment.link() {
        let info = link.info()?;
        wanted[0].2 = true;
        ctx.equal("the link's own account of its program", info.prog_id, program.id());
        ctx.check("its id is among the kernel's links", lab_bpf::link_ids()?.contains(&info.id), info.id);
        let listed = bench.find(P0, &program)?.and_then(|seen| seen.link_id);
        ctx.equal("its id in the dump", listed, Some(info.id));
        let plain = bench.counter(ctx, P0)?;
        let _plain = bench.attach_as(ctx, P0, variant.attach(), Direction::FromWorkload, &plain, How::Prog)?;
        bench.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
        wanted.push((attachment.hook, plain.id(), false));
    }
    let ids = lab_bpf::prog_ids()?;
    ctx.check("the ids are among the kernel's programs", wanted.iter().all(|(_, id, _)| ids.contains(id)), ids.len());
    let listed: Vec<_> =
        bench.observe(P0)?.iter().map(|seen| (seen.hook, seen.prog_id, seen.link_id.is_some())).collect();
    ctx.equal("hook, program, link or not", listed, wanted);
    let ifindex = bench.ifindex(P0);
    let filters = bench.run(P0, || lab_bpf::filters(ifindex))?;
    let named = filters.iter().filter(|filter| filter.prog_id == program.id()).count();
    ctx.equal("filters that name the program", named, usize::from(is_filter));
    Ok(())
}
