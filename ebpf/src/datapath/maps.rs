//! The maps. All programs of a node share them, whatever they are attached by; only jump maps are per mechanism.

use crate::{config, packet::Packet};
use aya_ebpf::{
    macros::map,
    maps::{HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, ProgramArray},
};
use lab_abi::{
    JUMP_SLOTS,
    datapath::{
        Address, Backend, CONNECTIONS, ConnectionKey, CounterKey, Counters, ENDPOINTS, EndpointKey, RULES, RuleKey,
        ServiceKey, TO_WORKLOAD, Tuple, fault,
    },
};

#[map]
pub static ENDPOINTS_MAP: HashMap<EndpointKey, Address> = HashMap::with_max_entries(ENDPOINTS, 0);
#[map]
pub static SERVICES: HashMap<ServiceKey, Backend> = HashMap::with_max_entries(ENDPOINTS, 0);
#[map]
pub static RULES_MAP: LpmTrie<RuleKey, i32> = LpmTrie::with_max_entries(RULES, 0);
#[map]
pub static CONNECTIONS_MAP: LruHashMap<ConnectionKey, Tuple> = LruHashMap::with_max_entries(CONNECTIONS, 0);
#[map]
pub static DP_JUMP: ProgramArray = ProgramArray::with_max_entries(JUMP_SLOTS, 0);
// Entries are made by user space, one per workload and direction. Per CPU, so that plain additions are exact.
#[map]
static COUNTERS: PerCpuHashMap<CounterKey, Counters> = PerCpuHashMap::with_max_entries(2 * ENDPOINTS, 0);
// What the programs of one packet hand on to each other: tail calls stay on their CPU, bottom halves disabled.
#[map]
static PACKET: PerCpuArray<Packet> = PerCpuArray::with_max_entries(1, 0);

/// The packet that the programs on this CPU are at.
#[inline(always)]
pub fn packet() -> Option<&'static mut Packet> {
    // SAFETY: this CPU's value, which lives as long as the program and which nothing else on this CPU touches meanwhile.
    PACKET.get_ptr_mut(0).map(|packet| unsafe { &mut *packet })
}

/// Counts something about a workload's packet.
#[inline(always)]
pub fn count(packet: &Packet, what: impl FnOnce(&mut Counters)) {
    if config::has(fault::NOT_COUNTED) && packet.direction == TO_WORKLOAD {
        return;
    }
    let key = CounterKey { host_ifindex: packet.host_ifindex, direction: packet.direction };
    if let Some(counters) = COUNTERS.get_ptr_mut(&key) {
        // SAFETY: as above.
        what(unsafe { &mut *counters });
    }
}
