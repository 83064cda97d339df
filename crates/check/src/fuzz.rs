//! Objects of any bytes, and lines of any loader: `docs/fuzzing.md`.

use crate::{CheckFacts, OnKernel, findings, frame, inspect, unmet};

#[test]
fn objects() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(found) = inspect(bytes) {
            assert!(!found.programs.is_empty());
        }
        // Behind a header that is right, so that the rest is reached.
        let mut header = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 247, 0];
        header.extend(bytes);
        drop(inspect(&header));
    });
}

#[test]
fn lines() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let facts = CheckFacts::read(&text);
        drop(unmet(&facts, &[]));
        drop(findings(&[OnKernel { kernel: "k".to_owned(), facts }]));
        drop(frame(&text));
    });
}
