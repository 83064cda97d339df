//! Counts and records packets, and returns the configured verdict.

use crate::{config, parse::Flow, stats};
use aya_ebpf::{macros::classifier, programs::TcContext};
use lab_abi::VERDICT_NEXT;

/// Answers marked packets with the configured verdict.
#[classifier]
fn count(ctx: TcContext) -> i32 {
    let marked = Flow::of(&ctx).is_some_and(|flow| flow.is_marked());
    let verdict = if marked { config::verdict() } else { VERDICT_NEXT };
    stats::record(&ctx, marked, verdict);
    verdict
}
