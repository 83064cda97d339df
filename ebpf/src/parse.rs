//! From Ethernet to the two ports, and no further: just enough to tell the suite's traffic from the kernel's own.

use crate::config;
use aya_ebpf::programs::TcContext;

const ETHERTYPE: usize = 12;
/// Where the network header starts.
pub const NETWORK: usize = 14;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
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
    #[inline(always)]
    pub fn of(ctx: &TcContext) -> Option<Self> {
        let (protocol, transport) = match load_u16(ctx, ETHERTYPE)? {
            ETH_P_IP => {
                let header = usize::from(load_u8(ctx, NETWORK)? & 0x0f) * 4;
                if load_u16(ctx, NETWORK + 6)? & IPV4_FRAGMENT != 0 {
                    return None;
                }
                (load_u8(ctx, NETWORK + 9)?, NETWORK + header)
            }
            ETH_P_IPV6 => match load_u8(ctx, NETWORK + 6)? {
                HOPOPTS => (load_u8(ctx, NETWORK + IPV6_HEADER)?, NETWORK + IPV6_HEADER + JUMBO),
                next => (next, NETWORK + IPV6_HEADER),
            },
            _ => return None,
        };
        let (source, destination) = match protocol {
            TCP | UDP => (load_u16(ctx, transport)?, load_u16(ctx, transport + 2)?),
            ICMP | ICMPV6 => {
                let kind = load_u8(ctx, transport)?;
                let echo = match protocol {
                    ICMP => kind == ICMP_ECHO || kind == ICMP_ECHO_REPLY,
                    _ => kind == ICMPV6_ECHO || kind == ICMPV6_ECHO_REPLY,
                };
                if !echo {
                    return None;
                }
                let id = load_u16(ctx, transport + 4)?;
                (id, id)
            }
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
fn load_u8(ctx: &TcContext, offset: usize) -> Option<u8> {
    ctx.load(offset).ok()
}

#[inline(always)]
fn load_u16(ctx: &TcContext, offset: usize) -> Option<u16> {
    ctx.load(offset).ok().map(u16::from_be)
}

/// Whether the packet is IPv6; `None` where it is too short to say.
#[inline(always)]
pub fn is_ipv6(ctx: &TcContext) -> Option<bool> {
    load_u16(ctx, ETHERTYPE).map(|ethertype| ethertype == ETH_P_IPV6)
}
