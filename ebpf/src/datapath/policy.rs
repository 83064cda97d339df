//! The policy program: one per workload, plugged into the workload's slot of the jump map.

use crate::{config, connection, maps, packet::Packet};
use aya_ebpf::{macros::classifier, maps::lpm_trie::Key, programs::TcContext};
use lab_abi::{
    VERDICT_DROP, VERDICT_PASS,
    datapath::{FORWARD_SLOT, FROM_WORKLOAD, RuleKey, fault},
};

/// Judges the first packet of a connection by the workload's rules; the others follow it.
#[classifier]
fn policy(ctx: TcContext) -> i32 {
    let Some(packet) = maps::packet() else { return VERDICT_DROP };
    maps::count(packet, |counters| counters.judged += 1);
    if connection::find(packet) {
        if packet.related != 0 {
            if config::has(fault::RELATED_DENIED) {
                return VERDICT_DROP;
            }
            maps::count(packet, |counters| counters.related += 1);
        }
    } else if packet.related != 0 && !config::has(fault::UNKNOWN_ERRORS_PASS) || verdict(packet) == VERDICT_DROP {
        maps::count(packet, |counters| counters.denied += u64::from(!config::has(fault::DENIED_UNCOUNTED)));
        return VERDICT_DROP;
    } else {
        connection::create(packet);
    }
    // SAFETY: does not return where it succeeds; nothing here needs dropping.
    let _ = unsafe { maps::DP_JUMP.tail_call(&ctx, FORWARD_SLOT) };
    maps::count(packet, |counters| counters.missed += 1);
    VERDICT_DROP
}

/// A rule for the port comes before a rule for everything; without either the packet passes.
#[inline(always)]
fn verdict(packet: &Packet) -> i32 {
    let remote = if packet.direction == FROM_WORKLOAD { packet.tuple.destination } else { packet.tuple.source };
    let mut key = RuleKey {
        host_ifindex: packet.host_ifindex,
        direction: packet.direction as u16,
        port: packet.tuple.destination_port,
        protocol: packet.tuple.protocol,
        remote,
    };
    let exact = if config::has(fault::SERVICE_RULES_IGNORED) { None } else { rule(key) };
    key.port = 0;
    key.protocol = 0;
    let verdict = exact.or_else(|| rule(key)).unwrap_or(VERDICT_PASS);
    if !config::has(fault::POLICY_INVERTED) {
        verdict
    } else if verdict == VERDICT_DROP {
        VERDICT_PASS
    } else {
        VERDICT_DROP
    }
}

#[inline(always)]
fn rule(key: RuleKey) -> Option<i32> {
    maps::RULES_MAP.get(Key::new(RuleKey::ALL_BITS, key)).copied()
}
