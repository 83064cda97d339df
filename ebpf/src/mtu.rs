//! What `bpf_check_mtu` says of a packet, where the hook runs.

use crate::{config, parse::Flow, stats};
use aya_ebpf::{helpers::generated::bpf_check_mtu, macros::classifier, programs::TcContext};
use lab_abi::VERDICT_NEXT;

/// Records the result for marked packets and returns UNSPEC.
#[classifier]
fn check_mtu(ctx: TcContext) -> i32 {
    let marked = Flow::of(&ctx).is_some_and(|flow| flow.is_marked());
    stats::record(&ctx, marked, VERDICT_NEXT);
    if marked {
        // Zero asks about the packet's own length.
        let mut mtu = 0u32;
        let (target, diff) = (config::target_ifindex(), config::mtu_len_diff());
        // SAFETY: the context is valid while the program runs, and the number outlives the call.
        let code = unsafe { bpf_check_mtu(ctx.skb.skb.cast(), target, &raw mut mtu, diff, config::redirect_flags()) };
        stats::record_mtu(code as i32, mtu);
    }
    VERDICT_NEXT
}
