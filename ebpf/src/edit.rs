//! Changes packets, or reads them, by one helper.

use crate::{
    config, parse,
    parse::{Flow, NETWORK},
    stats,
    tunnel::KEY_SIZE,
};
use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_INVALIDATE_HASH, BPF_F_PSEUDO_HDR, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
        bpf_tunnel_key,
    },
    helpers::generated::{
        bpf_clone_redirect, bpf_l4_csum_replace, bpf_set_hash, bpf_skb_adjust_room, bpf_skb_change_tail,
        bpf_skb_change_type, bpf_skb_ecn_set_ce, bpf_skb_get_tunnel_key, bpf_skb_load_bytes,
        bpf_skb_load_bytes_relative, bpf_skb_pull_data, bpf_skb_set_tstamp, bpf_skb_vlan_pop, bpf_skb_vlan_push,
    },
    macros::classifier,
    programs::TcContext,
};
use core::ptr::{read_volatile, write_volatile};
use lab_abi::{VERDICT_NEXT, edit};

/// The clock of the packet's time, of `bpf_skb_set_tstamp` (include/uapi/linux/bpf.h).
const BPF_SKB_CLOCK_MONOTONIC: u32 = 1;

/// Calls the helper that [`edit`] names for marked packets, records what it returned, and returns UNSPEC.
#[classifier]
fn edit_packet(ctx: TcContext) -> i32 {
    let marked = Flow::of(&ctx).is_some_and(|flow| flow.is_marked());
    stats::record(&ctx, marked, VERDICT_NEXT);
    if marked {
        let (code, value) = call(&ctx, config::redirect_flags());
        stats::record_edit(code as i32, value);
    }
    VERDICT_NEXT
}

/// What the helper returned, and what was read. The verifier removes the calls that are not chosen, so that a kernel needs to know
/// only the helper that is.
#[inline(always)]
fn call(ctx: &TcContext, argument: u64) -> (i64, u32) {
    let skb = ctx.skb.skb;
    let small = argument as u32;
    let mut read = [edit::UNREAD; 4];
    let into = read.as_mut_ptr();
    // SAFETY: the context is valid while the program runs and nothing points into the packet; what is read has its place.
    let code = unsafe {
        match config::number() {
            edit::VLAN_PUSH => bpf_skb_vlan_push(skb, ((small >> 16) as u16).to_be(), small as u16),
            edit::VLAN_POP => bpf_skb_vlan_pop(skb),
            edit::TYPE => bpf_skb_change_type(skb, small),
            edit::HASH => bpf_set_hash(skb, small),
            edit::STORE => {
                bpf_set_hash(skb, small);
                // The first byte of the network header is written as it is.
                let stored =
                    ctx.load::<u8>(NETWORK).and_then(|it| ctx.store(NETWORK, &it, BPF_F_INVALIDATE_HASH.into()));
                stored.map_or_else(i64::from, |()| 0)
            }
            edit::READ => bpf_skb_load_bytes_relative(skb.cast(), small >> 16, into.cast(), 1, small & 0xffff),
            edit::READ_PAST => bpf_skb_load_bytes(skb.cast(), (*skb).len - 1, into.cast(), 4),
            edit::PULL => {
                let code = bpf_skb_pull_data(skb, (*skb).len);
                count_pieces(ctx);
                code
            }
            edit::CONGESTED => bpf_skb_ecn_set_ce(skb),
            edit::TIME => bpf_skb_set_tstamp(skb, argument, BPF_SKB_CLOCK_MONOTONIC),
            edit::CLONE => bpf_clone_redirect(skb, config::target_ifindex(), argument),
            edit::INDEX => {
                write_volatile(&raw mut (*skb).tc_index, small);
                write_volatile(&raw mut (*skb).queue_mapping, small);
                0
            }
            edit::GROW => {
                let length = (*skb).len;
                let grown = bpf_skb_change_tail(skb, length + small, 0);
                let between = read_volatile(&raw const (*skb).len);
                return (grown | bpf_skb_change_tail(skb, length, 0), between);
            }
            edit::METADATA => return (0, (ctx.data() - read_volatile(&raw const (*skb).data_meta) as usize) as u32),
            edit::TUNNEL_ID | edit::TUNNEL_REMOTE => return tunnel_key(ctx, argument),
            edit::WRAP => return wrap(ctx),
            edit::SUM => return sum(ctx, argument),
            edit::TWO_TAGS => return two_tags(ctx, small),
            _ => {
                count_pieces(ctx);
                0
            }
        }
    };
    (code, u32::from_le_bytes(read))
}

/// Counts a packet of which a program can't read all without a helper.
#[inline(always)]
fn count_pieces(ctx: &TcContext) {
    // SAFETY: the context is valid while the program runs.
    if ctx.data_end() - ctx.data() < unsafe { (*ctx.skb.skb).len } as usize {
        stats::record_miss();
    }
}

/// Makes room for an outer header of the other family and takes it away again: both results, and the EtherTypes after each.
#[inline(always)]
fn wrap(ctx: &TcContext) -> (i64, u32) {
    const IPV4_HEADER: i32 = 20;
    const IPV6_HEADER: i32 = 40;
    let skb = ctx.skb.skb;
    let (room, outer, inner) = match parse::is_ipv6(ctx) {
        Some(true) => (IPV4_HEADER, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6),
        _ => (IPV6_HEADER, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_DECAP_L3_IPV4),
    };
    // SAFETY: the context is valid while the program runs and nothing points into the packet.
    unsafe {
        let segment = (*skb).gso_size;
        let wrapped = bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, outer.into());
        let (between, shorter) = (read_volatile(&raw const (*skb).protocol), read_volatile(&raw const (*skb).gso_size));
        let unwrapped = bpf_skb_adjust_room(skb, -room, BPF_ADJ_ROOM_MAC, inner.into());
        let after = read_volatile(&raw const (*skb).protocol);
        if segment != 0 && shorter + room as u32 != segment {
            stats::record_miss();
        }
        let ethertype = |protocol: u32| u32::from(u16::from_be(protocol as u16));
        (wrapped | unwrapped, ethertype(between) << 16 | ethertype(after))
    }
}

/// Changes the checksum of UDP over IPv4 and changes it back: both results, and the checksum before and in between.
#[inline(always)]
fn sum(ctx: &TcContext, added: u64) -> (i64, u32) {
    /// Behind an IPv4 header without options.
    const CHECKSUM: usize = NETWORK + 20 + 6;
    /// The size of the field is in the lower bits.
    const TWO_BYTES: u64 = 2;
    let how = u64::from(BPF_F_PSEUDO_HDR) | TWO_BYTES;
    let read = || ctx.load::<u16>(CHECKSUM).map_or(0, u32::from);
    let skb = ctx.skb.skb;
    let before = read();
    // SAFETY: the context is valid while the program runs and nothing points into the packet.
    let changed = unsafe { bpf_l4_csum_replace(skb, CHECKSUM as u32, 0, added, how) };
    let between = read();
    // SAFETY: as above.
    let restored = unsafe { bpf_l4_csum_replace(skb, CHECKSUM as u32, added, 0, how) };
    (changed | restored, before << 16 | between)
}

/// Pushes a tag behind another one and takes both off: all results, and the tags that were beside the packet in between.
#[inline(always)]
fn two_tags(ctx: &TcContext, tags: u32) -> (i64, u32) {
    const ETH_P_8021Q: u16 = 0x8100;
    const ETH_P_8021AD: u16 = 0x88a8;
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid while the program runs and nothing points into the packet.
    unsafe {
        let inner = bpf_skb_vlan_push(skb, ETH_P_8021Q.to_be(), (tags >> 16) as u16);
        let outer = bpf_skb_vlan_push(skb, ETH_P_8021AD.to_be(), tags as u16);
        let pushed = read_volatile(&raw const (*skb).vlan_tci);
        let first = bpf_skb_vlan_pop(skb);
        let popped = read_volatile(&raw const (*skb).vlan_tci);
        (inner | outer | first | bpf_skb_vlan_pop(skb), pushed << 16 | popped & 0xffff)
    }
}

/// Which tunnel the packet came through: the result, and what [`config::number`] asks for.
#[inline(always)]
fn tunnel_key(ctx: &TcContext, flags: u64) -> (i64, u32) {
    // SAFETY: integers and unions of integers, for which all zeros is a value.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    // SAFETY: the context is valid while the program runs, the key outlives the call and has at least this size.
    let code = unsafe { bpf_skb_get_tunnel_key(ctx.skb.skb, &raw mut key, KEY_SIZE, flags) };
    // SAFETY: every word of the union is initialised, and has a value for each kind of address.
    let (v4, v6) = unsafe { (key.__bindgen_anon_1.remote_ipv4, u32::from_be(key.__bindgen_anon_1.remote_ipv6[3])) };
    match (config::number(), flags) {
        (edit::TUNNEL_ID, _) => (code, key.tunnel_id),
        // The one address that the helper gives in the machine's byte order.
        (_, 0) => (code, v4),
        _ => (code, v6),
    }
}
