//! Writes metadata: `mark` and `priority`, and what only some mechanisms hand on, `tc_classid` and `queue_mapping`.

use crate::{config, parse::Flow, stats};
use aya_ebpf::{macros::classifier, programs::TcContext};
use core::ptr::write_volatile;
use lab_abi::{STAMP_MARK, STAMP_PRIORITY, STAMP_QUEUE, VERDICT_NEXT};

/// Records marked packets as they came, writes to them, and answers with the configured verdict.
#[classifier]
fn stamp(ctx: TcContext) -> i32 {
    let marked = Flow::of(&ctx).is_some_and(|flow| flow.is_marked());
    let verdict = if marked { config::verdict() } else { VERDICT_NEXT };
    stats::record(&ctx, marked, verdict);
    if marked {
        let skb = ctx.skb.skb;
        // Volatile: of neighbouring fields the compiler would make one store, which the verifier refuses.
        // SAFETY: the context is valid while the program runs; the verifier rewrites each access to one of sk_buff.
        unsafe {
            write_volatile(&raw mut (*skb).tc_classid, config::number());
            write_volatile(&raw mut (*skb).queue_mapping, STAMP_QUEUE);
            write_volatile(&raw mut (*skb).mark, STAMP_MARK);
            write_volatile(&raw mut (*skb).priority, STAMP_PRIORITY);
        }
    }
    verdict
}
