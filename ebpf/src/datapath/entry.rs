//! Where a packet enters: the device's two directions.

use crate::{config, maps, packet::Packet};
use aya_ebpf::{macros::classifier, programs::TcContext};
use lab_abi::{
    VERDICT_DROP, VERDICT_NEXT, VERDICT_PASS,
    datapath::{EndpointKey, FROM_WORKLOAD, TO_WORKLOAD, fault},
};

/// Ingress of the workload's device on the node, or `BPF_NETKIT_PEER`.
#[classifier]
fn from_workload(ctx: TcContext) -> i32 {
    enter(&ctx, FROM_WORKLOAD)
}

/// Egress of the workload's device on the node, or `BPF_NETKIT_PRIMARY`.
#[classifier]
fn to_workload(ctx: TcContext) -> i32 {
    enter(&ctx, TO_WORKLOAD)
}

#[inline(always)]
fn enter(ctx: &TcContext, direction: u32) -> i32 {
    let Some(packet) = maps::packet() else { return VERDICT_DROP };
    packet.host_ifindex = config::host_ifindex(ctx);
    packet.direction = direction;
    if packet.read(ctx).is_none() {
        if packet.unreadable == 0 || config::has(fault::UNREADABLE_PASS) {
            return VERDICT_NEXT;
        }
        // Neither a rule nor the reverse path check can be applied to it.
        maps::count(packet, |counters| counters.unreadable += 1);
        return VERDICT_DROP;
    }
    maps::count(packet, |counters| counters.entered += 1);
    if direction == FROM_WORKLOAD && !config::has(fault::NO_RPF) && !is_its_own(packet) {
        maps::count(packet, |counters| counters.spoofed += u64::from(!config::has(fault::SPOOFED_UNCOUNTED)));
        return VERDICT_DROP;
    }
    // SAFETY: does not return where it succeeds; nothing here needs dropping.
    let _ = unsafe { maps::DP_JUMP.tail_call(ctx, config::policy_slot()) };
    maps::count(packet, |counters| counters.missed += u64::from(!config::has(fault::MISSED_UNCOUNTED)));
    // A workload whose policy is not there yet gets nothing through.
    if config::has(fault::OPEN_ON_MISS) { VERDICT_PASS } else { VERDICT_DROP }
}

/// The reverse path check: the source must be the one that user space registered for the device.
#[inline(always)]
fn is_its_own(packet: &Packet) -> bool {
    if config::has(fault::RPF_V4_ONLY) && packet.family == 6 {
        return true;
    }
    let key = EndpointKey { host_ifindex: packet.host_ifindex, family: packet.family };
    // SAFETY: read at once; a concurrent update yields the old or the new address.
    unsafe { maps::ENDPOINTS_MAP.get(&key) }.is_some_and(|address| *address == packet.source)
}
