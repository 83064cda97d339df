//! Every hook that a packet meets on one link: at both ends, with all attach types at once.

use lab_bpf::{Config, Program, ProgramKind, TcDirection, TcOptions, raw};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows::EXCHANGES,
    testbed::{Handle, MprogCall, P0, Spot, Testbed, attach_hook, hook},
    variants,
};
use lab_protocol::{AttachRequest, AttachType, Capability, LinkKind};
use lab_topology::{Family, library};
use lab_traffic::Proto;
use nix::errno::Errno;
use std::sync::Arc;

/// The workload's end.
const ETH0: Spot = Spot { node: "pod", dev: "eth0" };
const NEXT: i32 = -1;
const PASS: i32 = 0;
const DROP: i32 = 2;

/// In the order in which they run.
pub const CASES: &[Case] = &[EVERY_HOOK_OF_A_PATH, TAKEN_PLACE];

/// A hook on the way of a packet: its name, the device, and how a program is attached there.
type Stage = (&'static str, Spot, AttachRequest, Direction);

/// The hooks of a direction in the order in which a packet meets them: the sending end's egress, then netkit, which runs where
/// the sending end transmits, then the receiving end's ingress.
fn stages(direction: Direction, kind: LinkKind) -> Vec<Stage> {
    let (sender, receiver) = match direction {
        Direction::FromWorkload => (ETH0, P0),
        Direction::ToWorkload => (P0, ETH0),
    };
    // At either end, egress is what goes to the device.
    let mut stages = vec![
        ("tcx egress", sender, AttachRequest::Tcx, Direction::ToWorkload),
        ("clsact egress", sender, AttachRequest::Tc, Direction::ToWorkload),
        ("netkit", P0, AttachRequest::Netkit, direction),
        ("tcx ingress", receiver, AttachRequest::Tcx, Direction::FromWorkload),
        ("clsact ingress", receiver, AttachRequest::Tc, Direction::FromWorkload),
    ];
    stages.retain(|(_, _, request, _)| kind.is_netkit() || *request != AttachRequest::Netkit);
    stages
}

const EVERY_HOOK_OF_A_PATH: Case = Case::new(
    "C07",
    "every-hook-of-a-path",
    "A packet meets tcx and clsact egress, then netkit, then tcx and clsact ingress; PASS at tcx skips clsact, a drop ends it.",
    every_hook,
)
.on(library::PAIR)
.over(variants::devices)
.needs(&[Capability::Tcx, Capability::Clsact])
.within(30_000);
fn every_hook(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    for direction in Direction::BOTH {
        let stages = stages(direction, variant.device());
        let mut chain = Vec::new();
        for stage in &stages {
            let attached = at(ctx, &testbed, *stage, NEXT)?;
            testbed.report(ctx, stage.1, stage.2, attached.0.id(), Some(attached.0.clone()))?;
            chain.push(attached);
        }
        meets(ctx, &testbed, direction, "all NEXT", &chain, |_| true)?;
        let times =
            chain.iter().map(|(program, _)| Ok(program.stats()?.last.time_ns)).collect::<Result<Vec<_>, Stop>>()?;
        ctx.check(format!("{}: the order of the hooks", direction.name()), times.is_sorted(), format!("{times:?} ns"));
        for (number, stage) in stages.iter().enumerate() {
            // Two filters can't have one place.
            drop(chain.remove(number));
            chain.insert(number, at(ctx, &testbed, *stage, DROP)?);
            meets(ctx, &testbed, direction, &format!("DROP at {}", stage.0), &chain, |other| other <= number)?;
            drop(chain.remove(number));
            chain.insert(number, at(ctx, &testbed, *stage, NEXT)?);
        }
        for (number, stage) in stages.iter().enumerate().filter(|(_, stage)| stage.2 == AttachRequest::Tcx) {
            drop(chain.remove(number));
            chain.insert(number, at(ctx, &testbed, *stage, PASS)?);
        }
        meets(ctx, &testbed, direction, "PASS at both tcx hooks", &chain, |other| {
            stages[other].2 != AttachRequest::Tc
        })?;
    }
    Ok(())
}

type Attached = (Arc<Program>, Handle);

fn at(ctx: &Ctx, testbed: &Testbed, (_, spot, request, direction): Stage, verdict: i32) -> Result<Attached, Stop> {
    let program = testbed.load(ctx, spot, ProgramKind::Count, Config { verdict, ..Config::new(ctx.marker) })?;
    let attach_type = match request {
        AttachRequest::Tc => AttachType::Tc,
        AttachRequest::Netkit => AttachType::Netkit,
        AttachRequest::Tcx | AttachRequest::Auto => AttachType::Tcx,
    };
    let ifindex = testbed.ifindex(spot);
    let handle =
        testbed.run(spot, || attach_hook(hook(attach_type, direction), ifindex, &*program, MprogCall::Link))?;
    Ok((program, handle))
}

/// Sends datagrams in the direction, and checks which of the programs met them; without any drop they arrive.
fn meets(
    ctx: &mut Ctx,
    testbed: &Testbed,
    direction: Direction,
    what: &str,
    chain: &[Attached],
    wanted: impl Fn(usize) -> bool,
) -> Result<(), Stop> {
    let count = || chain.iter().map(|(program, _)| Ok(program.stats()?.marked)).collect::<Result<Vec<_>, Stop>>();
    let (from, to) = direction.ends("pod", "host");
    let before = count()?;
    let arrives = !what.starts_with("DROP");
    if arrives {
        testbed.flow_passes(ctx, from, to, Proto::Udp, Family::V4);
    } else {
        let report = testbed.silence(ctx, from, to, Proto::Udp, Family::V4);
        ctx.check(format!("{}: {what}: dropped", direction.name()), report.lost(), &report);
    }
    let met = || Ok(count()?.iter().zip(&before).map(|(now, before)| now - before).collect::<Vec<u64>>());
    let wanted: Vec<u64> = (0..chain.len()).map(|number| if wanted(number) { EXCHANGES.into() } else { 0 }).collect();
    ctx.becomes(format!("{}: {what}: packets at each hook", direction.name()), wanted, met)?;
    Ok(())
}

const TAKEN_PLACE: Case = Case::new(
    "C08",
    "taken-place",
    "A filter for a priority and handle that another owner has is refused; a refused filter leaves clsact and its filters alone.",
    taken_place,
)
.on(library::PAIR)
.over(variants::devices)
.needs(&[Capability::Clsact]);
fn taken_place(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (ifindex, place) = (testbed.ifindex(P0), TcOptions { priority: 7, handle: 7, ..TcOptions::default() });
    let no_classifier = raw::minimal(raw::BPF_PROG_TYPE_XDP, 0, 2)?;
    let has_clsact = || {
        let qdiscs = testbed.run(P0, || lab_bpf::qdiscs(ifindex))?;
        Ok::<_, Stop>(qdiscs.iter().any(|qdisc| qdisc.kind == "clsact"))
    };
    let attach =
        |program: &Program| testbed.run(P0, || lab_bpf::attach_tc(ifindex, TcDirection::Ingress, program, place));
    let refused = testbed.run(P0, || lab_bpf::attach_tc(ifindex, TcDirection::Ingress, &no_classifier, place));
    ctx.refused("a program of another type on a device without clsact", refused, Errno::EINVAL);
    ctx.equal("clsact on a device that had none", has_clsact()?, false);

    let (theirs, ours) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?);
    let _theirs = testbed.filter(P0, Direction::FromWorkload, &theirs, place)?;
    testbed.report(ctx, P0, AttachRequest::Tc, theirs.id(), Some(theirs.clone()))?;
    let beside = TcOptions { priority: 8, ..place };
    let refused = testbed.run(P0, || lab_bpf::attach_tc(ifindex, TcDirection::Ingress, &no_classifier, beside));
    ctx.refused("a program of another type beside theirs", refused, Errno::EINVAL);
    ctx.refused("our program in their place", attach(&ours), Errno::EEXIST);
    ctx.equal("clsact after the refusals", has_clsact()?, true);
    let listed: Vec<u32> = testbed.observe(P0)?.iter().map(|seen| seen.prog_id).collect();
    ctx.equal("filters after the refusals", listed, vec![theirs.id()]);
    let before = theirs.stats()?.marked;
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    ctx.equal("packets at their filter", theirs.stats()?.marked - before, EXCHANGES.into());
    ctx.equal("packets at our program", ours.stats()?.marked, 0);
    Ok(())
}
