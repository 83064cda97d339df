//! Packets as `check.toml` and the command line write them: bytes in hexadecimal, or `udp 10.0.0.1:1 > 10.0.0.2:2`.

use std::net::{IpAddr, SocketAddr};

/// What a UDP or TCP packet carries.
const CONTENT: &[u8] = b"netkit-lab check";
/// Bytes of a packet, at most: what fits a device's usual MTU, with its Ethernet header.
pub(crate) const MOST: usize = 1514;
/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

/// Why a text is no packet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// It is neither of the two forms.
    #[error(
        "`{0}` is no packet: write bytes as `hex ff:ff:…`, or `udp 10.0.0.1:1 > 10.0.0.2:2` (udp, tcp; IPv6 as [2001:db8::1]:1)"
    )]
    Form(String),
    /// Source and destination are of different families.
    #[error("`{0}`: source and destination must both be IPv4 or both be IPv6")]
    Families(String),
    /// An Ethernet header has 14 bytes, and a device takes 1514.
    #[error("a packet of {0} bytes: from its Ethernet header on it has 14 to {MOST} bytes")]
    Length(usize),
}

/// The frame that a text says, from the Ethernet header on. The addresses in that header are zeros where the text has none.
///
/// # Errors
/// [`PacketError`].
pub fn frame(text: &str) -> Result<Vec<u8>, PacketError> {
    let form = || PacketError::Form(text.chars().take(100).collect());
    let (kind, rest) = text.trim().split_once(char::is_whitespace).ok_or_else(form)?;
    let protocol = match kind {
        "hex" => {
            let bytes = bytes_of_hex(rest).ok_or_else(form)?;
            return if (ETHERNET..=MOST).contains(&bytes.len()) {
                Ok(bytes)
            } else {
                Err(PacketError::Length(bytes.len()))
            };
        }
        "udp" => 17,
        "tcp" => 6,
        _ => return Err(form()),
    };
    let (from, to) = rest.split_once('>').ok_or_else(form)?;
    let address = |text: &str| text.trim().parse::<SocketAddr>().map_err(|_| form());
    let (from, to) = (address(from)?, address(to)?);
    let content = transport(protocol, from.port(), to.port());
    let (ethertype, network) = match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (0x0800u16, ipv4(protocol, source.octets(), destination.octets(), content))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            (0x86dd, ipv6(protocol, source.octets(), destination.octets(), content))
        }
        _ => return Err(PacketError::Families(text.to_owned())),
    };
    Ok([&[0; 12][..], &ethertype.to_be_bytes(), &network].concat())
}

/// Bytes in hexadecimal; blanks and colons between them do not matter.
pub fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b':').collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

fn transport(protocol: u8, from: u16, to: u16) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    if protocol == 17 {
        let length = (8 + CONTENT.len()) as u16;
        return [&ports[..], &length.to_be_bytes(), &[0; 2], CONTENT].concat();
    }
    // A segment with SYN, five words of header, a window of 64240 bytes.
    let rest = [0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 2, 0xfa, 0xf0, 0, 0, 0, 0];
    [&ports[..], &rest].concat()
}

fn ipv4(protocol: u8, source: [u8; 4], destination: [u8; 4], mut content: Vec<u8>) -> Vec<u8> {
    let pseudo = [&source[..], &destination, &[0, protocol], &(content.len() as u16).to_be_bytes()].concat();
    fill_in(protocol, &pseudo, &mut content);
    let length = (20 + content.len()) as u16;
    let mut header =
        [&[0x45, 0][..], &length.to_be_bytes(), &[0, 1, 0x40, 0, 64, protocol, 0, 0], &source, &destination].concat();
    let sum = checksum(&[&header]).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    [header, content].concat()
}

fn ipv6(protocol: u8, source: [u8; 16], destination: [u8; 16], mut content: Vec<u8>) -> Vec<u8> {
    let length = content.len() as u16;
    let pseudo = [&source[..], &destination, &u32::from(length).to_be_bytes(), &[0, 0, 0, protocol]].concat();
    fill_in(protocol, &pseudo, &mut content);
    [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[protocol, 64], &source, &destination, &content].concat()
}

/// Writes the checksum of UDP or TCP.
fn fill_in(protocol: u8, pseudo: &[u8], content: &mut [u8]) {
    let at = if protocol == 17 { 6 } else { 16 };
    let sum = match checksum(&[pseudo, content]) {
        // Zero is no checksum (RFC 768).
        0 if protocol == 17 => 0xffff,
        sum => sum,
    };
    content[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum (RFC 1071). Every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words.map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from)).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_has_lengths_and_checksums_that_are_right() {
        let frame = frame("udp 10.0.0.1:1 > 10.0.0.2:2").unwrap();
        assert_eq!(frame.len(), 14 + 20 + 8 + CONTENT.len());
        assert_eq!(&frame[12..16], [0x08, 0, 0x45, 0]);
        assert_eq!(checksum(&[&frame[14..34]]), 0, "IPv4 header");
        let pseudo = [&frame[26..34], &[0, 17, 0, 24]].concat();
        assert_eq!(checksum(&[&pseudo, &frame[34..]]), 0, "UDP");
        let six = super::frame("tcp [2001:db8::1]:1000 > [2001:db8::2]:80").unwrap();
        assert_eq!((six.len(), &six[12..15]), (14 + 40 + 20, &[0x86, 0xdd, 0x60][..]));
    }

    #[test]
    fn what_is_no_packet_is_refused_with_the_forms_that_are_one() {
        assert_eq!(frame("hex ff:ff:ff:ff:ff:ff 000000000000 0800 4500").unwrap().len(), 16);
        for text in ["", "udp", "udp 10.0.0.1 > 10.0.0.2:2", "icmp 1 > 2", "hex 0", "hex zz", "udp 10.0.0.1:1"] {
            assert!(matches!(frame(text), Err(PacketError::Form(_))), "{text}");
        }
        assert_eq!(frame("hex 0102"), Err(PacketError::Length(2)));
        assert!(matches!(frame("udp 10.0.0.1:1 > [::1]:2"), Err(PacketError::Families(_))));
    }
}
