//! Fuzz target: decodes arbitrary bytes, see `docs/fuzzing.md`.

use crate::{
    AgentMessage,
    frame::{Decoder, MAX_PAYLOAD, encode},
};

/// The first byte sets the size of the pieces in which the rest arrives.
#[test]
fn frames() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let Some((piece, bytes)) = bytes.split_first() else { return };
        let mut decoder = Decoder::new();
        let (mut heard, mut refused) = (0, 0);
        for piece in bytes.chunks(usize::from(*piece).max(1)) {
            decoder.feed(piece);
            while let Some(next) = decoder.next_message::<AgentMessage>() {
                match next {
                    Ok(message) => {
                        heard += 1;
                        // A decoded message can be encoded and decoded again without a difference.
                        let mut again = Decoder::new();
                        again.feed(&encode(&message).unwrap());
                        let twice = again.next_message::<AgentMessage>().unwrap().unwrap();
                        assert_eq!(serde_json::to_value(&twice).unwrap(), serde_json::to_value(&message).unwrap());
                    }
                    Err(_) => refused += 1,
                }
            }
            assert!(decoder.pending() <= MAX_PAYLOAD + 12);
        }
        assert!(heard + refused <= bytes.len(), "every answer consumes a byte: there is no endless loop");
    });
}
