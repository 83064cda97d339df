//! The forwarding program: translation, then the FIB.

use crate::{
    config, maps, nat,
    packet::{NETWORK, Packet},
};
use aya_ebpf::{
    bindings::{BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup, bpf_redir_neigh},
    helpers::generated::{
        bpf_fib_lookup as fib_lookup, bpf_l3_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer,
    },
    macros::classifier,
    programs::TcContext,
};
use lab_abi::{
    VERDICT_DROP, VERDICT_PASS,
    datapath::{FROM_WORKLOAD, fault},
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPV4_TTL: usize = 8;
const IPV6_HOP_LIMIT: usize = 7;

/// Packets to a workload are where they belong; those from one go where the FIB says, or to the stack where that is
/// the node itself or the FIB has no answer.
#[classifier]
fn forward(ctx: TcContext) -> i32 {
    let Some(packet) = maps::packet() else { return VERDICT_DROP };
    maps::count(packet, |counters| counters.forwarded += 1);
    if packet.leaves != packet.tuple {
        if !nat::translate(&ctx, packet) {
            return VERDICT_DROP;
        }
        maps::count(packet, |counters| counters.translated += 1);
    }
    if packet.direction != FROM_WORKLOAD {
        return VERDICT_PASS;
    }
    let mut route = route(packet);
    let params = (&raw mut route, size_of::<bpf_fib_lookup>() as i32);
    // SAFETY: the context and the parameters are valid while the helper runs.
    let answer = unsafe { fib_lookup(ctx.skb.skb.cast(), params.0, params.1, 0) };
    let resolved = match u32::try_from(answer) {
        Ok(BPF_FIB_LKUP_RET_SUCCESS) => true,
        // Also what an L3 netkit gives, where there is nothing to resolve.
        Ok(BPF_FIB_LKUP_RET_NO_NEIGH) => false,
        _ => return VERDICT_PASS,
    };
    match age(&ctx, packet) {
        None => return VERDICT_DROP,
        // The stack answers with "time exceeded".
        Some(false) => return VERDICT_PASS,
        Some(true) => {}
    }
    maps::count(packet, |counters| counters.redirected += u64::from(!config::has(fault::REDIRECTED_UNCOUNTED)));
    leave(&ctx, &route, resolved)
}

#[inline(always)]
fn leave(ctx: &TcContext, route: &bpf_fib_lookup, resolved: bool) -> i32 {
    if config::has(fault::REDIRECT_PEER) {
        // SAFETY: takes numbers only.
        return unsafe { bpf_redirect_peer(route.ifindex, 0) as i32 };
    }
    if !resolved {
        // With the next hop of this lookup: the helper's own one, without it, follows no rule for the incoming device.
        // SAFETY: all members of the unions are plain integers, and both structs were zeroed first.
        return unsafe {
            let mut hop: bpf_redir_neigh = core::mem::zeroed();
            hop.nh_family = route.family.into();
            hop.__bindgen_anon_1.ipv6_nh = route.__bindgen_anon_4.ipv6_dst;
            bpf_redirect_neigh(route.ifindex, &raw mut hop, size_of::<bpf_redir_neigh>() as i32, 0) as i32
        };
    }
    let written = config::has(fault::MAC_KEPT)
        || (ctx.store(0, &route.dmac, 0).is_ok()
            && (config::has(fault::SOURCE_MAC_KEPT) || ctx.store(route.dmac.len(), &route.smac, 0).is_ok()));
    // SAFETY: takes numbers only.
    if written { unsafe { bpf_redirect(route.ifindex, 0) as i32 } } else { VERDICT_DROP }
}

/// What to ask the FIB: from the workload's device, with the addresses that the packet leaves with.
#[inline(always)]
fn route(packet: &Packet) -> bpf_fib_lookup {
    // SAFETY: integers and unions of integers, for which all zeros is a value.
    let mut route: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    route.ifindex = packet.host_ifindex;
    route.l4_protocol = packet.leaves.protocol as u8;
    let [mut source, destination] = packet.leaving();
    if config::has(fault::FIB_SOURCE_IGNORED) {
        source = [0; 4];
    }
    if packet.family == 4 {
        route.family = AF_INET;
        route.__bindgen_anon_3.ipv4_src = source[3];
        route.__bindgen_anon_4.ipv4_dst = destination[3];
    } else {
        route.family = AF_INET6;
        route.__bindgen_anon_3.ipv6_src = source;
        route.__bindgen_anon_4.ipv6_dst = destination;
    }
    route
}

/// Takes one off the time to live; false where nothing would be left.
#[inline(always)]
fn age(ctx: &TcContext, packet: &Packet) -> Option<bool> {
    let at = NETWORK + if packet.family == 4 { IPV4_TTL } else { IPV6_HOP_LIMIT };
    let left: u8 = ctx.load(at).ok()?;
    if config::has(fault::TTL_KEPT) {
        return Some(true);
    }
    if left <= 1 {
        return Some(false);
    }
    ctx.store(at, &(left - 1), 0).ok()?;
    if packet.family == 4 {
        // The TTL is the high byte of a word of the header.
        let (from, to) = (u16::from(left).to_le(), u16::from(left - 1).to_le());
        // SAFETY: the context is valid while the program runs.
        let result = unsafe { bpf_l3_csum_replace(ctx.skb.skb, (NETWORK + 10) as u32, from.into(), to.into(), 2) };
        if result != 0 {
            return None;
        }
    }
    Some(true)
}
