//! Framing of messages and attributes: `struct nlmsghdr` and `struct nlattr` of `linux/netlink.h`.

use netlink_packet_core::{NLMSG_DONE, NLMSG_ERROR};

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// Length of `struct genlmsghdr`, which comes before the attributes of generic netlink.
pub const GENERIC_HEADER: usize = 4;
const NLA_HEADER: usize = 4;
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLM_F_ACK_TLVS: u16 = 0x200;

const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// One attribute, padded to four bytes. Unlike the typed encoders it writes any length, right or wrong.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(NLA_HEADER + value.len()).expect("a netlink attribute is shorter than 64 KiB");
    let mut bytes = Vec::with_capacity(align(length.into()));
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(align(bytes.len()), 0);
    bytes
}

/// An attribute made of attributes, with `NLA_F_NESTED` set.
pub fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, &parts.concat())
}

/// The body of a message of generic netlink: `struct genlmsghdr` and attributes.
pub fn generic(command: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    const VERSION: u8 = 1;
    [&[command, VERSION, 0, 0][..], &parts.concat()].concat()
}

/// The attributes in `bytes` as (type without flags, value); stops at the first that does not fit.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & NLA_TYPE_MASK;
        let value = rest.get(NLA_HEADER..length)?;
        rest = rest.get(align(length)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// A message without its header, as received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

/// A datagram ends within a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message cut short at {at} of {length} bytes")]
pub(crate) struct CutShort {
    /// Where the message begins.
    pub at: usize,
    /// Bytes of the datagram.
    pub length: usize,
}

/// The messages of one datagram; a truncated one is an error, since its tail is lost for good.
pub(crate) fn messages(datagram: &[u8]) -> Result<Vec<Received<'_>>, CutShort> {
    let mut rest = datagram;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let cut = || CutShort { at: datagram.len() - rest.len(), length: datagram.len() };
        let length = u32_at(rest, 0).ok_or_else(cut)? as usize;
        let body = rest.get(HEADER..length).ok_or_else(cut)?;
        found.push(Received {
            kind: u16_at(rest, 4).ok_or_else(cut)?,
            flags: u16_at(rest, 6).ok_or_else(cut)?,
            sequence: u32_at(rest, 8).ok_or_else(cut)?,
            body,
        });
        rest = rest.get(align(length)..).unwrap_or(&[]);
    }
    Ok(found)
}

/// The verdict in an `NLMSG_ERROR` or `NLMSG_DONE`: 0 or a positive errno, and the kernel's explanation.
pub(crate) fn verdict(message: &Received<'_>) -> Option<(i32, Option<String>)> {
    // With NETLINK_CAP_ACK an error repeats no more than the request's header before its attributes.
    let attributes_at = match message.kind {
        NLMSG_ERROR => 4 + HEADER,
        NLMSG_DONE => 4,
        _ => return None,
    };
    let code = message.body.get(..4).map_or(0, |code| i32::from_ne_bytes(code.try_into().expect("four bytes")));
    let explained = message.flags & NLM_F_ACK_TLVS != 0;
    let extack = message.body.get(attributes_at..).filter(|_| explained).and_then(|bytes| {
        attributes(bytes)
            .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
            .map(|(_, text)| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
    });
    Some((-code, extack))
}

/// A whole message from its parts.
pub(crate) fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).expect("a netlink message is shorter than 4 GiB");
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_from_their_bytes() {
        let bytes = [attribute(8, &64u16.to_ne_bytes()), nested(2, &[attribute(1, b"eth0\0")])].concat();
        assert_eq!(bytes[0], 6, "a u16 attribute is six bytes long, its padding not counted");
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read[0], (8, &64u16.to_ne_bytes()[..]));
        assert_eq!(read[1].0, 2);
        assert_eq!(attributes(read[1].1).collect::<Vec<_>>(), [(1, &b"eth0\0"[..])]);
    }

    #[test]
    fn broken_attributes_end_the_list() {
        assert_eq!(attributes(&[1, 0, 0, 0]).count(), 0, "shorter than its own header");
        assert_eq!(attributes(&[200, 0, 0, 0, 1]).count(), 0, "longer than the buffer");
        assert_eq!(attributes(&[4, 0]).count(), 0, "half a header");
    }

    #[test]
    fn verdict_reads_errno_and_explanation() {
        let mut body = (-22i32).to_ne_bytes().to_vec();
        body.extend([0; HEADER]);
        body.extend(attribute(NLMSGERR_ATTR_MSG, b"Primary attribute is read-only\0"));
        let bytes = message(NLMSG_ERROR, NLM_F_ACK_TLVS, 7, &body);
        let received = messages(&bytes).unwrap();
        assert_eq!(received[0].sequence, 7);
        assert_eq!(verdict(&received[0]), Some((22, Some("Primary attribute is read-only".to_owned()))));
    }

    #[test]
    fn the_end_of_a_dump_has_a_verdict_too() {
        let told = |flags: u16, body: &[u8]| verdict(&messages(&message(NLMSG_DONE, flags, 1, body)).unwrap()[0]);
        assert_eq!(told(0, &[]), Some((0, None)));
        assert_eq!(told(0, &0i32.to_ne_bytes()), Some((0, None)));
        let interrupted = (-4i32).to_ne_bytes();
        assert_eq!(told(0, &interrupted), Some((4, None)));
        let why = [&interrupted[..], &attribute(NLMSGERR_ATTR_MSG, b"gone\0")].concat();
        assert_eq!(told(NLM_F_ACK_TLVS, &why), Some((4, Some("gone".to_owned()))));
        assert_eq!(told(0, &why), Some((4, None)), "the flag says whether there are attributes");
    }

    #[test]
    fn truncated_message_is_an_error() {
        let bytes = message(16, 0, 1, &[0; 16]);
        assert!(messages(&bytes[..20]).is_err());
        assert!(messages(&bytes[..3]).is_err());
        assert!(messages(&[0; 16]).is_err(), "a length of zero would never end");
    }
}
