//! Headers of captured packets, as far as cases ask about them.

use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, PacketBuilder, TransportSlice};
use std::net::IpAddr;

/// What the headers of an IP packet say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// The protocol inside, extension headers passed over.
    pub protocol: u8,
    /// Whether it is a part of a larger packet.
    pub fragment: bool,
    /// What comes after.
    pub transport: Transport,
}

/// What an IP packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// Ports and payload.
    Udp {
        /// Source and destination.
        ports: (u16, u16),
        /// What was captured of the payload.
        payload: Vec<u8>,
    },
    /// A TCP segment: its ports.
    Tcp {
        /// Source and destination.
        ports: (u16, u16),
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// Type (RFC 792, RFC 4443).
        kind: u8,
        /// Code of the type.
        code: u8,
        /// The four bytes after the checksum: unused, identifier, or MTU.
        rest: [u8; 4],
        /// What follows: for an error the packet that caused it.
        payload: Vec<u8>,
    },
    /// Anything else, with what was captured of it.
    Other(Vec<u8>),
}

impl Headers {
    /// Reads a packet from its network header on; `None` where it is not IP.
    pub fn of(packet: &[u8]) -> Option<Self> {
        let sliced = LaxSlicedPacket::from_ip(packet).ok()?;
        let (source, destination, ttl, payload) = match sliced.net.as_ref()? {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                let (source, destination) = (header.source_addr().into(), header.destination_addr().into());
                (source, destination, header.ttl(), ip.payload())
            }
            LaxNetSlice::Ipv6(ip) => {
                let header = ip.header();
                let (source, destination) = (header.source_addr().into(), header.destination_addr().into());
                (source, destination, header.hop_limit(), ip.payload())
            }
            LaxNetSlice::Arp(_) => return None,
        };
        let transport = match &sliced.transport {
            Some(TransportSlice::Udp(udp)) => {
                Transport::Udp { ports: (udp.source_port(), udp.destination_port()), payload: udp.payload().to_vec() }
            }
            Some(TransportSlice::Tcp(tcp)) => Transport::Tcp { ports: (tcp.source_port(), tcp.destination_port()) },
            Some(TransportSlice::Icmpv4(icmp)) => {
                icmp_of(icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8(), icmp.slice())
            }
            Some(TransportSlice::Icmpv6(icmp)) => {
                icmp_of(icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8(), icmp.slice())
            }
            _ => match first_ports(payload.payload) {
                Some(ports) if payload.ip_number == IpNumber::TCP && !payload.fragmented => Transport::Tcp { ports },
                _ => Transport::Other(payload.payload.to_vec()),
            },
        };
        Some(Self { source, destination, ttl, protocol: payload.ip_number.0, fragment: payload.fragmented, transport })
    }

    /// Source and destination port, where it has ports.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Udp { ports, .. } | Transport::Tcp { ports } => Some(ports),
            Transport::Icmp { .. } | Transport::Other(_) => None,
        }
    }
}

/// The ports of a TCP header that was cut: an error need quote no more of it than eight bytes (RFC 792), and its options are
/// cut more often than not.
fn first_ports(cut: &[u8]) -> Option<(u16, u16)> {
    let [source, destination] = [0, 2].map(|at| cut.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes));
    Some((source?, destination?))
}

fn icmp_of(kind: u8, code: u8, rest: [u8; 4], whole: &[u8]) -> Transport {
    Transport::Icmp { kind, code, rest, payload: whole.get(8..).unwrap_or_default().to_vec() }
}

/// An Ethernet frame that answers `frame`: a datagram between these addresses and ports, both source first.
///
/// # Panics
/// If the addresses are of different families, or the payload does not fit into a packet.
pub fn udp_answer(frame: &[u8], source: IpAddr, destination: IpAddr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mac = |at: usize| frame.get(at..at + 6).and_then(|mac| mac.try_into().ok()).unwrap_or_default();
    let builder = PacketBuilder::ethernet2(mac(0), mac(6));
    let builder = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => builder.ipv4(source.octets(), destination.octets(), 64),
        (IpAddr::V6(source), IpAddr::V6(destination)) => builder.ipv6(source.octets(), destination.octets(), 64),
        _ => panic!("an answer from {source} to {destination}"),
    };
    let mut answer = Vec::new();
    builder.udp(ports.0, ports.1).write(&mut answer, payload).expect("a short datagram written to memory");
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_error_and_the_packet_inside_it() {
        let mut inner = Vec::new();
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 1).udp(4000, 5000);
        builder.write(&mut inner, &[7; 600]).unwrap();
        let mut packet = Vec::new();
        let exceeded = etherparse::Icmpv4Type::TimeExceeded(etherparse::icmpv4::TimeExceededCode::TtlExceededInTransit);
        let builder = PacketBuilder::ipv4([10, 0, 0, 9], [10, 0, 0, 1], 64).icmpv4(exceeded);
        builder.write(&mut packet, &inner).unwrap();
        let headers = Headers::of(&packet[..200]).unwrap();
        let Transport::Icmp { kind: 11, code: 0, payload, .. } = headers.transport else { panic!("{headers:?}") };
        let inner = Headers::of(&payload).unwrap();
        assert_eq!((inner.ttl, inner.ports()), (1, Some((4000, 5000))));
        assert_eq!(inner.destination, "10.0.0.2".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn ports_of_a_cut_tcp_header_are_read() {
        let mut packet = Vec::new();
        let options = [etherparse::TcpOptionElement::MaximumSegmentSize(1_460)];
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(4000, 5000, 7, 512);
        builder.options(&options).unwrap().write(&mut packet, &[]).unwrap();
        for cut in [20 + 8, 20 + 20, packet.len()] {
            assert_eq!(Headers::of(&packet[..cut]).unwrap().ports(), Some((4000, 5000)), "{cut} bytes");
        }
        assert_eq!(Headers::of(&packet[..20 + 3]).unwrap().ports(), None);
    }

    #[test]
    fn what_is_no_ip_is_none() {
        assert_eq!(Headers::of(&[]), None);
        assert_eq!(Headers::of(&[0x60; 10]), None);
    }
}
