//! Rewriting addresses and ports, and every checksum that covers them.

use crate::{
    config,
    packet::{NETWORK, Packet, TCP, UDP},
};
use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_store_bytes},
    programs::TcContext,
};
use lab_abi::datapath::{Address, Tuple, fault};

const IPV4_CHECKSUM: usize = 10;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const ICMP_CHECKSUM: usize = 2;

/// Two addresses next to each other, as an IP header has them.
type Addresses = [Address; 2];

/// Makes the packet what it is to leave as. False where its bytes can't be written.
#[inline(always)]
pub fn translate(ctx: &TcContext, packet: &Packet) -> bool {
    let (came, leaves) = (&packet.tuple, &packet.leaves);
    let done = if packet.related != 0 { error(ctx, packet, came, leaves) } else { plain(ctx, packet, came, leaves) };
    done.is_some()
}

#[inline(always)]
fn plain(ctx: &TcContext, packet: &Packet, came: &Tuple, leaves: &Tuple) -> Option<()> {
    let transport = packet.transport();
    let addresses = rewrite_addresses(
        ctx,
        packet,
        NETWORK,
        &[came.source, came.destination],
        &[leaves.source, leaves.destination],
    )?;
    let ports = rewrite_ports(ctx, transport, came, leaves)?;
    if config::has(fault::CHECKSUM_KEPT) {
        return Some(());
    }
    // A UDP checksum of 0 means none, and stays that.
    let (checksum, flags) = match came.protocol {
        TCP => (transport + TCP_CHECKSUM, 0),
        UDP if config::has(fault::NO_CHECKSUM_FILLED) => (transport + UDP_CHECKSUM, 0),
        UDP => (transport + UDP_CHECKSUM, u64::from(BPF_F_MARK_MANGLED_0)),
        _ => return None,
    };
    replace(ctx, checksum, addresses, flags | u64::from(BPF_F_PSEUDO_HDR))?;
    replace(ctx, checksum, ports, flags)
}

/// An ICMP error's own addresses, and those of the packet that it quotes, whose ends are the other way round. The
/// quoted transport checksum stays: the payload that it covers is cut off, so it cannot be verified.
#[inline(always)]
fn error(ctx: &TcContext, packet: &Packet, came: &Tuple, leaves: &Tuple) -> Option<()> {
    let checksum = packet.transport() + ICMP_CHECKSUM;
    let own = rewrite_addresses(ctx, packet, NETWORK, &[packet.source, packet.destination], &packet.leaving())?;
    if packet.family == 6 {
        replace(ctx, checksum, own, u64::from(BPF_F_PSEUDO_HDR))?;
    }
    if config::has(fault::QUOTE_KEPT) {
        return Some(());
    }
    let (sent, goes_back) = (came.reversed(), leaves.reversed());
    let quoted = packet.quoted();
    let addresses = rewrite_addresses(
        ctx,
        packet,
        quoted,
        &[sent.source, sent.destination],
        &[goes_back.source, goes_back.destination],
    )?;
    let ports = rewrite_ports(ctx, quoted + packet.header_len(), &sent, &goes_back)?;
    // In IPv4 the quoted header's own checksum changes by as much as its addresses, the other way.
    if packet.family == 6 {
        replace(ctx, checksum, addresses, 0)?;
    }
    replace(ctx, checksum, ports, 0)
}

/// Writes the addresses of the IP header at an offset, updates its checksum, and returns the difference.
#[inline(always)]
fn rewrite_addresses(ctx: &TcContext, packet: &Packet, at: usize, old: &Addresses, new: &Addresses) -> Option<u64> {
    let changed = difference(old.as_flattened(), new.as_flattened())?;
    if packet.family == 6 {
        store(ctx, at + 8, new)?;
        return Some(changed);
    }
    store(ctx, at + 12, &[new[0][3], new[1][3]])?;
    if config::has(fault::HEADER_CHECKSUM_KEPT) {
        return Some(changed);
    }
    // SAFETY: the context is valid while the program runs.
    let result = unsafe { bpf_l3_csum_replace(ctx.skb.skb, (at + IPV4_CHECKSUM) as u32, 0, changed, 0) };
    (result == 0).then_some(changed)
}

/// Writes the ports at an offset, and gives back the difference.
#[inline(always)]
fn rewrite_ports(ctx: &TcContext, at: usize, old: &Tuple, new: &Tuple) -> Option<u64> {
    let words = |tuple: &Tuple| {
        let (source, destination) = (tuple.source_port.to_ne_bytes(), tuple.destination_port.to_ne_bytes());
        [u32::from_ne_bytes([source[0], source[1], destination[0], destination[1]])]
    };
    let (old, new) = (words(old), words(new));
    if !config::has(fault::PORTS_KEPT) {
        store(ctx, at, &new)?;
    }
    difference(&old, &new)
}

/// What a checksum over `old` has to change by to be one over `new`.
#[inline(always)]
fn difference(old: &[u32], new: &[u32]) -> Option<u64> {
    let (from, to) = (old.as_ptr().cast_mut(), new.as_ptr().cast_mut());
    // SAFETY: both are readable for their length, and the helper only reads.
    let sum = unsafe { bpf_csum_diff(from, size_of_val(old) as u32, to, size_of_val(new) as u32, 0) };
    u64::try_from(sum).ok()
}

#[inline(always)]
fn replace(ctx: &TcContext, at: usize, changed: u64, flags: u64) -> Option<()> {
    // SAFETY: the context is valid while the program runs.
    let result = unsafe { bpf_l4_csum_replace(ctx.skb.skb, at as u32, 0, changed, flags) };
    (result == 0).then_some(())
}

#[inline(always)]
fn store<T>(ctx: &TcContext, at: usize, bytes: &T) -> Option<()> {
    let from = core::ptr::from_ref(bytes).cast();
    // SAFETY: readable for its size; the context is valid while the program runs.
    let result = unsafe { bpf_skb_store_bytes(ctx.skb.skb, at as u32, from, size_of::<T>() as u32, 0) };
    (result == 0).then_some(())
}
