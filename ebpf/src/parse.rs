//! From Ethernet to the two ports, and no further: just enough to tell the suite's traffic from the kernel's own.

use crate::config;
use aya_ebpf::programs::TcContext;

const ETHERTYPE: usize = 12;
/// Where the network header starts.
pub const NETWORK: usize = 14;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// Customer and service tags (IEEE 802.1Q), and what each takes.
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
const TAG: usize = 4;
const IPV4_PROTOCOL: usize = 9;
const IPV6_HEADER: usize = 40;
/// More-fragments bit and fragment offset.
const IPV4_FRAGMENT: u16 = 0x3fff;

/// A hop-by-hop header, and the length of one that holds nothing but the jumbo option. With it kernels since "ipv6: Add
/// hop-by-hop header to jumbograms in ip6_output" tell the length of an IPv6 packet beyond 64 KiB, until "net/ipv6: Drop
/// HBH for BIG TCP on TX side".
const HOPOPTS: u8 = 0;
const JUMBO: usize = 8;

const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
const ICMPV6: u8 = 58;

const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_ECHO: u8 = 8;
const ICMPV6_ECHO: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;

/// Protocol and ports in host byte order; an echo has its identifier as both ports.
pub struct Flow {
    pub protocol: u8,
    pub source: u16,
    pub destination: u16,
}

impl Flow {
    /// The packet's flow; `None` for fragments, extension headers but the jumbo option's, ICMP errors and everything that isn't IP.
    /// Up to two VLAN tags are passed over.
    #[inline(always)]
    pub fn of(ctx: &TcContext) -> Option<Self> {
        let (mut network, mut kind) = (NETWORK, ethertype(ctx)?);
        if is_tag(kind) {
            (network, kind) = (NETWORK + TAG, load(ctx, NETWORK + 2).map(u16::from_be)?);
            if is_tag(kind) {
                (network, kind) = (NETWORK + 2 * TAG, load(ctx, NETWORK + TAG + 2).map(u16::from_be)?);
            }
        }
        let (protocol, transport) = match kind {
            ETH_P_IP => {
                let header: [u8; IPV4_PROTOCOL + 1] = load(ctx, network)?;
                if u16::from_be_bytes([header[6], header[7]]) & IPV4_FRAGMENT != 0 {
                    return None;
                }
                (header[IPV4_PROTOCOL], network + usize::from(header[0] & 0x0f) * 4)
            }
            ETH_P_IPV6 => match load(ctx, network + 6)? {
                HOPOPTS => (load(ctx, network + IPV6_HEADER)?, network + IPV6_HEADER + JUMBO),
                next => (next, network + IPV6_HEADER),
            },
            _ => return None,
        };
        // Each load is another call for the verifier to follow. Both ports, or an echo's type and identifier.
        let head: [u8; 6] = load(ctx, transport)?;
        let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let (source, destination) = match (protocol, head[0]) {
            (TCP | UDP, _) => (half(0), half(2)),
            (ICMP, ICMP_ECHO | ICMP_ECHO_REPLY) | (ICMPV6, ICMPV6_ECHO | ICMPV6_ECHO_REPLY) => (half(4), half(4)),
            _ => return None,
        };
        Some(Self { protocol, source, destination })
    }

    /// Whether the flow carries the marker, in either direction.
    #[inline(always)]
    pub fn is_marked(&self) -> bool {
        let marker = config::marker();
        marker != 0 && (self.source == marker || self.destination == marker)
    }
}

#[inline(always)]
fn load<T>(ctx: &TcContext, offset: usize) -> Option<T> {
    ctx.load(offset).ok()
}

#[inline(always)]
fn ethertype(ctx: &TcContext) -> Option<u16> {
    load(ctx, ETHERTYPE).map(u16::from_be)
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETH_P_8021Q | ETH_P_8021AD)
}

/// Whether the packet is IPv6; `None` where it is too short to say.
#[inline(always)]
pub fn is_ipv6(ctx: &TcContext) -> Option<bool> {
    ethertype(ctx).map(|ethertype| ethertype == ETH_P_IPV6)
}
