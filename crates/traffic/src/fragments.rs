//! UDP datagrams that the sender cuts itself, so that it says in which order the pieces leave.

use crate::icmp::internet_checksum;
use std::net::{IpAddr, SocketAddr};

/// `IPPROTO_UDP`.
const UDP: u8 = 17;
/// `IPPROTO_FRAGMENT`.
const FRAGMENT: u8 = 44;
const HOPS: u8 = 64;
/// The flag that more fragments follow, of IPv4 (RFC 791, 3.1).
const MORE: u16 = 0x2000;
/// Offsets are in units of 8 bytes (RFC 791, 3.1; RFC 8200, 4.5).
const UNIT: usize = 8;

/// The two packets of a datagram, from their IP headers on, of which the first has `first` units of 8 bytes behind its IP headers.
/// Both addresses are of one family. The identifier tells them from those of other datagrams.
#[must_use]
pub fn in_two_fragments(
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
    first: u16,
    identifier: u16,
) -> [(u16, Vec<u8>); 2] {
    let datagram = datagram(from, to, payload);
    let (begin, end) = datagram.split_at(usize::from(first) * UNIT);
    [(0, true, begin), (first, false, end)]
        .map(|(offset, more, part)| packet(from.ip(), to.ip(), part, offset, more, identifier))
}

/// Its header and payload, with the checksum that IPv6 demands (RFC 8200, 8.1).
fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = (UNIT + payload.len()) as u16;
    let mut datagram = Vec::new();
    for field in [from.port(), to.port(), length, 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(payload);
    let pseudo =
        [octets(from.ip()), octets(to.ip()), vec![0, UDP], length.to_be_bytes().to_vec(), datagram.clone()].concat();
    // Zero would say that there is none (RFC 768).
    let sum = match internet_checksum(&pseudo) {
        0 => u16::MAX,
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The EtherType of a fragment, and the packet.
fn packet(from: IpAddr, to: IpAddr, part: &[u8], offset: u16, more: bool, identifier: u16) -> (u16, Vec<u8>) {
    let mut packet = Vec::new();
    let ethertype = if from.is_ipv4() {
        let position = offset | if more { MORE } else { 0 };
        packet.extend([0x45, 0]);
        for field in [(20 + part.len()) as u16, identifier, position, u16::from_be_bytes([HOPS, UDP]), 0] {
            packet.extend(field.to_be_bytes());
        }
        packet.extend([octets(from), octets(to)].concat());
        let sum = internet_checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        0x0800
    } else {
        packet.extend([0x60, 0, 0, 0]);
        packet.extend(((UNIT + part.len()) as u16).to_be_bytes());
        packet.extend([FRAGMENT, HOPS]);
        packet.extend([octets(from), octets(to)].concat());
        packet.extend([UDP, 0]);
        packet.extend((offset << 3 | u16::from(more)).to_be_bytes());
        packet.extend(u32::from(identifier).to_be_bytes());
        0x86dd
    };
    packet.extend(part);
    (ethertype, packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_of_a_datagram_say_where_they_belong() {
        let [(ethertype, first), (_, last)] =
            in_two_fragments("10.0.0.1:7".parse().unwrap(), "10.0.0.2:9".parse().unwrap(), &[0xab; 20], 2, 0x1234);
        assert_eq!(ethertype, 0x0800);
        assert_eq!((first.len(), last.len()), (20 + 16, 20 + 12), "28 bytes with the header");
        assert_eq!((&first[2..8], &last[2..8]), (&[0, 36, 0x12, 0x34, 0x20, 0][..], &[0, 32, 0x12, 0x34, 0, 2][..]));
        assert_eq!((internet_checksum(&first[..20]), internet_checksum(&last[..20])), (0, 0));
        assert_eq!(first[20..26], [0, 7, 0, 9, 0, 28]);

        let [(ethertype, first), (_, last)] =
            in_two_fragments("[fd::1]:7".parse().unwrap(), "[fd::2]:9".parse().unwrap(), &[0xab; 20], 2, 0x1234);
        assert_eq!(ethertype, 0x86dd);
        assert_eq!((first.len(), last.len()), (48 + 16, 48 + 12));
        assert_eq!((&first[4..8], &last[4..8]), (&[0, 24, 44, 64][..], &[0, 20, 44, 64][..]));
        assert_eq!(
            (&first[40..48], &last[40..48]),
            (&[17, 0, 0, 1, 0, 0, 0x12, 0x34][..], &[17, 0, 0, 16, 0, 0, 0x12, 0x34][..])
        );
        let whole = [&first[8..40], &[0, 17, 0, 28], &first[48..], &last[48..]].concat();
        assert_eq!(internet_checksum(&whole), 0, "the checksum of all pieces with the pseudo header");
    }
}
