//! The three redirects: to a device, into a device's peer, and to a device with the neighbour's address filled in.
//!
//! Only marked packets are redirected. A program that also swallowed ARP would break the reply that it waits for.

use crate::{config, parse::Flow, stats};
use aya_ebpf::{
    helpers::generated::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer},
    macros::classifier,
    programs::TcContext,
};
use lab_abi::{VERDICT_DROP, VERDICT_NEXT};

/// `bpf_redirect`: out of the target, or with `BPF_F_INGRESS` into it.
#[classifier]
fn redirect(ctx: TcContext) -> i32 {
    steer(&ctx, || {
        if !address(&ctx) {
            return VERDICT_DROP.into();
        }
        // SAFETY: takes numbers only.
        unsafe { bpf_redirect(config::target_ifindex(), config::redirect_flags()) }
    })
}

/// `bpf_redirect_peer`: straight to the other end of the target, past the programs of its transmitting side; with
/// `BPF_F_EGRESS` out of that end, where the packet needs the address that is behind it.
#[classifier]
fn redirect_peer(ctx: TcContext) -> i32 {
    steer(&ctx, || {
        if config::redirect_flags() != 0 && !address(&ctx) {
            return VERDICT_DROP.into();
        }
        // SAFETY: takes numbers only.
        unsafe { bpf_redirect_peer(config::target_ifindex(), config::redirect_flags()) }
    })
}

/// Writes the configured link-layer destination, if there is one; false where the packet does not take it.
#[inline(always)]
fn address(ctx: &TcContext) -> bool {
    let eth_dst = config::eth_dst();
    eth_dst == [0; 6] || ctx.store(0, &eth_dst, 0).is_ok()
}

/// `bpf_redirect_neigh`: out of the target, next hop and link-layer address from the FIB and neighbour tables.
#[classifier]
fn redirect_neigh(ctx: TcContext) -> i32 {
    // SAFETY: no next hop given, so the pointer may be null with length 0.
    steer(&ctx, || unsafe {
        bpf_redirect_neigh(config::target_ifindex(), core::ptr::null_mut(), 0, config::redirect_flags())
    })
}

/// Returns a helper's verdict for marked packets, and UNSPEC for others.
#[inline(always)]
pub fn steer(ctx: &TcContext, helper: impl FnOnce() -> i64) -> i32 {
    let marked = Flow::of(ctx).is_some_and(|flow| flow.is_marked());
    let verdict = if marked { helper() as i32 } else { VERDICT_NEXT };
    stats::record(ctx, marked, verdict);
    verdict
}
