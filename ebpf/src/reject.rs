//! Rejects packets with an error: the packet is turned into an ICMP error and sent back to its sender.

use crate::{
    config, parse,
    parse::{Flow, NETWORK, TCP, UDP},
    stats,
};
use aya_ebpf::{
    bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    helpers::generated::{bpf_csum_diff, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail},
    macros::classifier,
    programs::TcContext,
};
use lab_abi::{VERDICT_DROP, VERDICT_NEXT};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const TTL: u8 = 64;
/// "Port unreachable", type and code.
const UNREACHABLE4: [u8; 4] = [3, 3, 0, 0];
const UNREACHABLE6: [u8; 4] = [1, 4, 0, 0];
/// Version 4 and a header without options, with which no packet of the suite comes.
const PLAIN_IPV4: u8 = 0x45;
const ICMP_HEADER: usize = 8;

/// Answers marked TCP and UDP with "port unreachable" from the address that they were for; drops what it can't answer.
#[classifier]
fn reject(ctx: TcContext) -> i32 {
    let Some(flow) = Flow::of(&ctx).filter(Flow::is_marked) else {
        stats::record(&ctx, false, VERDICT_NEXT);
        return VERDICT_NEXT;
    };
    // An error quotes the network header and what tells the flow: of TCP the whole header, where the kernel may still
    // have to fill a checksum in (`CHECKSUM_PARTIAL`) and lets nobody cut before it.
    let answered = match (parse::is_ipv6(&ctx), flow.protocol) {
        (Some(false), UDP) => unreachable4::<7>(&ctx),
        (Some(false), TCP) => unreachable4::<10>(&ctx),
        (Some(true), UDP) => unreachable6::<12>(&ctx),
        (Some(true), TCP) => unreachable6::<15>(&ctx),
        _ => None,
    };
    let verdict = match answered {
        // SAFETY: reads a number from the context, which is valid while the program runs; the helper takes numbers.
        Some(()) => unsafe { bpf_redirect((*ctx.skb.skb).ifindex, config::redirect_flags()) as i32 },
        None => VERDICT_DROP,
    };
    stats::record(&ctx, true, verdict);
    verdict
}

/// Makes the packet an ICMP error that quotes this many words of it.
#[inline(always)]
fn unreachable4<const QUOTED: usize>(ctx: &TcContext) -> Option<()> {
    const HEADER: usize = 20;
    if ctx.load::<u8>(NETWORK).ok()? != PLAIN_IPV4 {
        return None;
    }
    let quote: [u32; QUOTED] = make_room(ctx, HEADER + ICMP_HEADER)?;
    let [high, low] = ((HEADER + ICMP_HEADER + QUOTED * 4) as u16).to_be_bytes();
    let mut header =
        [u32::from_ne_bytes([PLAIN_IPV4, 0, high, low]), 0, u32::from_ne_bytes([TTL, ICMP, 0, 0]), quote[4], quote[3]];
    let [first, second] = fold(sum(&header, 0)).to_ne_bytes();
    header[2] |= u32::from_ne_bytes([0, 0, first, second]);
    ctx.store(NETWORK, &header, 0).ok()?;
    error(ctx, NETWORK + HEADER, UNREACHABLE4, sum(&quote, 0))
}

/// The same for IPv6, whose ICMP has the addresses in its checksum.
#[inline(always)]
fn unreachable6<const QUOTED: usize>(ctx: &TcContext) -> Option<()> {
    const HEADER: usize = 40;
    let quote: [u32; QUOTED] = make_room(ctx, HEADER + ICMP_HEADER)?;
    let length = ICMP_HEADER + QUOTED * 4;
    let [high, low] = (length as u16).to_be_bytes();
    let header = [
        u32::from_ne_bytes([0x60, 0, 0, 0]),
        u32::from_ne_bytes([high, low, ICMPV6, TTL]),
        quote[6],
        quote[7],
        quote[8],
        quote[9],
        quote[2],
        quote[3],
        quote[4],
        quote[5],
    ];
    ctx.store(NETWORK, &header, 0).ok()?;
    let addresses = [
        quote[2],
        quote[3],
        quote[4],
        quote[5],
        quote[6],
        quote[7],
        quote[8],
        quote[9],
        (length as u32).to_be(),
        u32::from(ICMPV6).to_be(),
    ];
    error(ctx, NETWORK + HEADER, UNREACHABLE6, sum(&quote, sum(&addresses, 0)))
}

/// Cuts the packet behind what is quoted, swaps its link-layer addresses, and makes room before its network header.
#[inline(always)]
fn make_room<const QUOTED: usize>(ctx: &TcContext, room: usize) -> Option<[u32; QUOTED]> {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid while the program runs, and nothing points into the packet.
    if unsafe { bpf_skb_change_tail(skb, (NETWORK + QUOTED * 4) as u32, 0) } != 0 {
        return None;
    }
    let quote = ctx.load(NETWORK).ok()?;
    let (to, from): ([u8; 6], [u8; 6]) = (ctx.load(0).ok()?, ctx.load(6).ok()?);
    ctx.store(0, &from, 0).ok()?;
    ctx.store(6, &to, 0).ok()?;
    // SAFETY: as above.
    let grown = unsafe { bpf_skb_adjust_room(skb, room as i32, BPF_ADJ_ROOM_MAC, 0) };
    (grown == 0).then_some(quote)
}

/// Writes the ICMP header before what is quoted, whose sum is given.
#[inline(always)]
fn error(ctx: &TcContext, at: usize, kind: [u8; 4], quoted: u32) -> Option<()> {
    let kind = u32::from_ne_bytes(kind);
    let [first, second] = fold(sum(&[kind], quoted)).to_ne_bytes();
    let header = [kind | u32::from_ne_bytes([0, 0, first, second]), 0];
    ctx.store(at, &header, 0).ok()
}

/// Adds words to a checksum.
#[inline(always)]
fn sum<const WORDS: usize>(words: &[u32; WORDS], seed: u32) -> u32 {
    let (start, length) = (words.as_ptr().cast_mut(), size_of::<[u32; WORDS]>() as u32);
    // SAFETY: the helper only reads the words, whose length is told; nothing is taken away, so that pointer may be
    // null.
    unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, start, length, seed) as u32 }
}

/// A sum as headers have it.
#[inline(always)]
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    !(((once & 0xffff) + (once >> 16)) as u16)
}
