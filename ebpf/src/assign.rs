//! Gives packets to a socket that they are not addressed to, as a transparent proxy does.

use crate::{
    config,
    parse::{Flow, NETWORK},
    stats,
};
use aya_ebpf::{
    bindings::bpf_sock_tuple,
    helpers::generated::{bpf_sk_assign, bpf_sk_lookup_udp, bpf_sk_release},
    macros::classifier,
    programs::TcContext,
};
use lab_abi::{NO_SOCKET, VERDICT_NEXT};

/// Offset of the addresses in an IPv4 header.
const ADDRESSES: usize = 12;

/// `bpf_sk_assign` of the UDP socket at the packet's IPv4 destination with the configured port, in the namespace that
/// [`config::redirect_flags`] names. The packet goes on in any case.
#[classifier]
fn assign(ctx: TcContext) -> i32 {
    let Some(flow) = Flow::of(&ctx).filter(Flow::is_marked) else { return VERDICT_NEXT };
    stats::record(&ctx, true, VERDICT_NEXT);
    stats::record_code(assigned(&ctx, &flow).unwrap_or(NO_SOCKET));
    VERDICT_NEXT
}

#[inline(always)]
fn assigned(ctx: &TcContext, flow: &Flow) -> Option<i32> {
    let [source, destination]: [u32; 2] = ctx.load(NETWORK + ADDRESSES).ok()?;
    // SAFETY: integers and unions of integers, for which all zeros is a value.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    // SAFETY: a tuple of IPv4 is one of the two kinds.
    let ipv4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
    (ipv4.saddr, ipv4.daddr) = (source, destination);
    (ipv4.sport, ipv4.dport) = (flow.source.to_be(), (config::socket_port() as u16).to_be());
    let length = size_of_val(ipv4) as u32;
    // SAFETY: the context is valid while the program runs, the tuple is readable for its length, and the socket is released.
    unsafe {
        let socket = bpf_sk_lookup_udp(ctx.skb.skb.cast(), &raw mut tuple, length, config::redirect_flags(), 0);
        if socket.is_null() {
            return None;
        }
        let code = bpf_sk_assign(ctx.skb.skb.cast(), socket.cast(), 0);
        bpf_sk_release(socket.cast());
        Some(code as i32)
    }
}
