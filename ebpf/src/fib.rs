//! What the FIB says of a packet, where the hook runs: recorded, and followed on request.

use crate::{config, parse, parse::Flow, stats};
use aya_ebpf::{
    bindings::{__sk_buff, bpf_fib_lookup, bpf_redir_neigh},
    helpers::generated::{bpf_fib_lookup as fib_lookup, bpf_redirect_neigh},
    macros::classifier,
    programs::TcContext,
};
use lab_abi::{BPF_FIB_LOOKUP_MARK, FIB_MARK, VERDICT_DROP, VERDICT_NEXT};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Traffic class and flow label (`IPV6_FLOWINFO_MASK`, include/net/ipv6.h).
const IPV6_FLOWINFO: u32 = 0x0fff_ffff;
const BPF_FIB_LKUP_RET_SUCCESS: i64 = 0;
/// The device is known, its neighbour is not: redirecting with a next hop resolves it.
const BPF_FIB_LKUP_RET_NO_NEIGH: i64 = 7;

/// Does a lookup for marked packets and returns UNSPEC.
#[classifier]
fn fib(ctx: TcContext) -> i32 {
    steer(&ctx, |_, _| VERDICT_NEXT)
}

/// Sends marked packets where the lookup says, by `bpf_redirect_neigh` to the next hop that it says.
#[classifier]
fn fib_redirect(ctx: TcContext) -> i32 {
    steer(&ctx, |params, code| {
        if code != BPF_FIB_LKUP_RET_SUCCESS && code != BPF_FIB_LKUP_RET_NO_NEIGH {
            return VERDICT_DROP;
        }
        // SAFETY: all members of the unions are plain integers, and the struct was zeroed first.
        unsafe {
            let mut hop: bpf_redir_neigh = core::mem::zeroed();
            hop.nh_family = params.family.into();
            hop.__bindgen_anon_1.ipv6_nh = params.__bindgen_anon_4.ipv6_dst;
            bpf_redirect_neigh(params.ifindex, &raw mut hop, size_of::<bpf_redir_neigh>() as i32, 0) as i32
        }
    })
}

#[inline(always)]
fn steer(ctx: &TcContext, verdict: impl FnOnce(&bpf_fib_lookup, i64) -> i32) -> i32 {
    let Some(flow) = Flow::of(ctx).filter(Flow::is_marked) else {
        stats::record(ctx, false, VERDICT_NEXT);
        return VERDICT_NEXT;
    };
    let Some(mut params) = question(ctx, &flow) else { return VERDICT_NEXT };
    let skb = ctx.skb.skb;
    // SAFETY: the struct outlives the call, and its size is told.
    let code = unsafe {
        fib_lookup(skb.cast(), &raw mut params, size_of::<bpf_fib_lookup>() as i32, config::redirect_flags() as u32)
    };
    let verdict = verdict(&params, code);
    stats::record(ctx, true, verdict);
    stats::record_fib(code as i32, &params);
    verdict
}

/// The packet's addresses, protocol and ports, type of service and length, from the configured device or else from the packet's own.
#[inline(always)]
fn question(ctx: &TcContext, flow: &Flow) -> Option<bpf_fib_lookup> {
    let skb: *const __sk_buff = ctx.skb.skb;
    // SAFETY: plain integers, for which zeros are valid; the context is valid while the program runs.
    let (mut params, own, len, segments): (bpf_fib_lookup, u32, u32, u32) =
        unsafe { (core::mem::zeroed(), (*skb).ifindex, (*skb).len, (*skb).gso_segs) };
    let asked = config::target_ifindex();
    params.ifindex = if asked == 0 { own } else { asked };
    // A packet of several segments is not held against the MTU as a whole.
    if segments == 0 {
        params.__bindgen_anon_1.tot_len = (len - parse::NETWORK as u32) as u16;
    }
    // Rules may ask for the ports, and they choose among several next hops.
    params.l4_protocol = flow.protocol;
    if matches!(flow.protocol, parse::TCP | parse::UDP) {
        params.sport = flow.source.to_be();
        params.dport = flow.destination.to_be();
    }
    // Without BPF_FIB_LOOKUP_TBID it is no table, and the place of a VLAN that a lookup returns.
    params.__bindgen_anon_5.tbid = config::number();
    // A union of the addresses and the mark, which aya's bindings do not have yet.
    if config::redirect_flags() as u32 & BPF_FIB_LOOKUP_MARK != 0 {
        [params.smac[0], params.smac[1], params.smac[2], params.smac[3]] = FIB_MARK.to_ne_bytes();
    }
    if parse::is_ipv6(ctx)? {
        params.family = AF_INET6;
        let head = u32::from_be(ctx.load(parse::NETWORK).ok()?);
        params.__bindgen_anon_2.flowinfo = (head & IPV6_FLOWINFO).to_be();
        params.__bindgen_anon_3.ipv6_src = ctx.load(parse::NETWORK + 8).ok()?;
        params.__bindgen_anon_4.ipv6_dst = ctx.load(parse::NETWORK + 24).ok()?;
    } else {
        params.family = AF_INET;
        params.__bindgen_anon_2.tos = ctx.load(parse::NETWORK + 1).ok()?;
        params.__bindgen_anon_3.ipv4_src = ctx.load(parse::NETWORK + 12).ok()?;
        params.__bindgen_anon_4.ipv4_dst = ctx.load(parse::NETWORK + 16).ok()?;
    }
    Some(params)
}
