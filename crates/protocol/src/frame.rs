//! Frames: `magic (4) | payload length (u32 LE) | CRC-32 of the payload (u32 LE) | payload (JSON)`.
//!
//! The stream comes out of a guest whose kernel may be broken, so the [`Decoder`] expects anything: it finds the next
//! frame after garbage, never buffers more than one frame, and counts what it threw away.

use serde::{Serialize, de::DeserializeOwned};

/// Start of every frame. Not valid UTF-8, so that no JSON text can contain it.
pub const MAGIC: [u8; 4] = [0xF5, b'N', b'K', 0xFA];
/// Largest payload that either side sends or accepts, bytes.
pub const MAX_PAYLOAD: usize = 4 << 20;
const HEADER: usize = 12;

/// Encodes one message.
///
/// # Errors
/// [`FrameError::TooLarge`] where the payload would pass [`MAX_PAYLOAD`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let payload = serde_json::to_vec(message).map_err(|error| FrameError::Json(error.to_string()))?;
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

/// Why a stretch of bytes was not a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// The length field passes [`MAX_PAYLOAD`].
    TooLarge(usize),
    /// The payload's checksum is wrong.
    Checksum,
    /// The payload is intact, and not a message of this protocol.
    Json(String),
    /// This many bytes were not part of any frame.
    Garbage(usize),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge(size) => write!(f, "frame of {size} bytes, the limit is {MAX_PAYLOAD}"),
            Self::Checksum => write!(f, "frame with a wrong checksum"),
            Self::Json(error) => write!(f, "frame that holds no message of this protocol: {error}"),
            Self::Garbage(size) => write!(f, "{size} bytes outside any frame"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Turns a stream of bytes back into messages.
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

    /// Adds bytes as they came, in pieces of any size.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start * 2 >= self.buffer.len() {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes held back because their frame is not complete: what a truncated stream leaves.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The next message or error; `None` when more bytes are needed.
    ///
    /// After an error the decoder has skipped the bytes that caused it, so that calling again makes progress.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Option<Result<T, FrameError>> {
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
            // Only the magic is given up: the length may be the lie, and a real frame may follow at once.
            self.start += MAGIC.len();
            return Some(Err(FrameError::TooLarge(length)));
        }
        let payload = bytes.get(HEADER..HEADER + length)?;
        if crc32fast::hash(payload) != field(8) {
            self.start += MAGIC.len();
            return Some(Err(FrameError::Checksum));
        }
        let message = serde_json::from_slice(payload).map_err(|error| FrameError::Json(error.to_string()));
        self.start += HEADER + length;
        Some(message)
    }

    /// Drops bytes up to the next possible start of a frame, and says how many.
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
    fn finds_a_frame_behind_an_oversized_and_a_damaged_one() {
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
    fn a_truncated_frame_is_pending_not_lost() {
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
    fn refuses_to_send_what_the_other_side_would_refuse() {
        let huge = HostMessage::Run {
            cells: vec![crate::Job::case(crate::CellId("x".repeat(MAX_PAYLOAD)))],
            time_scale: 1.0,
            now_unix_ns: 0,
            mutant: None,
        };
        assert!(matches!(encode(&huge), Err(FrameError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn survives_any_bytes_and_still_hears_the_next_frame(
            garbage in proptest::collection::vec(any::<u8>(), 0..512),
            cut in 1usize..64,
        ) {
            // Garbage that pretends to be the head of a long frame would rightly wait for more bytes.
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
