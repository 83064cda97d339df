//! The connection table, and the lookup of services.

use crate::{
    config, maps,
    packet::{Packet, UDP},
};
use aya_ebpf::bindings::BPF_NOEXIST;
use lab_abi::datapath::{ConnectionKey, FROM_WORKLOAD, ServiceKey, Tuple, fault};

#[inline(always)]
fn key(packet: &Packet, tuple: Tuple) -> ConnectionKey {
    let zone = if config::has(fault::ONE_ZONE) { 0 } else { packet.host_ifindex };
    let protocol = if config::has(fault::PROTOCOL_IGNORED) { 0 } else { tuple.protocol };
    ConnectionKey { zone, tuple: Tuple { protocol, ..tuple } }
}

/// Looks a packet up; where its connection is known, the packet leaves as that says.
#[inline(always)]
pub fn find(packet: &mut Packet) -> bool {
    let key = key(packet, packet.tuple);
    // SAFETY: copied at once. Entries are written whole and never changed.
    let Some(leaves) = (unsafe { maps::CONNECTIONS_MAP.get(&key) }) else { return false };
    packet.leaves = *leaves;
    true
}

/// Decides how a new connection's packets leave, and remembers both of its legs.
#[inline(always)]
pub fn create(packet: &mut Packet) {
    packet.leaves = packet.tuple;
    if packet.direction == FROM_WORKLOAD && !(config::has(fault::SERVICES_V4_ONLY) && packet.family == 6) {
        serve(packet);
    }
    let (came, leaves) = (packet.tuple, packet.leaves);
    remember(packet, came, leaves);
    let forgets = if came == leaves { config::has(fault::NO_REPLY_LEG) } else { config::has(fault::NO_REVERSE_NAT) };
    if !forgets {
        remember(packet, leaves.reversed(), came.reversed());
    }
}

/// The address of a service becomes a backend's. A workload that serves itself would answer itself directly, past the
/// translation back: so it is called by the service's address.
#[inline(always)]
fn serve(packet: &mut Packet) {
    let Tuple { destination: address, destination_port: port, protocol, .. } = packet.tuple;
    let mut key = ServiceKey { address, port, protocol: protocol as u16 };
    if config::has(fault::SERVICE_PROTOCOL_IGNORED) {
        key.protocol = UDP as u16;
    }
    // SAFETY: copied at once.
    let Some(backend) = (unsafe { maps::SERVICES.get(&key) }) else { return };
    packet.leaves.destination = backend.address;
    packet.leaves.destination_port = backend.port;
    if backend.address == packet.tuple.source && !config::has(fault::NO_HAIRPIN_SNAT) {
        packet.leaves.source = address;
    }
}

/// What is known stays: the second leg of a hairpin must not undo the first one's translation.
#[inline(always)]
fn remember(packet: &Packet, came: Tuple, leaves: Tuple) {
    let _ = maps::CONNECTIONS_MAP.insert(&key(packet, came), &leaves, BPF_NOEXIST.into());
}
