//! Checks that `scripts/fuzz` runs every target.

use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn every_target_is_in_the_script() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let script = fs::read_to_string(root.join("scripts/fuzz")).unwrap();
    let listed: BTreeSet<&str> = script
        .lines()
        .filter(|line| line.starts_with("lab-"))
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    let mut found = 0;
    for directory in ["crates", "images", "lab/src"] {
        for entry in walkdir::WalkDir::new(root.join(directory)).into_iter().flatten() {
            if entry.path().extension().is_none_or(|it| it != "rs") || entry.path().ends_with("targets.rs") {
                continue;
            }
            let text = fs::read_to_string(entry.path()).unwrap();
            let module = entry.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
            for (before, _) in text.match_indices("bolero::check!()").map(|(at, _)| text.split_at(at)) {
                let name = before.rsplit("fn ").next().and_then(|rest| rest.split('(').next()).unwrap_or_default();
                let target = format!("{module}::{name}");
                assert!(listed.contains(&*target), "{target} of {} is not in scripts/fuzz", entry.path().display());
                found += 1;
            }
        }
    }
    assert_eq!(found, listed.len(), "scripts/fuzz has a target that does not exist");
}
