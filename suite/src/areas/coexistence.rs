//! Several mechanisms on one device, several kinds of device on one node, and changing over under traffic.

use crate::{
    bench::{Bench, P0, Spot},
    case::{Area, Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows, variants,
};
use lab_bpf::{Config, Program, ProgramKind};
use lab_protocol::{AttachRequest, Capability, DeviceKind};
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
    .needs(&[Capability::Tcx]),
    Case::new(
        "C03",
        "native-before-tcx",
        Area::Coexistence,
        "pair",
        "A packet from the pod meets the PEER program first, then tcx on the primary, then clsact.",
        native_before_tcx,
    )
    .over(variants::netkit_native)
    .needs(&[Capability::Tcx]),
    Case::new(
        "C04",
        "strangers-survive",
        Area::Coexistence,
        "pair",
        "Somebody else's programs on the same hooks stay attached through our attach, update and detach.",
        strangers_survive,
    )
    .over(variants::mechanisms),
    Case::new(
        "H03",
        "tc-to-tcx",
        Area::Upgrade,
        "pair",
        "Changing from a clsact filter to tcx under traffic, the new one first, loses no packet and leaves none unseen.",
        tc_to_tcx,
    )
    .over(variants::devices)
    .needs(&[Capability::Tcx]),
    Case::new(
        "H06",
        "tcx-to-netkit",
        Area::Upgrade,
        "pair",
        "Changing from tcx to native netkit and back under traffic loses no packet and leaves none unseen.",
        tcx_to_netkit,
    )
    .over(variants::netkit_native)
    .needs(&[Capability::Tcx]),
    Case::new(
        "H08",
        "update-under-load",
        Area::Upgrade,
        "pair",
        "Fifty BPF_LINK_UPDATEs under traffic lose no packet, and every packet meets exactly one of the two programs.",
        update_under_load,
    )
    .over(variants::link_hooks)
    .within(30_000),
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

fn tcx_before_clsact(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let bench = Bench::pair(_variant.device())?;
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

/// Counts what passed while the mechanisms changed, and whether any packet met no program at all.
fn changed_over(ctx: &mut Ctx, stream: lab_traffic::UdpStream, programs: &[&Program]) -> Result<(), Stop> {
    let report = stream.stop(ctx.patience(500));
    let mut met = 0;
    for program in programs {
        met += program.stats()?.marked;
    }
    ctx.metric("udp.sent", f64::from(report.sent));
    ctx.metric("udp.lost", f64::from(report.lost_count()));
    ctx.require("the stream ran", report.sent > 0, report.sent)?;
    ctx.equal("datagrams lost", report.lost_count(), 0);
    ctx.check("every datagram met a program", met >= u64::from(report.sent), format!("{met} of {}", report.sent));
    Ok(())
}

fn tc_to_tcx(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let (old, new) = (bench.counter(ctx, P0)?, bench.counter(ctx, P0)?);
    let filter = bench.attach(ctx, P0, AttachRequest::Tc, Direction::FromWorkload, &old)?;
    let stream = bench.stream(ctx, "pod", "host", Family::V4)?;
    flows::some_traffic(ctx, &stream)?;
    let _link = bench.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &new)?;
    flows::some_traffic(ctx, &stream)?;
    // The qdisc stays: taking it away flaps the device's queue and costs a packet now and then.
    filter.detach()?;
    flows::some_traffic(ctx, &stream)?;
    changed_over(ctx, stream, &[&old, &new])
}

fn tcx_to_netkit(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let programs = [bench.counter(ctx, P0)?, bench.counter(ctx, P0)?, bench.counter(ctx, P0)?];
    let tcx = bench.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &programs[0])?;
    let stream = bench.stream(ctx, "pod", "host", Family::V6)?;
    flows::some_traffic(ctx, &stream)?;
    let native = bench.attach(ctx, P0, AttachRequest::Netkit, Direction::FromWorkload, &programs[1])?;
    flows::some_traffic(ctx, &stream)?;
    tcx.detach()?;
    flows::some_traffic(ctx, &stream)?;
    let _back = bench.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &programs[2])?;
    flows::some_traffic(ctx, &stream)?;
    native.detach()?;
    flows::some_traffic(ctx, &stream)?;
    let kind = bench.net.readback("host", "p0")?.kind;
    ctx.check("still a netkit device", kind.is_netkit() && kind != DeviceKind::Veth, kind);
    changed_over(ctx, stream, &[&programs[0], &programs[1], &programs[2]])
}

fn update_under_load(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const UPDATES: usize = 50;
    let bench = Bench::pair(variant.device())?;
    let programs = [bench.counter(ctx, P0)?, bench.counter(ctx, P0)?];
    let attachment = bench.attach(ctx, P0, variant.attach(), variant.direction(), &programs[0])?;
    let (from, to) = match variant.direction() {
        Direction::FromWorkload => ("pod", "host"),
        Direction::ToWorkload => ("host", "pod"),
    };
    let stream = bench.stream(ctx, from, to, Family::V4)?;
    for round in 1..=UPDATES {
        attachment.link()?.update(&*programs[round % 2], None)?;
    }
    flows::some_traffic(ctx, &stream)?;
    let report = stream.stop(ctx.patience(500));
    ctx.metric("udp.sent", f64::from(report.sent));
    ctx.equal("datagrams lost", report.lost_count(), 0);
    let met = programs[0].stats()?.marked + programs[1].stats()?.marked;
    ctx.equal("every datagram met exactly one program", met, u64::from(report.sent));
    ctx.equal("the last update is in force", attachment.link()?.info()?.prog_id, programs[UPDATES % 2].id());
    Ok(())
}
