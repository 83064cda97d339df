//! Fuzz targets for results from other machines.

use lab::shard::{durations::Durations, merge::Shards};
use lab_guard::Id;
use lab_record::log;
use lab_report::results::figures;
use std::fs;
use tempfile::TempDir;

/// A directory in memory, if available.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
fn shards() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let dir = scratch();
        let (shard, into) = (dir.path().join("shard"), dir.path().join("into"));
        fs::create_dir(&shard).unwrap();
        fs::create_dir(&into).unwrap();
        fs::write(shard.join(log::FILE), bytes).unwrap();
        let merged =
            Shards::open(&[shard]).and_then(|shards| shards.merge(Id::new("merged").unwrap(), Some(&into), None));
        if let Err(error) = merged {
            assert!(error.to_string().contains(log::FILE), "{error}");
        }
        let left = walkdir::WalkDir::new(dir.path()).min_depth(1).into_iter().flatten();
        assert!(
            left.into_iter().all(|it| it.path().starts_with(dir.path().join("shard")) || it.path().starts_with(&into))
        );
    });
}

#[test]
fn run_json() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let (exit, counts) = figures(bytes);
        let text = String::from_utf8_lossy(bytes);
        for figure in counts.into_iter().chain([exit]).flatten() {
            assert!(text.contains(&figure.to_string()), "{figure} is not in the file");
        }
    });
}

#[test]
fn durations_json() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let dir = scratch();
        let path = dir.path().join("durations.json");
        fs::write(&path, bytes).unwrap();
        match Durations::load(&path) {
            Ok(durations) => assert!(durations.count() <= bytes.len()),
            Err(error) => assert!(error.to_string().contains("durations.json"), "{error}"),
        }
    });
}
