//! A tunnel that is chosen per packet: network identifier and far end travel with the packet to a device that has
//! neither of its own (`collect_md`).

use crate::{config, redirect::steer};
use aya_ebpf::{
    bindings::{BPF_F_TUNINFO_IPV6, bpf_tunnel_key},
    helpers::generated::{bpf_redirect, bpf_skb_set_tunnel_key},
    macros::classifier,
    programs::TcContext,
};
use core::mem::offset_of;
use lab_abi::VERDICT_DROP;

/// `::ffff:a.b.c.d`, the word before the address.
const MAPPED: u32 = 0xffff_u32.to_be();
const TTL: u8 = 64;
/// A key without the local address, which kernels before 6.0 refuse as too long ("bpf: Add source ip in struct bpf_tunnel_key").
pub const KEY_SIZE: u32 = offset_of!(bpf_tunnel_key, __bindgen_anon_3) as u32;

/// Sends marked packets through the target, wrapped as the settings say.
#[classifier]
fn tunnel(ctx: TcContext) -> i32 {
    steer(&ctx, || {
        // The far end's device takes frames for itself only.
        if ctx.store(0, &config::eth_dst(), 0).is_err() || !choose(&ctx) {
            return VERDICT_DROP.into();
        }
        // SAFETY: takes numbers only.
        unsafe { bpf_redirect(config::target_ifindex(), 0) }
    })
}

#[inline(always)]
fn choose(ctx: &TcContext) -> bool {
    let remote = config::tunnel_remote();
    // SAFETY: integers and unions of integers, for which all zeros is a value.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    key.tunnel_id = config::tunnel_id();
    key.tunnel_ttl = TTL;
    let flags = if remote[0] == 0 && remote[1] == 0 && remote[2] == MAPPED {
        // The one address that the helper wants in the machine's byte order.
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be(remote[3]);
        0
    } else {
        key.__bindgen_anon_1.remote_ipv6 = remote;
        u64::from(BPF_F_TUNINFO_IPV6)
    };
    // SAFETY: the context is valid while the program runs, the key outlives the call and has at least this size.
    unsafe { bpf_skb_set_tunnel_key(ctx.skb.skb, &raw mut key, KEY_SIZE, flags) == 0 }
}
