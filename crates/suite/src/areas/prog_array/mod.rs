//! prog_arrays, tail calls and expected_attach_type.

use crate::areas::links::pins::pin_path;
use lab_bpf::{Config, LoadOptions, ProgArray, Program, ProgramKind, raw};
use lab_harness::{
    case::{Area, Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows::{self, EXCHANGES},
    testbed::{P0, Testbed, hook},
    variants,
};
use lab_protocol::{AttachRequest, AttachType, Capability, Hook};
use lab_topology::{Family, library};
use lab_traffic::Proto;
use nix::errno::Errno;
use std::sync::Arc;

const SLOTS: u32 = 16;
/// The slot in which Felix keeps its policy program: a slot other than 0 shows that the index is used.
const SLOT: u32 = 5;
const DROP: i32 = 2;
const SCHED_CLS: u32 = raw::BPF_PROG_TYPE_SCHED_CLS;

pub static AREA: Area = Area::new("prog-array", &[CASES]);

/// In the order in which they run.
const CASES: &[Case] = &[
    ONE_MAP_FOR_ALL,
    CALLEE_OF_ANOTHER_TYPE,
    CALLER_OF_ANOTHER_TYPE,
    MAP_PER_MECHANISM,
    FIRST_USER_OWNS_THE_MAP,
    OWNER_OUTLIVES_ITS_PROGRAMS,
    EMPTY_SLOT,
    REPLACE_CALLEE_LIVE,
    SLOTS_AFTER_A_RESTART,
    LONGEST_CHAIN,
];

/// Whether the kernel requires callers and callees to have the same type; the release is known, and the probe must
/// agree.
fn strict(ctx: &mut Ctx) -> bool {
    let probed = ctx.capabilities.has(Capability::ProgArrayStrict);
    let expected = ctx.capabilities.is_known_for(Capability::ProgArrayStrict);
    ctx.equal("enforcement as documented for this kernel", probed, expected);
    probed
}

fn entry(ctx: &Ctx, testbed: &Testbed, jump: &ProgArray, expected: u32, verdict: i32) -> Result<Arc<Program>, Stop> {
    let config = Config { host_ifindex: testbed.ifindex(P0), jump_index: SLOT, verdict, ..Config::new(ctx.marker) };
    let options = LoadOptions { expected_attach_type: Some(expected), jump: Some(jump) };
    Ok(Arc::new(ctx.programs.load(ProgramKind::TailEntry, &config, &options)?))
}

fn callee(ctx: &Ctx, expected: u32, verdict: i32) -> Result<Arc<Program>, Stop> {
    let config = Config { verdict, ..Config::new(ctx.marker) };
    let options = LoadOptions { expected_attach_type: Some(expected), jump: None };
    Ok(Arc::new(ctx.programs.load(ProgramKind::TailCallee, &config, &options)?))
}

const ONE_MAP_FOR_ALL: Case = Case::new(
    "P01",
    "one-map-for-all",
    "Programs loaded with expected_attach_type 0 share one prog_array across tc, tcx and netkit.",
    one_map_for_all,
)
.on(library::PAIR)
.over(variants::devices)
.needs(&[Capability::Clsact]);
fn one_map_for_all(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let jump = ProgArray::create(SLOTS)?;
    let target = callee(ctx, 0, -1)?;
    jump.insert(SLOT, &*target)?;
    let mut requests = vec![AttachRequest::Tc];
    if ctx.capabilities.has(Capability::Tcx) {
        requests.push(AttachRequest::Tcx);
    }
    if variant.device().is_netkit() {
        requests.push(AttachRequest::Netkit);
    }
    for request in requests {
        let caller = entry(ctx, &testbed, &jump, 0, DROP)?;
        let attachment = testbed.attach(ctx, P0, request, Direction::FromWorkload, &caller)?;
        let before = target.stats()?.marked;
        testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
        let ran = target.stats()?.marked - before;
        ctx.check(format!("the callee ran for {request}"), ran > 0, ran);
        attachment.detach()?;
    }
    Ok(())
}

/// An errno on enforcing kernels, success on the others.
fn check_refusal<T>(ctx: &mut Ctx, name: &str, strict: bool, result: Result<T, lab_bpf::BpfError>) {
    if strict {
        ctx.refused(name.to_owned(), result, Errno::EINVAL);
    } else {
        let seen = result.as_ref().err().map_or_else(|| "accepted".to_owned(), ToString::to_string);
        ctx.check(format!("{name} (not enforced here)"), result.is_ok(), seen);
    }
}

const CALLEE_OF_ANOTHER_TYPE: Case = Case::new(
    "P02",
    "callee-of-another-type",
    "A prog_array refuses a callee with another expected_attach_type only on kernels that enforce equal types.",
    callee_of_another_type,
);
fn callee_of_another_type(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let strict = strict(ctx);
    for hook in [Hook::TcxIngress, Hook::TcxEgress, Hook::NetkitPrimary, Hook::NetkitPeer] {
        let jump = ProgArray::create(SLOTS)?;
        let owner = raw::minimal(SCHED_CLS, 0, 0)?;
        jump.insert(0, &owner)?;
        let stranger = raw::minimal(SCHED_CLS, lab_bpf::expected_attach_type(hook), 0)?;
        check_refusal(ctx, &format!("a map of type 0 refuses {hook}"), strict, jump.insert(1, &stranger));
        let same = raw::minimal(SCHED_CLS, 0, 0)?;
        ctx.check("the map accepts another program of type 0", jump.insert(2, &same).is_ok(), "BPF_MAP_UPDATE_ELEM");
    }
    Ok(())
}

const CALLER_OF_ANOTHER_TYPE: Case = Case::new(
    "P03",
    "caller-of-another-type",
    "Loading a caller with another expected_attach_type than the map's owner fails only on kernels that enforce equal types.",
    caller_of_another_type,
);
fn caller_of_another_type(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let strict = strict(ctx);
    let tcx = lab_bpf::expected_attach_type(Hook::TcxIngress);
    let jump = ProgArray::create(SLOTS)?;
    let _owner = raw::tail_caller(&jump, 0, 0, 0)?;
    check_refusal(ctx, "a second caller of another type does not load", strict, raw::tail_caller(&jump, 0, tcx, 0));
    let same = raw::tail_caller(&jump, 0, 0, 0);
    ctx.check("a second caller of the same type loads", same.is_ok(), format!("{:?}", same.err()));
    Ok(())
}

const FIRST_USER_OWNS_THE_MAP: Case = Case::new(
    "P05",
    "first-user-owns-the-map",
    "The first program sets a prog_array's type; a program of another type is refused on kernels that enforce equal types.",
    first_user_owns,
);
fn first_user_owns(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let strict = strict(ctx);
    let netkit = lab_bpf::expected_attach_type(Hook::NetkitPeer);
    for (first, second) in [(0, netkit), (netkit, 0)] {
        let jump = ProgArray::create(SLOTS)?;
        let owner = raw::minimal(SCHED_CLS, first, 0)?;
        jump.insert(0, &owner)?;
        let late = raw::minimal(SCHED_CLS, second, 0)?;
        check_refusal(ctx, &format!("type {second} after type {first}"), strict, jump.insert(1, &late));
        let caller = raw::tail_caller(&jump, 0, second, 0);
        check_refusal(ctx, &format!("a caller of type {second} after type {first}"), strict, caller);
    }
    Ok(())
}

const OWNER_OUTLIVES_ITS_PROGRAMS: Case = Case::new(
    "P06",
    "owner-outlives-its-programs",
    "A pinned prog_array keeps the type of its first program after all programs are unloaded, if types are enforced.",
    owner_outlives,
);
fn owner_outlives(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let strict = strict(ctx);
    let path = pin_path(ctx, "jump");
    let tcx = lab_bpf::expected_attach_type(Hook::TcxIngress);
    let owner = raw::minimal(SCHED_CLS, tcx, 0)?;
    let jump = ProgArray::create(SLOTS)?;
    jump.insert(SLOT, &owner)?;
    jump.pin(&path)?;
    jump.remove(SLOT)?;
    drop(jump);
    let id = owner.id();
    drop(owner);
    let gone = ctx.wait_until(2_000, || Ok(!lab_bpf::prog_ids()?.contains(&id)))?;
    ctx.require("the owner program is unloaded", gone, id)?;
    let reopened = ProgArray::open_pinned(&path)?;
    let plain = raw::minimal(SCHED_CLS, 0, 0)?;
    check_refusal(ctx, "the empty map refuses type 0", strict, reopened.insert(SLOT, &plain));
    let same = reopened.insert(SLOT, &raw::minimal(SCHED_CLS, tcx, 0)?);
    let seen = format!("{same:?}");
    // Without enforcement the map accepted type 0 above, and accepts any other type too.
    ctx.check("the empty map accepts its owner's type", same.is_ok(), seen);
    Ok(())
}

const MAP_PER_MECHANISM: Case = Case::new(
    "P04",
    "map-per-mechanism",
    "With a prog_array per mechanism, tail calls work for programs with their hook's expected_attach_type.",
    map_per_mechanism,
)
.on(library::PAIR)
.over(variants::mechanisms);
fn map_per_mechanism(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let strict = strict(ctx);
    let attach_type = match variant.attach() {
        AttachRequest::Tcx => AttachType::Tcx,
        AttachRequest::Netkit => AttachType::Netkit,
        AttachRequest::Tc | AttachRequest::Auto => AttachType::Tc,
    };
    for direction in Direction::BOTH {
        let expected = lab_bpf::expected_attach_type(hook(attach_type, direction));
        let jump = ProgArray::create(SLOTS)?;
        let target = callee(ctx, expected, -1)?;
        jump.insert(SLOT, &*target)?;
        let caller = entry(ctx, &testbed, &jump, expected, DROP)?;
        let attachment = testbed.attach(ctx, P0, variant.attach(), direction, &caller)?;
        testbed.passes_counted(ctx, "pod", "host", direction, &target)?;
        let stranger = raw::minimal(SCHED_CLS, if expected == 0 { 46 } else { 0 }, 0)?;
        check_refusal(ctx, "the map refuses another mechanism's program", strict, jump.insert(1, &stranger));
        attachment.detach()?;
    }
    Ok(())
}

const EMPTY_SLOT: Case = Case::new(
    "P08",
    "empty-slot",
    "After a tail call into an empty slot the caller's own verdict applies, here a drop.",
    empty_slot,
)
.on(library::PAIR)
.over(variants::mechanisms);
fn empty_slot(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let jump = ProgArray::create(SLOTS)?;
    let caller = entry(ctx, &testbed, &jump, 0, DROP)?;
    let _attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &caller)?;
    let report = testbed.silence(ctx, "pod", "host", Proto::Udp, Family::V4);
    ctx.check("nothing is delivered with an empty slot", report.lost(), &report);
    ctx.becomes("tail calls into an empty slot", report.wanted.into(), || Ok(caller.stats()?.misses))?;
    let target = callee(ctx, 0, -1)?;
    jump.insert(SLOT, &*target)?;
    testbed.passes_counted(ctx, "pod", "host", Direction::FromWorkload, &target)?;
    jump.remove(SLOT)?;
    let missed = caller.stats()?.misses;
    let report = testbed.silence(ctx, "pod", "host", Proto::Udp, Family::V6);
    ctx.check("nothing is delivered after the slot was emptied again", report.lost(), &report);
    let what = "tail calls into the slot that was emptied again";
    ctx.becomes(what, report.wanted.into(), || Ok(caller.stats()?.misses - missed))?;
    Ok(())
}

const REPLACE_CALLEE_LIVE: Case = Case::new(
    "P09",
    "replace-callee-live",
    "Replacing a callee under traffic takes effect at once and loses no packet.",
    replace_callee,
)
.on(library::PAIR)
.over(variants::mechanisms);
fn replace_callee(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const ROUNDS: usize = 10;
    let testbed = ctx.testbed()?;
    let jump = ProgArray::create(SLOTS)?;
    let callees = [callee(ctx, 0, -1)?, callee(ctx, 0, 0)?];
    jump.insert(SLOT, &*callees[0])?;
    let caller = entry(ctx, &testbed, &jump, 0, DROP)?;
    let _attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &caller)?;
    let stream = testbed.stream(ctx, "pod", "host", Family::V4)?;
    for round in 1..=ROUNDS {
        let target = &callees[round % 2];
        let before = target.stats()?.marked;
        jump.insert(SLOT, &**target)?;
        let took_over = ctx.wait_until(2_000, || Ok(target.stats()?.marked > before))?;
        ctx.check(format!("round {round}: the new callee runs"), took_over, target.stats()?.marked);
    }
    let report = stream.stop(ctx.patience(500));
    ctx.metric("udp.sent", f64::from(report.sent));
    ctx.metric("udp.lost", f64::from(report.lost_count()));
    ctx.equal("datagrams lost", report.lost_count(), 0);
    flows::in_order(ctx, &report);
    ctx.equal("tail calls into an empty slot", caller.stats()?.misses, 0);
    let ran: u64 = callees.iter().map(|target| target.stats().map(|stats| stats.marked)).sum::<Result<u64, _>>()?;
    ctx.equal("every packet ran exactly one callee", ran, u64::from(report.sent));
    Ok(())
}

const SLOTS_AFTER_A_RESTART: Case = Case::new(
    "P10",
    "slots-after-a-restart",
    "An owner that opens a pinned prog_array again reads which slots are taken, and a program in a free one disturbs no other.",
    slots_after_restart,
)
.on(library::PAIR)
.over(variants::one_each);
fn slots_after_restart(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let path = pin_path(ctx, "jump");
    let jump = ProgArray::create(SLOTS)?;
    jump.pin(&path)?;
    let target = callee(ctx, 0, -1)?;
    jump.insert(SLOT, &*target)?;
    let caller = entry(ctx, &testbed, &jump, 0, DROP)?;
    let _attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &caller)?;
    drop(jump);
    let reopened = ProgArray::open_pinned(&path)?;
    let mut free = Vec::new();
    for slot in 0..SLOTS {
        match reopened.program(slot) {
            Ok(id) => _ = ctx.equal(format!("program in slot {slot}"), (slot, id), (SLOT, target.id())),
            Err(error) => {
                ctx.refused(format!("slot {slot}"), Err::<(), _>(error), Errno::ENOENT);
                free.push(slot);
            }
        }
    }
    ctx.equal("free slots", free.len() as u32, SLOTS - 1);
    // Another workload's program, which drops, gets a slot that is free.
    let second = callee(ctx, 0, DROP)?;
    reopened.insert(free[0], &*second)?;
    testbed.passes_counted(ctx, "pod", "host", Direction::FromWorkload, &target)?;
    ctx.equal("packets at the program in the other slot", second.stats()?.marked, 0);
    Ok(())
}

const LONGEST_CHAIN: Case = Case::new(
    "P11",
    "longest-chain",
    "A packet makes 33 tail calls and no more, with an index that is known when the program is loaded and with one that is not.",
    longest_chain,
)
.on(library::PAIR)
.over(variants::mechanisms);
/// `MAX_TAIL_CALL_CNT` of include/linux/bpf.h: 33 since "bpf: Change value of MAX_TAIL_CALL_CNT from 32 to 33", and the 33 that
/// the x86 JIT allowed before.
const TAIL_CALLS: u64 = 33;
fn longest_chain(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    for (number, what) in [(0, "an index that is known"), (1, "an index that the packet's length decides")] {
        let jump = ProgArray::create(SLOTS)?;
        let config = Config { jump_index: SLOT, number, verdict: -1, ..Config::new(ctx.marker) };
        let options = LoadOptions { expected_attach_type: Some(0), jump: Some(&jump) };
        let program = Arc::new(ctx.programs.load(ProgramKind::TailEntry, &config, &options)?);
        // The program calls itself.
        jump.insert(SLOT, &*program)?;
        for direction in Direction::BOTH {
            let attachment = testbed.attach(ctx, P0, variant.attach(), direction, &program)?;
            let before = program.stats()?;
            testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
            let after = program.stats()?;
            let sent = u64::from(EXCHANGES);
            let name = format!("runs for {EXCHANGES} packets, {}, {what}", direction.name());
            ctx.equal(name, after.marked - before.marked, sent * (1 + TAIL_CALLS));
            let name = format!("calls that were one too many, {}, {what}", direction.name());
            ctx.equal(name, after.misses - before.misses, sent);
            attachment.detach()?;
        }
        jump.remove(SLOT)?;
    }
    Ok(())
}
