//! From Ethernet to the ports, also those that an ICMP error quotes.

use crate::config;
use aya_ebpf::programs::TcContext;
use lab_abi::datapath::{Address, Tuple, fault};

const ETHERTYPE: usize = 12;
/// Offset of the IP header.
pub const NETWORK: usize = 14;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// Customer and service tags of VLANs.
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
/// More-fragments bit and fragment offset.
const IPV4_FRAGMENT: u16 = 0x3fff;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// A hop-by-hop header that has nothing but the jumbo option (RFC 2675): next header, no further words, option, length of the option.
/// Kernels since "ipv6: Add hop-by-hop header to jumbograms in ip6_output" put it into packets beyond 64 KiB, until "net/ipv6: Drop
/// HBH for BIG TCP on TX side".
const HOPOPTS: u32 = 0;
const JUMBO: [u8; 3] = [0, 0xc2, 4];
const JUMBO_HEADER: u32 = 8;

pub const ICMP: u32 = 1;
pub const TCP: u32 = 6;
pub const UDP: u32 = 17;
pub const ICMPV6: u32 = 58;
const ICMP_HEADER: usize = 8;

/// A packet, and what was decided about it so far.
#[repr(C)]
pub struct Packet {
    /// Its flow; of an ICMP error the flow of the replies to what it quotes.
    pub tuple: Tuple,
    /// The flow that it leaves with.
    pub leaves: Tuple,
    /// The addresses of its own IP header.
    pub source: Address,
    pub destination: Address,
    /// The workload's device on the node.
    pub host_ifindex: u32,
    /// `FROM_WORKLOAD` or `TO_WORKLOAD`.
    pub direction: u32,
    /// 4 or 6.
    pub family: u32,
    /// Bytes between its own IP header and what that carries: a header with the jumbo option, or none.
    pub jumbo: u32,
    /// Whether it is an ICMP error about `tuple`.
    pub related: u32,
    /// Whether it is a unicast IP packet whose ports are not where they would be read, or a frame with a VLAN tag.
    pub unreadable: u32,
}

impl Packet {
    /// Reads a packet; `None` for what the datapath leaves alone, and for what it can't read ([`Packet::unreadable`]).
    #[inline(always)]
    pub fn read(&mut self, ctx: &TcContext) -> Option<()> {
        self.related = 0;
        self.unreadable = 0;
        self.jumbo = 0;
        self.family = match load_u16(ctx, ETHERTYPE)? {
            ETH_P_IP => 4,
            ETH_P_IPV6 => 6,
            kind => {
                // A receiver takes the tag of VLAN 0 off (IEEE 802.1Q, priority-tagged frames), and what is left is a packet like
                // any other.
                self.unreadable = u32::from(is_tag(kind) && !config::has(fault::TAGGED_PASS));
                return None;
            }
        };
        let mut protocol = self.addresses(ctx, NETWORK)?;
        if self.family == 6
            && protocol == HOPOPTS
            // One that is cut off is as unreadable as any other extension header.
            && let Ok([next, option @ ..]) = ctx.load::<[u8; 4]>(NETWORK + IPV6_HEADER)
            && option == JUMBO
            && !config::has(fault::JUMBOGRAMS_DENIED)
        {
            (protocol, self.jumbo) = (u32::from(next), JUMBO_HEADER);
        }
        if self.family == 6 && is_extension(protocol) {
            // Listener reports have a hop-by-hop header, and go to a group.
            self.unreadable = u32::from(u32::from_be(self.tuple.destination[0]) >> 24 != 0xff);
            return None;
        }
        self.source = self.tuple.source;
        self.destination = self.tuple.destination;
        let transport = self.transport();
        if is_error(ctx, protocol, transport)? {
            let quoted = transport + ICMP_HEADER;
            let protocol = self.addresses(ctx, quoted)?;
            self.ports(ctx, protocol, quoted + self.header_len())?;
            self.tuple = self.tuple.reversed();
            self.related = 1;
            return Some(());
        }
        self.ports(ctx, protocol, transport)
    }

    /// The addresses that its IP header leaves with. A router's errors come from the router, whose address no
    /// translation touches.
    #[inline(always)]
    pub fn leaving(&self) -> [Address; 2] {
        let source = if self.source == self.tuple.source { self.leaves.source } else { self.source };
        let kept = self.destination != self.tuple.destination;
        [source, if kept { self.destination } else { self.leaves.destination }]
    }

    /// Offset of the transport header behind the packet's own IP header.
    #[inline(always)]
    pub fn transport(&self) -> usize {
        NETWORK + self.header_len() + self.jumbo as usize
    }

    /// Offset of the IP header that an ICMP error quotes.
    #[inline(always)]
    pub fn quoted(&self) -> usize {
        self.transport() + ICMP_HEADER
    }

    /// Length of an IP header: packets with options but the jumbo option are left alone, so it depends on the family only.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        if self.family == 4 { IPV4_HEADER } else { IPV6_HEADER }
    }

    /// Reads the addresses of the IP header at an offset, and gives back its protocol.
    #[inline(always)]
    fn addresses(&mut self, ctx: &TcContext, at: usize) -> Option<u32> {
        if self.family == 6 {
            let both: [u32; 8] = ctx.load(at + 8).ok()?;
            self.tuple.source = [both[0], both[1], both[2], both[3]];
            self.tuple.destination = [both[4], both[5], both[6], both[7]];
            return load_u8(ctx, at + 6).map(u32::from);
        }
        if load_u8(ctx, at)? != 0x45 || load_u16(ctx, at + 6)? & IPV4_FRAGMENT != 0 {
            // Group membership has an option, and goes to a group.
            self.unreadable = u32::from(load_u8(ctx, at + 16)? >> 4 != 0xe);
            return None;
        }
        let both: [u32; 2] = ctx.load(at + 12).ok()?;
        self.tuple.source = mapped(both[0]);
        self.tuple.destination = mapped(both[1]);
        load_u8(ctx, at + 9).map(u32::from)
    }

    /// Reads the ports of the transport header at an offset.
    #[inline(always)]
    fn ports(&mut self, ctx: &TcContext, protocol: u32, at: usize) -> Option<()> {
        self.tuple.protocol = protocol;
        match protocol {
            TCP | UDP => {
                let both: [u16; 2] = ctx.load(at).ok()?;
                self.tuple.source_port = both[0];
                self.tuple.destination_port = both[1];
            }
            ICMP | ICMPV6 => {
                let echo = match load_u8(ctx, at)? {
                    0 | 8 => protocol == ICMP,
                    128 | 129 => protocol == ICMPV6,
                    _ => false,
                };
                if !echo {
                    return None;
                }
                let id: u16 = ctx.load(at + 4).ok()?;
                self.tuple.source_port = id;
                self.tuple.destination_port = id;
            }
            _ => return None,
        }
        Some(())
    }
}

/// Whether the packet is an ICMP error, which quotes another one.
#[inline(always)]
fn is_error(ctx: &TcContext, protocol: u32, transport: usize) -> Option<bool> {
    Some(match protocol {
        // Destination unreachable, time exceeded, parameter problem.
        ICMP => matches!(load_u8(ctx, transport)?, 3 | 11 | 12),
        // Those, and packet too big.
        ICMPV6 => matches!(load_u8(ctx, transport)?, 1..=4),
        _ => false,
    })
}

/// Whether a next header is an extension header of IPv6 (IANA's registry of them): hop-by-hop, routing, fragment,
/// authentication, destination options, mobility.
const fn is_extension(next_header: u32) -> bool {
    matches!(next_header, 0 | 43 | 44 | 51 | 60 | 135)
}

const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETH_P_8021Q | ETH_P_8021AD)
}

const fn mapped(v4: u32) -> Address {
    [0, 0, 0xffff_u32.to_be(), v4]
}

#[inline(always)]
fn load_u8(ctx: &TcContext, offset: usize) -> Option<u8> {
    ctx.load(offset).ok()
}

#[inline(always)]
fn load_u16(ctx: &TcContext, offset: usize) -> Option<u16> {
    ctx.load(offset).ok().map(u16::from_be)
}
