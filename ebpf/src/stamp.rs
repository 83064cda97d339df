//! Writes metadata that only some mechanisms hand on: `tc_classid` and `queue_mapping`.

use crate::{config, parse::Flow, stats};
use aya_ebpf::{macros::classifier, programs::TcContext};
use lab_abi::{STAMP_QUEUE, VERDICT_NEXT};

/// Records marked packets as they came, writes to them, and answers with the configured verdict.
#[classifier]
fn stamp(ctx: TcContext) -> i32 {
    let marked = Flow::of(&ctx).is_some_and(|flow| flow.is_marked());
    let verdict = if marked { config::verdict() } else { VERDICT_NEXT };
    stats::record(&ctx, marked, verdict);
    if marked {
        let skb = ctx.skb.skb;
        // SAFETY: the context is valid while the program runs; the verifier rewrites each access to one of sk_buff.
        unsafe {
            (*skb).tc_classid = config::number();
            (*skb).queue_mapping = STAMP_QUEUE;
        }
    }
    verdict
}
