//! Tail calls through a jump map, the way policy programs are plugged in per workload.

use crate::{config, parse::Flow, stats};
use aya_ebpf::{macros::classifier, macros::map, maps::ProgramArray, programs::TcContext};
use lab_abi::{JUMP_SLOTS, VERDICT_NEXT};

#[map]
static JUMP: ProgramArray = ProgramArray::with_max_entries(JUMP_SLOTS, 0);

/// No packet of the lab is that long: `len >> 24` is 0, and the verifier does not know it.
const LONGER_THAN_ALL: u32 = 24;

/// Calls its slot for marked packets; an empty slot, and a call too many, are counted and answered with the configured verdict.
/// With a `number` the index is one that the verifier does not know: the JIT compiles such a call otherwise
/// (`emit_bpf_tail_call_indirect` of arch/x86/net/bpf_jit_comp.c).
#[classifier]
fn tail_entry(ctx: TcContext) -> i32 {
    let marked = Flow::of(&ctx).is_some_and(|flow| flow.is_marked());
    let verdict = if marked { config::verdict() } else { VERDICT_NEXT };
    stats::record(&ctx, marked, verdict);
    if marked {
        let unknown = if config::number() == 0 { 0 } else { ctx.len() >> LONGER_THAN_ALL };
        // SAFETY: does not return where it succeeds; nothing here needs dropping.
        let _ = unsafe { JUMP.tail_call(&ctx, config::jump_index() + unknown) };
        stats::record_miss();
    }
    verdict
}

/// The program in the slot: counts and answers with its own configured verdict.
#[classifier]
fn tail_callee(ctx: TcContext) -> i32 {
    let marked = Flow::of(&ctx).is_some_and(|flow| flow.is_marked());
    let verdict = if marked { config::verdict() } else { VERDICT_NEXT };
    stats::record(&ctx, marked, verdict);
    verdict
}
