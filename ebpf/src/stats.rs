//! Counting and recording.

use crate::config;
use aya_ebpf::{
    bindings::{__sk_buff, bpf_fib_lookup},
    helpers::generated::bpf_ktime_get_ns,
    macros::map,
    maps::PerCpuArray,
    programs::TcContext,
};
use lab_abi::{Seen, Stats, VLAN_PRESENT};

// Per CPU, so that plain additions are exact: these hooks run with bottom halves disabled.
#[map]
static STATS: PerCpuArray<Stats> = PerCpuArray::with_max_entries(1, 0);

/// Counts a packet; where it is marked, also records it together with the verdict that it is about to get.
#[inline(always)]
pub fn record(ctx: &TcContext, marked: bool, verdict: i32) {
    let Some(stats) = stats() else { return };
    stats.packets += 1;
    if !marked {
        return;
    }
    let seen = seen(ctx, verdict);
    stats.marked += 1;
    stats.bytes += u64::from(seen.len);
    if stats.max_len < seen.len {
        stats.max_len = seen.len;
    }
    if stats.max_gso_size < seen.gso_size {
        stats.max_gso_size = seen.gso_size;
    }
    let wire_len = u64::from(seen.wire_len);
    if stats.max_wire_len < wire_len {
        stats.max_wire_len = wire_len;
    }
    stats.last = seen;
}

/// Adds what a helper returned to the record of the packet.
#[inline(always)]
pub fn record_code(code: i32) {
    if let Some(stats) = stats() {
        stats.last.fib_code = code;
    }
}

/// Adds what `bpf_fib_lookup` said to the record of the packet.
#[inline(always)]
pub fn record_fib(code: i32, params: &bpf_fib_lookup) {
    record_code(code);
    if let Some(stats) = stats() {
        stats.last.fib_ifindex = params.ifindex;
        stats.last.fib_family = params.family.into();
        // SAFETY: all members of the unions are plain integers, and the struct was zeroed before it was filled in.
        unsafe {
            stats.last.fib_next_hop = params.__bindgen_anon_4.ipv6_dst;
            stats.last.fib_mtu = params.__bindgen_anon_1.mtu_result.into();
            stats.last.fib_vlan = params.__bindgen_anon_5.tbid;
            stats.last.fib_source = params.__bindgen_anon_3.ipv6_src;
            stats.last.fib_metric = params.__bindgen_anon_2.rt_metric;
        }
    }
}

/// Adds what `bpf_check_mtu` said to the record of the packet.
#[inline(always)]
pub fn record_mtu(code: i32, mtu: u32) {
    if let Some(stats) = stats() {
        stats.last.mtu_code = code;
        stats.last.mtu = mtu;
    }
}

/// Adds what a helper returned and read to the record of the packet.
#[inline(always)]
pub fn record_edit(code: i32, value: u32) {
    if let Some(stats) = stats() {
        stats.last.edit_code = code;
        stats.last.edit_read = value;
    }
}

/// Counts a tail call that found its slot empty, or a packet that is not in one piece.
#[inline(always)]
pub fn record_miss() {
    if let Some(stats) = stats() {
        stats.misses += 1;
    }
}

#[inline(always)]
fn stats() -> Option<&'static mut Stats> {
    // SAFETY: this CPU's value, which lives as long as the program and which nothing else on this CPU touches meanwhile.
    STATS.get_ptr_mut(0).map(|stats| unsafe { &mut *stats })
}

#[inline(always)]
fn seen(ctx: &TcContext, verdict: i32) -> Seen {
    let skb: *const __sk_buff = ctx.skb.skb;
    let [eth_dst, eth_src] = ctx.load(0).unwrap_or_default();
    // SAFETY: the context is valid while the program runs; the verifier rewrites each access to one of sk_buff.
    unsafe {
        Seen {
            time_ns: bpf_ktime_get_ns(),
            tstamp_ns: (*skb).tstamp,
            ifindex: (*skb).ifindex,
            ingress_ifindex: (*skb).ingress_ifindex,
            host_ifindex: config::host_ifindex(),
            mark: (*skb).mark,
            priority: (*skb).priority,
            pkt_type: (*skb).pkt_type,
            protocol: u32::from(u16::from_be((*skb).protocol as u16)),
            len: (*skb).len,
            gso_size: (*skb).gso_size,
            gso_segs: (*skb).gso_segs,
            verdict,
            fib_code: 0,
            fib_ifindex: 0,
            fib_next_hop: [0; 4],
            fib_mtu: 0,
            fib_vlan: 0,
            fib_source: [0; 4],
            fib_metric: 0,
            fib_family: 0,
            tc_index: (*skb).tc_index,
            queue_mapping: (*skb).queue_mapping,
            vlan_tci: if (*skb).vlan_present == 0 { 0 } else { (*skb).vlan_tci | VLAN_PRESENT },
            vlan_proto: u32::from(u16::from_be((*skb).vlan_proto as u16)),
            mtu_code: 0,
            mtu: 0,
            wire_len: (*skb).wire_len,
            hash: (*skb).hash,
            edit_code: 0,
            edit_read: 0,
            eth_dst,
            eth_src,
        }
    }
}
