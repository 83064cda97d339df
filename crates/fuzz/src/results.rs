//! Fuzz targets for results from other machines.

use crate::scratch;
use lab::shard::{durations::Durations, merge::Shards};
use lab_guard::Id;
use lab_record::log;
use lab_report::{
    history::{self, History},
    results::{figures, stored},
};
use std::fs;

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

/// Runs as `lab results` and `lab history` read them: the end of events.jsonl, and all of it.
#[test]
fn stored_runs() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let dir = scratch();
        let run = dir.path().join("20261120T120000Z-abcdef");
        fs::create_dir(&run).unwrap();
        fs::write(run.join(log::FILE), bytes).unwrap();
        fs::write(run.join("run.json"), bytes).unwrap();
        let runs = stored(dir.path()).unwrap();
        assert_eq!((runs.len(), runs[0].size()), (1, 2 * bytes.len() as u64));
        let passed = runs[0].passed();
        if let Ok(history) = History::read(&runs, |_, _| true, true, &|_| ()) {
            assert!(!passed || history.runs.len() == 1);
            let shown = history::text(&history);
            assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
        }
    });
}
