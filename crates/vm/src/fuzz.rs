//! Fuzz targets for what QEMU answers and for what earlier runs left in the cache: `docs/fuzzing.md`.

use super::{accel::Remembered, qmp, snapshot};
use std::fs;

/// QEMU's side of the monitor: a guest that exploits QEMU writes what it wants.
#[test]
fn monitor() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Err(error) = qmp::asked(bytes) {
            let text = error.to_string();
            assert!(text.starts_with("QEMU's monitor: "), "{text:?}");
        }
    });
}

#[test]
fn accelerator_json() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let kept = Remembered::parse(bytes);
        let again = Remembered::parse(&serde_json::to_vec(&kept).unwrap());
        assert_eq!(kept, again);
        // The pause may end in between.
        assert!(kept.iter().zip(&again).all(|(kept, again)| kept.holds() || !again.holds()));
    });
}

/// The description of a snapshot, next to memory and state files without valid checksums.
#[test]
fn snapshot_json() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        for (name, content) in [("snapshot.json", bytes), ("memory", b"m"), ("state", b"s")] {
            fs::write(dir.path().join(name), content).unwrap();
        }
        if let Err(problem) = snapshot::open(dir.path(), "key") {
            assert!(!problem.to_string().is_empty());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing is added");
    });
}
