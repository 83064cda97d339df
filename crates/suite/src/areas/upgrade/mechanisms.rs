//! Changing programs, mechanisms and owners under traffic. Losses are measured with a stream of numbered datagrams.

use crate::areas::links::pins::pin_path;
use lab_bpf::{BpfLink, Program, TcOptions};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows::{DRAIN_WINDOW, falls_silent, in_order, some_traffic},
    holder::Holder,
    testbed::{P0, P1, Testbed},
    variants,
};
use lab_protocol::{AttachRequest, Capability, Hook};
use lab_topology::{Family, Hop, LinkKind, NetkitOptions, Policy, Template, Topology, library, link};
use lab_traffic::{Proto, StreamReport, UdpStream};
use std::{fs, os::fd::AsFd};

/// Maximum wait for a stopped stream after its last datagram, milliseconds on a fast guest.
const DRAIN_MS: u64 = 500;

/// In the order in which they run.
pub const CASES: &[Case] = &[
    REPLACE_FILTER,
    FILTER_MAKE_BEFORE_BREAK,
    TC_TO_TCX,
    TCX_TO_NETKIT,
    UPDATE_UNDER_LOAD,
    QDISC_AWAY,
    TCX_TO_TC,
    NETKIT_TO_TC,
    OWNER_RESTARTS,
    VETH_TO_NETKIT,
];

/// Packets of the stream that ran one of the programs.
fn met_by(programs: &[&Program]) -> Result<u64, Stop> {
    programs.iter().try_fold(0, |met, program| Ok(met + program.stats()?.marked))
}

/// Counts lost datagrams during a change of mechanisms, and packets that ran no program. With `changes_qdisc` those that the stream
/// sends during a change ([`UdpStream::during`]) may be lost.
fn changed_over(ctx: &mut Ctx, stream: UdpStream, programs: &[&Program], changes_qdisc: bool) -> Result<(), Stop> {
    // If a loss is allowed, lost datagrams are not waited for.
    let report = match changes_qdisc {
        false => stream.stop(ctx.patience(DRAIN_MS)),
        true => stream.stop_owed(DRAIN_WINDOW, ctx.patience(DRAIN_MS), || met_by(programs))?,
    };
    let met = met_by(programs)?;
    ctx.metric("udp.sent", f64::from(report.sent));
    ctx.metric("udp.lost", f64::from(report.lost_count()));
    ctx.require("the stream ran", report.sent > 0, report.sent)?;
    in_order(ctx, &report);
    match changes_qdisc {
        false => _ = ctx.equal("datagrams lost", report.lost_count(), 0),
        true => lost_to_qdisc(ctx, &report),
    }
    let received = u64::from(report.received);
    ctx.check("every datagram that arrived ran a program", met >= received, format!("{met} of {received}"));
    Ok(())
}

/// Asserts that datagrams were lost only while a qdisc was added or removed: `qdisc_graft` stops the device's queue for a grace
/// period. That is less than the interval of the stream, unless the guest waits for its host.
fn lost_to_qdisc(ctx: &mut Ctx, report: &StreamReport) {
    ctx.metric("udp.lost.qdisc", f64::from(report.lost_count()));
    ctx.equal("datagrams lost while no qdisc was changed", report.lost_otherwise(), Vec::new());
}

const TC_TO_TCX: Case = Case::new(
    "H03",
    "tc-to-tcx",
    "Changing from a clsact filter to tcx under traffic, tcx first, loses no packet, and every packet runs a program.",
    tc_to_tcx,
)
.on(library::PAIR)
.over(variants::devices)
.needs(&[Capability::Tcx, Capability::Clsact]);
fn tc_to_tcx(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (old, new) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?);
    let filter = testbed.attach(ctx, P0, AttachRequest::Tc, Direction::FromWorkload, &old)?;
    let stream = testbed.stream(ctx, "pod", "host", Family::V4)?;
    some_traffic(ctx, &stream)?;
    let _link = testbed.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &new)?;
    some_traffic(ctx, &stream)?;
    // The qdisc stays: removing it stops the device's queue and sometimes costs a packet.
    filter.detach()?;
    some_traffic(ctx, &stream)?;
    changed_over(ctx, stream, &[&old, &new], false)
}

const TCX_TO_NETKIT: Case = Case::new(
    "H06",
    "tcx-to-netkit",
    "Changing from tcx to netkit and back under traffic loses no packet, and every packet runs a program.",
    tcx_to_netkit,
)
.on(library::PAIR)
.over(variants::netkit_native)
.needs(&[Capability::Tcx]);
fn tcx_to_netkit(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let programs = [testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?];
    let tcx = testbed.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &programs[0])?;
    let stream = testbed.stream(ctx, "pod", "host", Family::V6)?;
    some_traffic(ctx, &stream)?;
    let native = testbed.attach(ctx, P0, AttachRequest::Netkit, Direction::FromWorkload, &programs[1])?;
    some_traffic(ctx, &stream)?;
    tcx.detach()?;
    some_traffic(ctx, &stream)?;
    let _back = testbed.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &programs[2])?;
    some_traffic(ctx, &stream)?;
    native.detach()?;
    some_traffic(ctx, &stream)?;
    let kind = testbed.net.readback("host", "p0")?.kind;
    ctx.check("still a netkit device", kind.is_netkit(), kind);
    changed_over(ctx, stream, &[&programs[0], &programs[1], &programs[2]], false)
}

const UPDATE_UNDER_LOAD: Case = Case::new(
    "H08",
    "update-under-load",
    "Fifty BPF_LINK_UPDATEs under traffic lose no packet, and every packet runs exactly one of the two programs.",
    update_under_load,
)
.on(library::PAIR)
.over(variants::link_hooks)
.within(30_000);
fn update_under_load(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const UPDATES: usize = 50;
    let testbed = ctx.testbed()?;
    let programs = [testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?];
    let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &programs[0])?;
    let (from, to) = variant.direction().ends("pod", "host");
    let stream = testbed.stream(ctx, from, to, Family::V4)?;
    for round in 1..=UPDATES {
        attachment.link()?.update(&*programs[round % 2], None)?;
    }
    some_traffic(ctx, &stream)?;
    let report = stream.stop(ctx.patience(DRAIN_MS));
    ctx.metric("udp.sent", f64::from(report.sent));
    ctx.equal("datagrams lost", report.lost_count(), 0);
    in_order(ctx, &report);
    let met = programs[0].stats()?.marked + programs[1].stats()?.marked;
    ctx.equal("every datagram ran exactly one program", met, u64::from(report.sent));
    ctx.equal("the last update is active", attachment.link()?.info()?.prog_id, programs[UPDATES % 2].id());
    Ok(())
}

const REPLACE_FILTER: Case = Case::new(
    "H01",
    "replace-filter",
    "Replacing a filter's program eleven times under traffic loses no packet; each packet runs exactly one program, and both have run.",
    replace_filter,
)
.on(library::PAIR)
.over(variants::tc_hooks);
fn replace_filter(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    // Odd: the last program is not the first.
    const REPLACEMENTS: usize = 11;
    let testbed = ctx.testbed()?;
    let programs = [testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?];
    let mut filter = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &programs[0])?;
    let (from, to) = variant.direction().ends("pod", "host");
    let stream = testbed.stream(ctx, from, to, Family::V4)?;
    some_traffic(ctx, &stream)?;
    for round in 1..=REPLACEMENTS {
        testbed.run(P0, || Ok::<_, Stop>(filter.filter()?.replace(&*programs[round % 2])?))?;
    }
    some_traffic(ctx, &stream)?;
    let listed: Vec<u32> = testbed.observe(P0)?.iter().map(|seen| seen.prog_id).collect();
    ctx.equal("remaining programs", listed, vec![programs[REPLACEMENTS % 2].id()]);
    let report = stream.stop(ctx.patience(DRAIN_MS));
    ctx.metric("udp.sent", f64::from(report.sent));
    ctx.equal("datagrams lost", report.lost_count(), 0);
    in_order(ctx, &report);
    let met = [programs[0].stats()?.marked, programs[1].stats()?.marked];
    ctx.equal("every datagram ran exactly one program", met[0] + met[1], u64::from(report.sent));
    ctx.check("both programs have run", met[0] > 0 && met[1] > 0, format!("{met:?}"));
    Ok(())
}

const FILTER_MAKE_BEFORE_BREAK: Case = Case::new(
    "H02",
    "filter-make-before-break",
    "Adding a second filter before removing the first loses no packet, and every packet runs a program.",
    make_before_break,
)
.on(library::PAIR)
.over(variants::tc_hooks);
fn make_before_break(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (old, new) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?);
    let first = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &old)?;
    let (from, to) = variant.direction().ends("pod", "host");
    let stream = testbed.stream(ctx, from, to, Family::V6)?;
    some_traffic(ctx, &stream)?;
    let behind = TcOptions { priority: 2, handle: 2, ..TcOptions::default() };
    let _second = testbed.filter(P0, variant.direction(), &new, behind)?;
    testbed.report(ctx, P0, AttachRequest::Tc, new.id(), Some(new.clone()))?;
    some_traffic(ctx, &stream)?;
    first.detach()?;
    some_traffic(ctx, &stream)?;
    changed_over(ctx, stream, &[&old, &new], false)
}

const QDISC_AWAY: Case = Case::new(
    "H04",
    "qdisc-away",
    "Adding or deleting clsact under traffic loses only packets that are sent meanwhile (qdisc_graft stops the queue).",
    qdisc_away,
)
.on(library::PAIR)
.over(variants::devices)
.needs(&[Capability::Tcx, Capability::Clsact]);
fn qdisc_away(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const ROUNDS: u32 = 3;
    let testbed = ctx.testbed()?;
    let (old, new) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?);
    let filter = testbed.attach(ctx, P0, AttachRequest::Tc, Direction::FromWorkload, &old)?;
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    // Towards the pod: the queue of the node's end is stopped.
    let stream = testbed.stream(ctx, "host", "pod", Family::V4)?;
    let _links = [
        testbed.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &new)?,
        testbed.attach(ctx, P0, AttachRequest::Tcx, Direction::ToWorkload, &new)?,
    ];
    some_traffic(ctx, &stream)?;
    // Datagrams that arrived before the links were attached are not counted.
    let unmet = new.stats()?.marked;
    filter.detach()?;
    let ifindex = testbed.ifindex(P0);
    stream.during(|| testbed.run(P0, || lab_bpf::clsact_del(ifindex)))?;
    for _ in 1..ROUNDS {
        some_traffic(ctx, &stream)?;
        stream.during(|| testbed.run(P0, || lab_bpf::clsact_add(ifindex)))?;
        stream.during(|| testbed.run(P0, || lab_bpf::clsact_del(ifindex)))?;
    }
    some_traffic(ctx, &stream)?;
    let kinds: Vec<String> =
        testbed.run(P0, || lab_bpf::qdiscs(ifindex))?.into_iter().map(|qdisc| qdisc.kind).collect();
    ctx.check("no clsact remains", !kinds.iter().any(|kind| kind == "clsact"), format!("{kinds:?}"));
    ctx.check("the tcx program continued to run", new.stats()?.marked > unmet, new.stats()?.marked);
    let report = stream.stop(DRAIN_WINDOW);
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    ctx.metric("udp.sent", f64::from(report.sent));
    lost_to_qdisc(ctx, &report);
    // A busy host makes one change longer, a kernel that stops the queue for longer all of them.
    let by_change = report.lost_by_change();
    ctx.check(
        "datagrams lost by the shortest change",
        by_change.iter().any(|lost| *lost <= 1),
        format!("{by_change:?}"),
    );
    Ok(())
}

const TCX_TO_TC: Case = Case::new(
    "H05",
    "tcx-to-tc",
    "Changing from tcx to clsact, filter first, loses only packets that are sent while the qdisc is added.",
    tcx_to_tc,
)
.on(library::PAIR)
.over(variants::devices)
.needs(&[Capability::Tcx, Capability::Clsact]);
fn tcx_to_tc(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (old, new) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?);
    let link = testbed.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &old)?;
    let stream = testbed.stream(ctx, "pod", "host", Family::V4)?;
    some_traffic(ctx, &stream)?;
    let _filter = stream.during(|| testbed.attach(ctx, P0, AttachRequest::Tc, Direction::FromWorkload, &new))?;
    some_traffic(ctx, &stream)?;
    link.detach()?;
    some_traffic(ctx, &stream)?;
    let hooks: Vec<Hook> = testbed.observe(P0)?.iter().map(|seen| seen.hook).collect();
    ctx.equal("hooks left", hooks, vec![Hook::ClsactIngress]);
    changed_over(ctx, stream, &[&old, &new], true)
}

const NETKIT_TO_TC: Case = Case::new(
    "H07",
    "netkit-to-tc",
    "Changing from netkit through tcx to clsact leaves no netkit program, and loses packets only while the qdisc is added.",
    netkit_to_tc,
)
.on(library::PAIR)
.over(variants::netkit_native)
.needs(&[Capability::Tcx, Capability::Clsact]);
fn netkit_to_tc(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let programs = [testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?];
    let native = testbed.attach(ctx, P0, AttachRequest::Netkit, Direction::FromWorkload, &programs[0])?;
    let stream = testbed.stream(ctx, "pod", "host", Family::V6)?;
    some_traffic(ctx, &stream)?;
    let tcx = testbed.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &programs[1])?;
    some_traffic(ctx, &stream)?;
    native.detach()?;
    some_traffic(ctx, &stream)?;
    let _filter =
        stream.during(|| testbed.attach(ctx, P0, AttachRequest::Tc, Direction::FromWorkload, &programs[2]))?;
    some_traffic(ctx, &stream)?;
    tcx.detach()?;
    some_traffic(ctx, &stream)?;
    let hooks: Vec<Hook> = testbed.observe(P0)?.iter().map(|seen| seen.hook).collect();
    ctx.equal("hooks left", hooks, vec![Hook::ClsactIngress]);
    ctx.equal("still the same kind of device", testbed.net.readback("host", "p0")?.kind, variant.device().into());
    changed_over(ctx, stream, &[&programs[0], &programs[1], &programs[2]], true)
}

const OWNER_RESTARTS: Case = Case::new(
    "H09",
    "owner-restarts",
    "A new owner opens the pinned link and updates it while the old owner is killed: no packet is lost, one link remains.",
    owner_restarts,
)
.on(library::PAIR)
.over(variants::link_mechanisms);
fn owner_restarts(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const RESTARTS: usize = 3;
    let testbed = ctx.testbed()?;
    let path = pin_path(ctx, "owned");
    let programs = [testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?];
    let link = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &programs[0])?.into_link()?;
    let id = link.info()?.id;
    link.pin(&path)?;
    let stream = testbed.stream(ctx, "pod", "host", Family::V4)?;
    let mut owner = Holder::of(link)?;
    for round in 1..=RESTARTS {
        some_traffic(ctx, &stream)?;
        let adopted = BpfLink::open_pinned(&path)?;
        // Killed between opening the pin and the update: the worst moment for a replaced owner.
        owner.kill()?;
        adopted.update(&*programs[round % 2], Some(programs[(round + 1) % 2].as_fd()))?;
        owner = Holder::of(adopted)?;
    }
    some_traffic(ctx, &stream)?;
    owner.kill()?;
    let report = stream.stop(ctx.patience(DRAIN_MS));
    let listed: Vec<_> = testbed.observe(P0)?.iter().map(|seen| (seen.prog_id, seen.link_id)).collect();
    ctx.equal("one program by the same link", listed, vec![(programs[RESTARTS % 2].id(), Some(id))]);
    ctx.metric("udp.sent", f64::from(report.sent));
    ctx.equal("datagrams lost", report.lost_count(), 0);
    in_order(ctx, &report);
    let met = programs[0].stats()?.marked + programs[1].stats()?.marked;
    ctx.equal("every datagram ran exactly one program", met, u64::from(report.sent));
    Ok(())
}

/// The pod's address is on a dummy device; while the veth exists, its routes are more specific.
const PAIR_TWO_LINKS: Template = Template::new(
    "pair-two-links",
    "One workload on one host with a veth and, for when that is gone, a netkit link whose peer drops without a program.",
    |kind| {
        let closed = NetkitOptions { peer_policy: Some(Policy::Blackhole), ..NetkitOptions::default() };
        Topology::new()
            .node("host")
            .node("pod")
            .dummy("host", "dummy0")
            .dummy("pod", "dummy0")
            .link(LinkKind::Veth, ("host", "p0"), ("pod", "eth0"))
            .link_with(kind, ("host", "p1"), ("pod", "eth1"), closed)
            .addr("host", "dummy0", &["10.1.0.1/32"])
            .addr("pod", "dummy0", &["10.1.0.2/32"])
            .route("host", "10.1.0.2/32", Hop::dev("p0"))
            .route("pod", "10.1.0.1/32", Hop::dev("eth0"))
            .route("host", "10.1.0.0/30", Hop::dev("p1"))
            .route("pod", "10.1.0.0/30", Hop::dev("eth1"))
    },
);

/// The pod solicits its neighbour's address while the netkit is closed, and the kernel repeats this only after a second
/// (`neigh/*/retrans_time_ms`, Documentation/networking/ip-sysctl.rst).
fn ask_again_soon(testbed: &Testbed) -> Result<(), Stop> {
    const MILLIS: &str = "200";
    Ok(testbed.net.ns("pod").run(|| fs::write("/proc/sys/net/ipv4/neigh/eth1/retrans_time_ms", MILLIS))?)
}

const VETH_TO_NETKIT: Case = Case::new(
    "H10",
    "veth-to-netkit",
    "A pod that changes from veth to netkit with a blackhole policy is cut off until attach and never unfiltered.",
    veth_to_netkit,
)
.on(PAIR_TWO_LINKS)
.over(variants::netkit_native)
.needs(&[Capability::Tcx, Capability::Veth, Capability::Dummy]);
fn veth_to_netkit(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    ask_again_soon(&testbed)?;
    let (old, new) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P1)?);
    let _old = testbed.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &old)?;
    let stream = testbed.stream(ctx, "pod", "host", Family::V4)?;
    some_traffic(ctx, &stream)?;
    let unfiltered = || link::stats(testbed.net.ns("host"), "p1").map(|stats| stats.rx_packets);
    let before = unfiltered()?;
    link::delete(testbed.net.ns("host"), "p0")?;
    let silent = falls_silent(&stream);
    ctx.check("nothing arrives while there is no device", silent, silent);
    ctx.equal("packets that the new device let through before attach", unfiltered()? - before, 0);
    let _new = testbed.attach(ctx, P1, variant.attach(), Direction::FromWorkload, &new)?;
    some_traffic(ctx, &stream)?;
    // Datagrams sent meanwhile are lost and not waited for, except those that are queued for neighbour resolution (L2).
    let report = stream.stop_owed(DRAIN_WINDOW, ctx.patience(DRAIN_MS), || met_by(&[&old, &new]))?;
    let met = met_by(&[&old, &new])?;
    ctx.metric("udp.lost.device_change", f64::from(report.lost_count()));
    let gaps = if variant.device() == LinkKind::NetkitL3 { 1..=1 } else { 0..=1 };
    ctx.check(
        "datagrams were lost only between the devices",
        gaps.contains(&report.lost.len()),
        format!("{:?}", report.lost),
    );
    ctx.equal("every datagram that arrived ran one program", met, u64::from(report.received));
    testbed.flow_passes(ctx, "pod", "host", Proto::Tcp, Family::V4);
    Ok(())
}
