//! Timeouts of the tests of a suite: those of its settings, and those of the command line.

use super::*;
use crate::exec::ExecRequest;
use std::fs;

/// The settings file of a collection, if it has one.
type Settings = Option<&'static str>;

/// Trees with a collection `net` each, by the name of the kernel whose sources they are.
fn trees(dir: &Path, kernels: &[(&str, Settings)]) -> SelftestTrees {
    let tree = |(kernel, settings): &(&str, Settings)| {
        let top = dir.join(kernel).join("selftests");
        fs::create_dir_all(top.join("net")).unwrap();
        fs::write(top.join("net/Makefile"), "TEST_PROGS := a.sh long.sh\n").unwrap();
        for name in ["net/a.sh", "net/long.sh"] {
            fs::write(top.join(name), "#!/bin/sh\n").unwrap();
        }
        settings.iter().for_each(|text| fs::write(top.join("net/settings"), text).unwrap());
        ((*kernel).to_owned(), top)
    };
    let mut all = SelftestTrees::default();
    all.trees = kernels.iter().map(tree).collect();
    all
}

/// By test and kernel, the milliseconds after which a guest ends it that is twice as slow as one under KVM.
fn limits(
    kernels: &[(&str, Settings)],
    general: Option<u64>,
    timeouts: &[TestTimeout],
) -> BTreeMap<String, Option<u64>> {
    let dir = tempfile::tempdir().unwrap();
    let sources = trees(dir.path(), kernels);
    let request = SuiteRequest {
        kind: SuiteKind::Kselftest,
        argv: &[Raw::from("net")],
        cwd: dir.path(),
        name: None,
        tests: None,
        one_process: false,
        timeouts,
        sources: Some(&sources),
        narrowed: false,
    };
    let cells = |name: &str, argv: &[Raw]| {
        let command = ExecRequest::of_words(&[]);
        let one = ExecRequest { argv: argv.to_vec(), name: Some(name.to_owned()), timeout_ms: general, ..command };
        one.cells(false, None)
    };
    let made = plan(&request, &cells).unwrap();
    let mut told = BTreeMap::new();
    for info in &made.cells {
        for (kernel, _) in kernels {
            let mut work = info.work.clone();
            made.readers.get(&info.id).unwrap().prepare(&mut work, kernel, 2.0);
            told.insert(format!("{} {kernel}", info.id), work.program().unwrap().timeout_ms);
        }
    }
    told
}

fn of<const N: usize>(all: [(&str, Option<u64>); N]) -> BTreeMap<String, Option<u64>> {
    all.into_iter().map(|(name, limit)| (name.to_owned(), limit)).collect()
}

#[test]
fn each_kernels_own_settings_limit_its_tests() {
    for first in ["timeout=0\n", "timeout=30\n"] {
        let kernels =
            [("6.1", Some(first)), ("6.12", Some("timeout=0\n")), ("6.18", Some("timeout=40\n")), ("7.1", None)];
        let of_first = (first == "timeout=30\n").then_some(60_000);
        let told = limits(&kernels, None, &[]);
        for name in ["net/a.sh", "net/long.sh"] {
            let own = kernels.map(|(kernel, _)| told[&format!("{name} {kernel}")]);
            // 0 is no limit, and without a file it is 45 s.
            assert_eq!(own, [of_first, None, Some(80_000), Some(90_000)], "{name}");
        }
    }
}

#[test]
fn a_timeout_of_the_command_line_is_taken_literally_and_the_one_of_a_pattern_first() {
    let kernels = [("6.1", Some("timeout=30\n")), ("6.12", Some("timeout=0\n"))];
    let long = [TestTimeout::new("net/long*", Duration::from_secs(600))];
    let told = limits(&kernels, Some(5000), &long);
    let general = [("net/a.sh 6.1", Some(5000)), ("net/a.sh 6.12", Some(5000))];
    let own = [("net/long.sh 6.1", Some(600_000)), ("net/long.sh 6.12", Some(600_000))];
    assert_eq!(told, of([general[0], general[1], own[0], own[1]]));
    let told = limits(&kernels, None, &long);
    let settings = [("net/a.sh 6.1", Some(60_000)), ("net/a.sh 6.12", None)];
    assert_eq!(told, of([settings[0], settings[1], own[0], own[1]]));
}
