//! Packets out of a capture: pcap or pcapng, as tcpdump and Wireshark write them. The bytes are anybody's.

use crate::packet::{ETHERNET, MOST};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use std::io::Cursor;

/// Bytes of a capture, at most.
pub const MAX_CAPTURE: u64 = 4 << 20;
/// Packets of a capture, at most: each is sent through every hook.
pub const MAX_PACKETS: usize = 100;
/// Interfaces of a capture, at most.
const MAX_INTERFACES: usize = 1000;

/// Why a capture can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// It is none.
    #[error("it is no capture: neither pcap nor pcapng; `tcpdump -w FILE` writes one")]
    Format,
    /// It ends within a packet, or is broken there.
    #[error("it is cut off or broken behind packet {0}")]
    Broken(usize),
    /// Its packets have no Ethernet headers.
    #[error(
        "packet {number} has the link type {link}, and not Ethernet (1): capture on a device with Ethernet headers"
    )]
    NotEthernet {
        /// Its number.
        number: usize,
        /// Its link type (`LINKTYPE_*`).
        link: i32,
    },
    /// Only the beginning of a packet was captured.
    #[error("of packet {number} only {captured} of {length} bytes were captured: capture with `-s 0`")]
    Short {
        /// Its number.
        number: usize,
        /// Bytes of it that there are.
        captured: u32,
        /// Bytes that it had.
        length: u32,
    },
    /// No device takes such a packet.
    #[error("packet {number} has {length} bytes: from its Ethernet header on it has {ETHERNET} to {MOST} bytes")]
    Length {
        /// Its number.
        number: usize,
        /// Its bytes.
        length: usize,
    },
    /// It has too many packets.
    #[error("it has more than {MAX_PACKETS} packets; name one by its number: `pcap FILE 3`")]
    Many,
    /// It has no packet.
    #[error("it has no packet")]
    Empty,
    /// It has fewer packets.
    #[error("it has {count} packets, and no packet {number}")]
    Absent {
        /// The number that was asked for.
        number: usize,
        /// How many there are.
        count: usize,
    },
}

/// The packets of a capture, from their Ethernet headers on; the one of that number alone if there is one. The first has number 1.
///
/// # Errors
/// [`CaptureError`].
pub fn captured(bytes: &[u8], only: Option<usize>) -> Result<Vec<Vec<u8>>, CaptureError> {
    // All of it fits the reader, so that what is incomplete is cut off.
    let mut reader = create_reader(bytes.len().max(1), Cursor::new(bytes)).map_err(|_| CaptureError::Format)?;
    let mut links: Vec<Linktype> = Vec::new();
    let (mut frames, mut count, mut is_at_end) = (Vec::new(), 0, false);
    let mut take = |count: usize, link: Option<&Linktype>, captured: u32, length: u32, data: &[u8]| {
        if only.is_some_and(|only| only != count) {
            return Ok(());
        }
        if link != Some(&Linktype::ETHERNET) {
            return Err(CaptureError::NotEthernet { number: count, link: link.map_or(-1, |link| link.0) });
        }
        if captured < length {
            return Err(CaptureError::Short { number: count, captured, length });
        }
        let frame = data.get(..captured as usize).ok_or(CaptureError::Broken(count - 1))?;
        if !(ETHERNET..=MOST).contains(&frame.len()) {
            return Err(CaptureError::Length { number: count, length: frame.len() });
        }
        if frames.len() == MAX_PACKETS {
            return Err(CaptureError::Many);
        }
        frames.push(frame.to_vec());
        Ok(())
    };
    loop {
        if is_next_generation(bytes) && is_shorter_than_a_block(reader.data()) {
            return Err(CaptureError::Broken(count));
        }
        match reader.next() {
            Ok((offset, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => links = vec![header.network],
                    PcapBlockOwned::Legacy(block) => {
                        count += 1;
                        take(count, links.first(), block.caplen, block.origlen, block.data)?;
                    }
                    // Interfaces are numbered from each section's header on.
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => links.clear(),
                    PcapBlockOwned::NG(Block::InterfaceDescription(it)) if links.len() < MAX_INTERFACES => {
                        links.push(it.linktype);
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
                        count += 1;
                        take(count, links.get(block.if_id as usize), block.caplen, block.origlen, block.data)?;
                    }
                    PcapBlockOwned::NG(Block::SimplePacket(block)) => {
                        count += 1;
                        // Its data ends with padding; what was captured of it is not told.
                        let captured = block.origlen.min(u32::try_from(block.data.len()).unwrap_or(u32::MAX));
                        take(count, links.first(), captured, block.origlen, block.data)?;
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                if offset == 0 {
                    return Err(CaptureError::Broken(count));
                }
                reader.consume(offset);
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) if !is_at_end => {
                is_at_end = true;
                reader.refill().map_err(|_| CaptureError::Broken(count))?;
            }
            Err(_) => return Err(CaptureError::Broken(count)),
        }
    }
    match (only, frames.is_empty()) {
        (_, false) => Ok(frames),
        (Some(number), true) => Err(CaptureError::Absent { number, count }),
        (None, true) => Err(CaptureError::Empty),
    }
}

/// Whether it is pcapng, by the type of its first block.
fn is_next_generation(capture: &[u8]) -> bool {
    capture.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a])
}

/// Whether the block states a length that is below its type and its two lengths. pcap-parser 0.17 subtracts these from what a
/// block states, unchecked where it does not know the type. The byte order does not matter: a length that is so small in the
/// other one is 16 MiB or more, more than [`MAX_CAPTURE`].
fn is_shorter_than_a_block(rest: &[u8]) -> bool {
    const LEAST: u32 = 12;
    let Some(length) = rest.get(4..8).and_then(|it| it.try_into().ok()) else { return false };
    u32::from_le_bytes(length) < LEAST || u32::from_be_bytes(length) < LEAST
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A capture in the classic format: link type, and packets with what was captured of each.
    pub fn pcap(link: u32, packets: &[(&[u8], u32)]) -> Vec<u8> {
        let mut all = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
        [0, 0, 0x40000, link].iter().for_each(|word: &u32| all.extend(word.to_le_bytes()));
        for (bytes, length) in packets {
            [1, 2, bytes.len() as u32, *length].iter().for_each(|word: &u32| all.extend(word.to_le_bytes()));
            all.extend(*bytes);
        }
        all
    }

    /// The same as pcapng.
    pub fn pcapng(link: u16, packets: &[&[u8]]) -> Vec<u8> {
        let block = |kind: u32, content: &[u8]| {
            let mut content = content.to_vec();
            content.resize(content.len().next_multiple_of(4), 0);
            let length = (12 + content.len() as u32).to_le_bytes();
            [&kind.to_le_bytes()[..], &length, &content, &length].concat()
        };
        let mut all = block(0x0a0d_0d0a, &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
        let link = link.to_le_bytes();
        all.extend(block(1, &[link[0], link[1], 0, 0, 0, 0, 4, 0]));
        for bytes in packets {
            let length = (bytes.len() as u32).to_le_bytes();
            all.extend(block(6, &[&[0; 12][..], &length, &length, bytes].concat()));
        }
        all
    }

    #[test]
    fn both_formats_are_read() {
        let (one, two): (&[u8], &[u8]) = (&[1; 15], &[2; 60]);
        for capture in [pcap(1, &[(one, 15), (two, 60)]), pcapng(1, &[one, two])] {
            assert_eq!(captured(&capture, None).unwrap(), [one, two]);
            assert_eq!(captured(&capture, Some(2)).unwrap(), [two]);
            assert_eq!(captured(&capture, Some(3)), Err(CaptureError::Absent { number: 3, count: 2 }));
            assert!((24..capture.len()).all(|length| captured(&capture[..length], None) != captured(&capture, None)));
        }
    }

    #[test]
    fn what_can_not_be_sent_is_refused_with_its_number() {
        let one: &[u8] = &[1; 20];
        assert_eq!(captured(b"no capture at all, but text", None), Err(CaptureError::Format));
        assert_eq!(captured(b"", None), Err(CaptureError::Format));
        assert_eq!(captured(&pcap(1, &[]), None), Err(CaptureError::Empty));
        assert_eq!(
            captured(&pcap(113, &[(one, 20)]), None),
            Err(CaptureError::NotEthernet { number: 1, link: 113 }),
            "Linux cooked capture"
        );
        let short = captured(&pcap(1, &[(one, 20), (one, 99)]), None);
        assert_eq!(short, Err(CaptureError::Short { number: 2, captured: 20, length: 99 }));
        let long = vec![0; 1515];
        assert_eq!(captured(&pcap(1, &[(&long, 1515)]), None), Err(CaptureError::Length { number: 1, length: 1515 }));
        assert_eq!(captured(&pcap(1, &vec![(one, 20); 101]), None), Err(CaptureError::Many));
        assert_eq!(captured(&pcap(1, &vec![(one, 20); 101]), Some(101)).unwrap(), [one]);
        let cut = pcap(1, &[(one, 20), (one, 20)]);
        assert_eq!(captured(&cut[..cut.len() - 3], None), Err(CaptureError::Broken(1)));
        for length in [0u32, 8, 11] {
            let block = [&[0xee; 4][..], &length.to_le_bytes(), &[0; 12]].concat();
            assert_eq!(captured(&[pcapng(1, &[one]), block].concat(), None), Err(CaptureError::Broken(1)));
        }
    }
}
