//! What a cell's report makes of its checks, and of what the cell leaves behind.

use super::{dropping, late_datagram, on_veth, recorded};
use lab_bpf::{Config, Mprog, ProgArray, ProgramKind};
use lab_harness::{
    Netns, PINS,
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    leaks::Inventory,
    testbed::{P0, UNTYPED},
    trip::{HookCounters, Trip},
};
use lab_protocol::{AttachRequest, Capability, CellId, CellReport, Hook, KernelVersion, Outcome, SkipReason};
use lab_topology::{Family, library, link};
use lab_traffic::Proto;
use std::{
    fs::{self, File},
    net::SocketAddr,
    path::Path,
    sync::mpsc,
};

/// In the order in which they run.
pub const CASES: &[Case] = &[OUTCOMES, LEAKS, ROUTED_COUNTS, SOURCES];

/// Ends a scratch context, and checks the outcome of its report.
fn ends(ctx: &mut Ctx, what: &str, scratch: Ctx, result: CaseResult, wanted: &str) -> CellReport {
    let report = scratch.finish(CellId("scratch".into()), result);
    let seen = match &report.outcome {
        Outcome::Failed { message, .. } => format!("failed: {message}"),
        outcome => outcome.word().to_owned(),
    };
    ctx.check(what, report.outcome.word() == wanted, format!("{seen}, wanted {wanted}"));
    report
}

/// A context with one check.
fn checked(mut scratch: Ctx, holds: bool) -> Ctx {
    scratch.check("the only check", holds, holds);
    scratch
}

const OUTCOMES: Case = Case::new(
    "K08",
    "outcomes-follow-the-checks",
    "A report fails without checks, after a failed check, clean-up or late packet, and without the declared topology.",
    outcomes,
)
.on(library::PAIR)
.over(on_veth);
fn outcomes(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let skip = || {
        let reason = SkipReason {
            capability: Capability::Netkit,
            detail: "not asked".to_owned(),
            lifted_by: KernelVersion::new(6, 7, 0),
        };
        Err(Stop::Skip(reason))
    };
    let held = checked(ctx.scratch(), true);
    ends(ctx, "a check that holds", held, Ok(()), "passed");
    let failed = checked(ctx.scratch(), false);
    ends(ctx, "a check that does not hold", failed, Ok(()), "failed");
    let empty = ctx.scratch();
    ends(ctx, "no checks", empty, Ok(()), "failed");
    let held = checked(ctx.scratch(), true);
    ends(ctx, "a skip", held, skip(), "skipped");
    let failed = checked(ctx.scratch(), false);
    ends(ctx, "a skip after a check that does not hold", failed, skip(), "failed");
    let unbuilt = checked(ctx.scratch_declaring(), true);
    ends(ctx, "a topology that is declared and not built", unbuilt, Ok(()), "failed");
    let mut dirty = checked(ctx.scratch(), true);
    dirty.defer("made up", || Err::<(), _>("not cleaned"));
    ends(ctx, "clean-up that fails", dirty, Ok(()), "failed");
    let (ran, order) = mpsc::channel();
    let mut clean = checked(ctx.scratch(), true);
    for what in ["made first", "made from the first"] {
        let ran = ran.clone();
        clean.defer(what, move || ran.send(what));
    }
    ends(ctx, "clean-up", clean, Ok(()), "passed");
    ctx.equal("order of the clean-up", order.try_iter().collect(), vec!["made from the first", "made first"]);

    let mut idle = checked(ctx.scratch(), true);
    let program = testbed.counter(&idle, P0)?;
    let attachment = testbed.attach(&mut idle, P0, AttachRequest::Tc, Direction::FromWorkload, &program)?;
    let report = ends(ctx, "a program without packets", idle, Ok(()), "passed");
    let ran: Vec<Option<u64>> = report.attach.iter().map(|record| record.ran).collect();
    ctx.check("how often it ran", ran == [Some(0)], format!("{ran:?}"));
    attachment.detach()?;

    let late = checked(ctx.scratch(), true);
    let filter = dropping(ctx, &testbed, Direction::FromWorkload)?;
    testbed.none_pass(ctx, [("pod", "host", Proto::Udp, Family::V4)]);
    filter.detach()?;
    let to = SocketAddr::new(testbed.net.addr("host", Family::V4), ctx.marker);
    late_datagram(ctx, &testbed, "pod", "host", to)?;
    ends(ctx, "a packet after the window of a silent flow", late, Ok(()), "failed");
    Ok(())
}

const LEAKS: Case = Case::new(
    "K09",
    "leaks-are-listed",
    "A program, map, link, pin, device or namespace that did not exist before is listed as one.",
    leaks,
)
.on(library::PAIR)
.over(on_veth)
.needs(&[Capability::Dummy]);
fn leaks(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let own = Netns::of("own", File::open("/proc/thread-self/ns/net")?.into())?;
    let (pins, device) = (Path::new(PINS), format!("k{}", ctx.marker));
    let pin = pins.join(&device);
    let before = Inventory::take(pins)?;
    let nothing = before.since(pins)?;
    ctx.check("listed before", nothing.is_empty(), nothing.join(", "));

    let to_delete = device.clone();
    let program = ctx.programs.load(ProgramKind::Count, &Config::new(ctx.marker), &UNTYPED)?;
    let array = ProgArray::create(2)?;
    array.pin(&pin)?;
    let pinned = pin.clone();
    ctx.defer("remove the pin", move || fs::remove_file(pinned));
    link::create_dummy(&own, &device)?;
    ctx.defer("delete the device", move || link::delete(&own, &to_delete));
    let namespace = Netns::new("leaked")?;
    let mut kinds = vec!["program", "map", "pin", "device", "namespace"];
    let at = testbed.ifindex(P0);
    let link = match ctx.capabilities.has(Capability::Tcx) {
        true => {
            kinds.push("link");
            Some(testbed.run(P0, || lab_bpf::attach_link(Hook::TcxIngress, at, &program, &Mprog::default()))?)
        }
        false => None,
    };
    let listed = before.since(pins)?;
    for kind in kinds {
        let found = listed.iter().any(|leak| leak.split(' ').next() == Some(kind));
        ctx.check(format!("a new {kind} is listed"), found, listed.join(", "));
    }
    drop((link, namespace, array, program));
    Ok(())
}

const ROUTED_COUNTS: Case = Case::new(
    "K10",
    "counts-of-routed-flows-are-exact",
    "Programs that count none of a flow's packets fail the check of a flow across several nodes.",
    routed_counts,
)
.on(library::PAIR)
.over(on_veth);
fn routed_counts(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let families = Family::available().len();
    // The second one counts the port of another cell's packets.
    for (what, marker, counts) in
        [("programs that count", ctx.marker, true), ("programs that count none", ctx.marker - 1, false)]
    {
        let mut failed = None;
        let mut attaching = ctx.scratch();
        let watch = HookCounters::marking(&mut attaching, &testbed, P0, AttachRequest::Tc, marker)?;
        recorded(ctx, what, &[true, true, counts].repeat(families), |scratch| {
            failed = Trip::control(scratch, "pod", "host").passes(scratch, &testbed, &[&watch]).err();
        })?;
        if let Some(stop) = failed {
            return Err(stop);
        }
    }
    Ok(())
}

const SOURCES: Case = Case::new(
    "K11",
    "sources-are-compared",
    "A flow whose server sees a translated address does not count as one that passes unchanged.",
    sources,
)
.on(library::GATEWAY_NAT)
.over(on_veth);
fn sources(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    for proto in [Proto::Icmp, Proto::Udp] {
        recorded(ctx, &format!("{proto} from a masqueraded workload"), &[true, false], |scratch| {
            testbed.flow_passes(scratch, "w0", "ext", proto, Family::V4);
        })?;
    }
    Ok(())
}
