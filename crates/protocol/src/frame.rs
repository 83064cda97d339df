//! Frames: `magic (4) | payload length (u32 LE) | CRC-32 of the payload (u32 LE) | payload`.
//!
//! The payload is JSON. A message that carries a program's bytes has them behind it, after a zero byte, which JSON never
//! contains: as base64 inside they would cost a third more, and their encoding in an emulated guest more than their way.
//! Where they look like the start of a frame, a byte is inserted: no frame contains the magic number but at its start.
//!
//! The stream comes out of a guest whose kernel may be broken, so the [`Decoder`] expects anything: it finds the next
//! frame after garbage, never buffers more than one frame, and counts what it threw away.

use serde::{Serialize, de::DeserializeOwned};

/// What is sent in a frame.
pub trait Message: Serialize + DeserializeOwned {
    /// The bytes that it carries, which are no part of its JSON; `None` if it is of a kind that carries none.
    fn carried(&mut self) -> Option<&mut Vec<u8>>;
    /// The same, for reading.
    fn carries(&self) -> Option<&[u8]>;
}

/// Start of every frame. Not valid UTF-8, so that no JSON text can contain it.
pub const MAGIC: [u8; 4] = [0xF5, b'N', b'K', 0xFA];
/// Largest payload that either side sends or accepts, bytes.
pub const MAX_PAYLOAD: usize = 4 << 20;
const HEADER: usize = 12;
/// What is inserted into carried bytes behind the first three of [`MAGIC`].
const STUFFING: u8 = 0;

/// Encodes one message.
///
/// # Errors
/// [`FrameError::TooLarge`] where the payload would pass [`MAX_PAYLOAD`].
pub fn encode<T: Message>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut payload = serde_json::to_vec(message).map_err(|error| FrameError::Json(error.to_string()))?;
    if let Some(bytes) = message.carries() {
        payload.reserve(bytes.len() + 1);
        payload.push(0);
        stuff(bytes, &mut payload);
    }
    if payload.len() > MAX_PAYLOAD {
        return Err(FrameError::TooLarge(payload.len()));
    }
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    frame.extend_from_slice(&payload);
    Ok(frame)
}

/// Appends bytes so that they do not contain the magic number, whatever follows.
fn stuff(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(at) = find(rest) {
        out.extend_from_slice(&rest[..at + 3]);
        out.push(STUFFING);
        rest = &rest[at + 3..];
    }
    out.extend_from_slice(rest);
}

/// The opposite of [`stuff`].
fn unstuff(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = find(rest) {
        out.extend_from_slice(&rest[..at + 3]);
        rest = &rest[(at + 4).min(rest.len())..];
    }
    out.extend_from_slice(rest);
    out
}

/// Where the first three bytes of the magic number are. An emulated guest compares many bytes at once far faster than one by one.
fn find(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, &MAGIC[..3])
}

/// Reads a payload.
fn parse<T: Message>(payload: &[u8]) -> Result<T, FrameError> {
    let end = payload.iter().position(|byte| *byte == 0);
    let (json, behind) = end.map_or((payload, None), |end| (&payload[..end], Some(&payload[end + 1..])));
    let mut message: T = serde_json::from_slice(json).map_err(|error| FrameError::Json(error.to_string()))?;
    match (message.carried(), behind) {
        (Some(bytes), Some(behind)) => *bytes = unstuff(behind),
        (None, None) => {}
        (Some(_), None) => return Err(FrameError::Json("a message without the bytes that it carries".to_owned())),
        (None, Some(_)) => return Err(FrameError::Json("bytes behind a message that carries none".to_owned())),
    }
    Ok(message)
}

/// Why a stretch of bytes was not a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// The length field is larger than [`MAX_PAYLOAD`].
    TooLarge(usize),
    /// The payload's checksum is wrong.
    Checksum,
    /// The payload is intact, but not a message of this protocol.
    Json(String),
    /// This many bytes were not part of any frame.
    Garbage(usize),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge(size) => write!(f, "frame of {size} bytes, the limit is {MAX_PAYLOAD}"),
            Self::Checksum => write!(f, "frame with an incorrect checksum"),
            Self::Json(error) => write!(f, "frame without a message of this protocol: {error}"),
            Self::Garbage(size) => write!(f, "{size} bytes outside any frame"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Decodes messages from a stream of bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds received bytes, in pieces of any size.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start * 2 >= self.buffer.len() {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Number of bytes of an incomplete frame.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The next message or error; `None` when more bytes are needed.
    ///
    /// After an error the decoder has skipped the bytes that caused it, so that calling again makes progress.
    pub fn next_message<T: Message>(&mut self) -> Option<Result<T, FrameError>> {
        let skipped = self.seek_magic();
        if skipped > 0 {
            return Some(Err(FrameError::Garbage(skipped)));
        }
        let bytes = &self.buffer[self.start..];
        if bytes.len() < HEADER {
            return None;
        }
        let field = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let length = field(4) as usize;
        if length > MAX_PAYLOAD {
            // Skip only the magic: the length may be wrong, and a valid frame may follow immediately.
            self.start += MAGIC.len();
            return Some(Err(FrameError::TooLarge(length)));
        }
        let payload = bytes.get(HEADER..HEADER + length)?;
        if crc32fast::hash(payload) != field(8) {
            self.start += MAGIC.len();
            return Some(Err(FrameError::Checksum));
        }
        let message = parse(payload);
        self.start += HEADER + length;
        Some(message)
    }

    /// Drops bytes up to the next possible start of a frame, and returns their number.
    fn seek_magic(&mut self) -> usize {
        let bytes = &self.buffer[self.start..];
        let skip = (0..bytes.len())
            .find(|&at| {
                let rest = &bytes[at..];
                let shared = rest.len().min(MAGIC.len());
                rest[..shared] == MAGIC[..shared]
            })
            .unwrap_or(bytes.len());
        self.start += skip;
        skip
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::HostMessage;
    use proptest::prelude::*;

    fn messages(decoder: &mut Decoder) -> (Vec<HostMessage>, Vec<FrameError>) {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        while let Some(next) = decoder.next_message::<HostMessage>() {
            match next {
                Ok(message) => good.push(message),
                Err(error) => bad.push(error),
            }
        }
        (good, bad)
    }

    #[test]
    fn finds_a_frame_after_an_oversized_and_a_damaged_one() {
        let good = encode(&HostMessage::Shutdown).unwrap();
        let mut oversized = good.clone();
        oversized[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut damaged = good.clone();
        *damaged.last_mut().unwrap() ^= 1;
        let mut decoder = Decoder::new();
        decoder.feed(&oversized);
        decoder.feed(&damaged);
        decoder.feed(&good);
        let (found, complaints) = messages(&mut decoder);
        assert_eq!(found, [HostMessage::Shutdown]);
        assert!(complaints.contains(&FrameError::Checksum), "{complaints:?}");
        assert!(complaints.contains(&FrameError::TooLarge(u32::MAX as usize)), "{complaints:?}");
    }

    #[test]
    fn a_truncated_frame_waits_for_its_rest() {
        let frame = encode(&HostMessage::Hello { protocol: 1 }).unwrap();
        let (head, tail) = frame.split_at(frame.len() / 2);
        let mut decoder = Decoder::new();
        decoder.feed(head);
        assert!(decoder.next_message::<HostMessage>().is_none());
        assert_eq!(decoder.pending(), head.len());
        decoder.feed(tail);
        assert_eq!(messages(&mut decoder).0, [HostMessage::Hello { protocol: 1 }]);
        assert_eq!(decoder.pending(), 0);
    }

    #[test]
    fn refuses_to_send_a_frame_that_is_too_large() {
        let huge = HostMessage::Run {
            cells: vec![crate::CellJob::case(crate::CellId("x".repeat(MAX_PAYLOAD).into()))],
            time_scale: 1.0,
            now_unix_ns: 0,
            mutant: None,
        };
        assert!(matches!(encode(&huge), Err(FrameError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn carries_any_bytes_and_none_of_them_begins_a_frame(
            bytes in proptest::collection::vec(
                prop_oneof![Just(0xF5u8), Just(b'N'), Just(b'K'), Just(0xFA), Just(0u8), any::<u8>()], 0..64),
        ) {
            let message = HostMessage::Input { bytes };
            let frame = encode(&message).unwrap();
            prop_assert!(!frame[1..].windows(MAGIC.len()).any(|window| window == MAGIC));
            let mut decoder = Decoder::new();
            decoder.feed(&frame);
            prop_assert_eq!(decoder.next_message::<HostMessage>(), Some(Ok(message)));
        }

        #[test]
        fn survives_any_bytes_and_still_hears_the_next_frame(
            garbage in proptest::collection::vec(any::<u8>(), 0..512),
            cut in 1usize..64,
        ) {
            // The decoder correctly waits for more bytes after garbage that looks like the header of a long frame.
            prop_assume!(!garbage.contains(&MAGIC[0]));
            let mut stream = garbage;
            stream.extend(encode(&HostMessage::Shutdown).unwrap());
            let mut decoder = Decoder::new();
            let mut found = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.feed(piece);
                found.extend(messages(&mut decoder).0);
            }
            prop_assert_eq!(found, vec![HostMessage::Shutdown]);
        }

        #[test]
        fn never_panics_and_never_keeps_more_than_a_frame(
            pieces in proptest::collection::vec(proptest::collection::vec(prop_oneof![Just(0xF5u8), Just(b'N'), Just(b'K'), Just(0xFA), any::<u8>()], 0..64), 0..64),
        ) {
            let mut decoder = Decoder::new();
            for piece in &pieces {
                decoder.feed(piece);
                messages(&mut decoder);
                prop_assert!(decoder.pending() <= HEADER + MAX_PAYLOAD);
            }
        }
    }
}
