//! The harness's own checks on a real kernel: each must refuse what it exists to refuse.
//!
//! A check that has become too weak turns no other case red. These cases give every helper something that is wrong, in a
//! context of its own ([`Ctx::scratch`]), and assert that it says so.

use lab_bpf::{Config, ProgramKind};
use lab_harness::{
    case::{Area, Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows,
    testbed::{P0, Testbed},
    variants,
};
use lab_protocol::{AttachRequest, AttachType, Check, LinkKind};
use lab_topology::{Family, library, link};
use lab_traffic::{Path, Proto, UdpOptions, UdpProbe, UdpSink, udp_exchange};
use nix::errno::Errno;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

mod meters;
mod ready;
mod reports;

pub static AREA: Area = Area::new("self-check", &[CASES, reports::CASES, meters::CASES, ready::CASES]);

/// In the order in which they run.
const CASES: &[Case] = &[READ_BACK, CONDITIONS, PASSING, BLOCKED, COUNTED, FOREIGN_ANSWERS, LATE_PACKETS];

/// `TC_ACT_SHOT`.
const DROP: i32 = 2;

fn on_veth() -> Vec<Variant> {
    vec![Variant { device: Some(LinkKind::Veth), ..Variant::default() }]
}

/// Runs helpers in a scratch context, and asserts which of their checks held, in order. A helper that records more or fewer
/// checks stops the case, since a check of its own could be lost in the same way.
fn recorded(ctx: &mut Ctx, what: &str, wanted: &[bool], work: impl FnOnce(&mut Ctx)) -> CaseResult {
    let mut scratch = ctx.scratch();
    work(&mut scratch);
    let checks = scratch.into_checks();
    let held: Vec<bool> = checks.iter().map(|Check { ok, .. }| *ok).collect();
    let seen: Vec<String> = checks.iter().map(|Check { name, seen, .. }| format!("{name}: {seen}")).collect();
    let seen = format!("{held:?}, wanted {wanted:?} ({})", seen.join("; "));
    if held.len() != wanted.len() {
        return Err(Stop::check(format!("{what}: {seen}")));
    }
    ctx.check(what, held == wanted, seen);
    Ok(())
}

fn dropping(ctx: &Ctx, testbed: &Testbed, direction: Direction) -> Result<lab_bpf::TcFilter, Stop> {
    let program = testbed.load(ctx, P0, ProgramKind::Count, Config { verdict: DROP, ..Config::new(ctx.marker) })?;
    testbed.filter(P0, direction, &program, lab_bpf::TcOptions::default())
}

/// Sends a datagram to a node, where it has arrived when this returns: one after it has been received.
pub(super) fn late_datagram(ctx: &Ctx, testbed: &Testbed, from: &str, at: &str, to: SocketAddr) -> Result<(), Stop> {
    let after = testbed.net.ns(at).run(|| UdpSocket::bind((to.ip(), 0)))?;
    after.set_read_timeout(Some(ctx.patience(2_000)))?;
    UdpProbe::connect(testbed.net.ns(from), to)?.send(&[0; 64])?;
    UdpProbe::connect(testbed.net.ns(from), after.local_addr()?)?.send(&[1])?;
    after.recv(&mut [0])?;
    Ok(())
}

const READ_BACK: Case = Case::new(
    "K01",
    "attachment-is-read-back",
    "The report names the hook, program and link that the kernel lists, whatever attach type was requested.",
    read_back,
)
.on(library::PAIR)
.over(variants::usual_hooks);
fn read_back(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const ALL: [AttachRequest; 4] = [AttachRequest::Tc, AttachRequest::Tcx, AttachRequest::Netkit, AttachRequest::Auto];
    let testbed = ctx.testbed()?;
    let (program, other) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?);
    let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    // The truth comes from the one who attached: the hook that was passed to the kernel, and the link's own file descriptor.
    let link = attachment.link().ok().map(|link| link.info()).transpose()?;
    if let Some(link) = &link {
        ctx.equal("program of the link", link.prog_id, program.id());
        ctx.equal("attach type of the link", link.attach_type, lab_bpf::expected_attach_type(attachment.hook));
    }
    let truth = (Some(attachment.hook.attach_type()), Some(attachment.hook), program.id(), link.map(|link| link.id));
    let nothing = (None::<AttachType>, None, other.id(), None);
    for requested in ALL {
        let record = testbed.record(P0, requested, program.id())?;
        let seen = (record.used, record.hook, record.prog_id, record.link_id);
        ctx.equal(format!("the record of a request for {requested}"), seen, truth);
        let record = testbed.record(P0, requested, other.id())?;
        let seen = (record.used, record.hook, record.prog_id, record.link_id);
        ctx.equal(format!("the record of a program that is attached nowhere, requested as {requested}"), seen, nothing);
    }
    let (from, to) = variant.direction().ends("pod", "host");
    testbed.flow_passes(ctx, from, to, Proto::Udp, Family::V4);
    attachment.detach()?;
    let after = testbed.record(P0, variant.attach(), program.id())?;
    ctx.equal("the record after detaching", (after.used, after.hook), (None, None));
    Ok(())
}

const CONDITIONS: Case = Case::new(
    "K02",
    "conditions-are-compared",
    "A check of another value, another errno, a success or a condition that stays false does not hold.",
    conditions,
);
fn conditions(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    recorded(ctx, "equal compares", &[true, false], |scratch| {
        scratch.equal("equal values", 3, 3);
        scratch.equal("different values", 3, 4);
    })?;
    recorded(ctx, "refused compares the errno", &[true, false, false], |scratch| {
        scratch.refused("the errno", Err::<(), _>(Errno::EPERM), Errno::EPERM);
        scratch.refused("another errno", Err::<(), _>(Errno::EINVAL), Errno::EPERM);
        scratch.refused("a success", Ok::<(), Errno>(()), Errno::EPERM);
    })?;
    recorded(ctx, "require records and stops", &[false, false], |scratch| {
        let stopped = scratch.require("a condition that does not hold", false, "false").is_err();
        scratch.check("went on", !stopped, stopped);
    })?;
    let mut asked = 0;
    let never = ctx.wait_until(5, || {
        asked += 1;
        Ok(false)
    })?;
    ctx.equal("a condition that stays false", (never, asked > 1), (false, true));
    let mut asked = 0;
    let third = ctx.wait_until(1_000, || {
        asked += 1;
        Ok(asked == 3)
    })?;
    ctx.equal("a condition that becomes true", (third, asked), (true, 3));
    let mut asked = 0;
    recorded(ctx, "a value is waited for and compared", &[true, false], |scratch| {
        // An error of the value is none of these.
        _ = scratch.becomes("the third is the wanted one", 3, || {
            asked += 1;
            Ok(asked)
        });
        _ = scratch.becomes_within(5, "it never is", 3, || Ok(4));
    })?;
    Ok(())
}

const PASSING: Case = Case::new(
    "K03",
    "a-drop-is-no-pass",
    "A flow of which one direction is dropped does not count as passed, with any protocol.",
    passing,
)
.on(library::PAIR)
.over(on_veth);
fn passing(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    for direction in Direction::BOTH {
        let filter = dropping(ctx, &testbed, direction)?;
        for proto in [Proto::Icmp, Proto::Udp] {
            recorded(ctx, &format!("{proto}, dropped {}", direction.name()), &[false], |scratch| {
                // However long it waits, nothing passes.
                scratch.time_scale = 0.05;
                testbed.flow_passes(scratch, "pod", "host", proto, Family::V4);
            })?;
        }
        filter.detach()?;
    }
    recorded(ctx, "the same flows without the drop", &[true; 4], |scratch| {
        testbed.flow_passes(scratch, "pod", "host", Proto::Icmp, Family::V4);
        testbed.flow_passes(scratch, "pod", "host", Proto::Udp, Family::V4);
    })?;
    Ok(())
}

const BLOCKED: Case = Case::new(
    "K04",
    "silence-needs-packets-that-were-sent",
    "A flow that passes, and a flow that was never sent, are no proof of a drop.",
    blocked,
)
.on(library::PAIR)
.over(on_veth);
fn blocked(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let flows = [("pod", "host", Proto::Icmp, Family::V4), ("pod", "host", Proto::Udp, Family::V4)];
    recorded(ctx, "flows that pass", &[false, false], |scratch| testbed.none_pass(scratch, flows))?;
    let every = vec![false; 2 * Family::available().len()];
    recorded(ctx, "flows of every family that pass", &every, |scratch| testbed.blocked(scratch, "pod", "host"))?;
    let filter = dropping(ctx, &testbed, Direction::FromWorkload)?;
    recorded(ctx, "flows that are dropped", &[true, true], |scratch| testbed.none_pass(scratch, flows))?;
    filter.detach()?;
    // Without its device the pod has no route: the kernel answers with an errno, and no packet reaches any program.
    link::delete(testbed.net.ns("pod"), "eth0")?;
    recorded(ctx, "flows that can't be sent", &[false, false], |scratch| testbed.none_pass(scratch, flows))?;
    Ok(())
}

const COUNTED: Case = Case::new(
    "K05",
    "counts-are-exact",
    "A program that sees none of a flow's packets, or one packet more, does not count what the sockets sent.",
    counted,
)
.on(library::PAIR)
.over(on_veth);
fn counted(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (attached, idle) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?);
    let attachment = testbed.attach(ctx, P0, AttachRequest::Tc, Direction::FromWorkload, &attached)?;
    let direction = Direction::FromWorkload;
    // Each flow is a check that it passes, one of its source, and one of the program's count.
    let flows = flows::all().count();
    let of_each = |count: bool| [true, true, count].repeat(flows);
    let mut failed = None;
    recorded(ctx, "a program that counts", &of_each(true), |scratch| {
        failed = testbed.passes_counted(scratch, "pod", "host", direction, &attached).err();
    })?;
    recorded(ctx, "a program that is attached nowhere", &of_each(false), |scratch| {
        failed = testbed.passes_counted(scratch, "pod", "host", direction, &idle).err();
    })?;
    attachment.detach()?;
    // The other direction of the same flows: every request is counted with its answer.
    let both = testbed.load(ctx, P0, ProgramKind::Count, Config::new(ctx.marker))?;
    let _from = testbed.filter(P0, direction, &both, lab_bpf::TcOptions::default())?;
    let _to = testbed.filter(P0, direction.other(), &both, lab_bpf::TcOptions::default())?;
    let twice: Vec<bool> = flows::all().flat_map(|(proto, _)| [true, true, proto == Proto::Tcp]).collect();
    recorded(ctx, "a program that counts the answers too", &twice, |scratch| {
        failed = failed.take().or(testbed.passes_counted(scratch, "pod", "host", direction, &both).err());
    })?;
    failed.map_or(Ok(()), Err)
}

const FOREIGN_ANSWERS: Case = Case::new(
    "K06",
    "answers-from-elsewhere-are-none",
    "Answers from another address than the one that was asked do not count as answers.",
    foreign_answers,
)
.on(library::PAIR)
.over(on_veth);
/// A server that listens on every address answers from the first one.
fn foreign_answers(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (pod, host) = (testbed.net.ns("pod"), testbed.net.ns("host"));
    let first = testbed.net.addr("host", Family::V4);
    let IpAddr::V4(first_v4) = first else { return Ok(()) };
    let second = Ipv4Addr::from_bits(first_v4.to_bits() + 7);
    link::add_address(host, "p0", &format!("{second}/24"))?;
    let listen = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), ctx.marker);
    let dial = SocketAddr::new(second.into(), ctx.marker);
    let path = Path { dial, listen, ..Path::direct(pod, host, first, ctx.marker) };
    let count = u32::from(flows::EXCHANGES);
    let report = udp_exchange(path, count, UdpOptions::default(), Duration::from_millis(100));
    ctx.equal(
        "delivered, answered, answered from elsewhere",
        (report.delivered, report.echoed, report.foreign),
        (count, 0, count),
    );
    ctx.equal("who answered", report.foreign_source.map(|source| source.ip()), Some(first));
    Ok(())
}

const LATE_PACKETS: Case = Case::new(
    "K07",
    "late-packets-are-found",
    "A packet of a silent flow that arrives after the window is found when the cell ends.",
    late_packets,
)
.on(library::PAIR)
.over(on_veth);
fn late_packets(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let filter = dropping(ctx, &testbed, Direction::FromWorkload)?;
    let flows = [("pod", "host", Proto::Icmp, Family::V4), ("pod", "host", Proto::Udp, Family::V4)];
    testbed.none_pass(ctx, flows);
    ctx.equal("late packets of flows that stay silent", lab_traffic::late_arrivals().len(), 0);
    testbed.none_pass(ctx, flows);
    filter.detach()?;
    let to = SocketAddr::new(testbed.net.addr("host", Family::V4), ctx.marker);
    late_datagram(ctx, &testbed, "pod", "host", to)?;
    let late = lab_traffic::late_arrivals();
    ctx.check("the late datagram", late.len() == 1 && late[0].starts_with("udp from pod to host"), late.join("; "));

    let filter = dropping(ctx, &testbed, Direction::FromWorkload)?;
    testbed.none_pass(ctx, flows);
    filter.detach()?;
    late_datagram(ctx, &testbed, "pod", "host", to)?;
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    let late = lab_traffic::late_arrivals();
    ctx.check("the late datagram before another flow", late.len() == 1, late.join("; "));

    let filter = dropping(ctx, &testbed, Direction::FromWorkload)?;
    testbed.none_pass(ctx, flows);
    filter.detach()?;
    late_datagram(ctx, &testbed, "pod", "host", to)?;
    // The sockets that are kept have this port.
    let sink = UdpSink::bind(testbed.net.ns("host"), to);
    ctx.check("another socket where a flow was silent", sink.is_ok(), format!("{sink:?}"));
    let late = lab_traffic::late_arrivals();
    ctx.check("the late datagram before another socket", late.len() == 1, late.join("; "));
    Ok(())
}
