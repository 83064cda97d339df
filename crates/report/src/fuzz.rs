//! Fuzz target for damaged events files: `docs/fuzzing.md`.

use super::terminal;
use lab_record::log;
use std::path::Path;

#[test]
fn events_jsonl() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        std::fs::write(dir.path().join(log::FILE), bytes).unwrap();
        match log::read(dir.path()) {
            Ok(record) => {
                let shown = terminal::summary(&record, Path::new("results/latest"), false);
                assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
            }
            Err(error) => assert!(error.to_string().contains(log::FILE), "{error}"),
        }
    });
}
