//! Events of any bytes: `docs/fuzzing.md`.

use crate::{AttachEvent, Book};
use lab_abi::witness::{HEAD, LONG};
use lab_protocol::witness::ROWS;
use std::collections::HashMap;

#[test]
fn events() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let mut book = Book::new(HashMap::new(), 0).followed();
        for piece in bytes.chunks(HEAD + LONG) {
            if let Some(event) = AttachEvent::decode(piece) {
                for name in [&event.process, &event.target.name, &event.target.kind, &event.program.name] {
                    assert!(!name.chars().any(char::is_control) && name.len() <= 3 * 16, "{name:?}");
                }
                book.take(event.clone());
                book.take(event);
                for line in book.steps() {
                    assert!(!line.to_string().contains(char::is_control), "{line:?}");
                }
            }
        }
        let account = book.close(&[], &[], Vec::new(), 0);
        assert!(account.rows.len() <= ROWS && account.left.is_empty());
        for row in &account.rows {
            assert!(row.detached + row.replaced <= row.attached, "{row:?}");
        }
    });
}
