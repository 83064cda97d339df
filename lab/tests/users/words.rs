//! Errors and hints as a person reads them.

use super::support::{lab, plan, run, stderr, stdout, write};
use lab_protocol::CellId;
use lab_record::plan::Plan;
use std::{fs, path::Path};

const RUN: &str = "20261119T020000Z-aaaaaa";

/// A run whose cells have these names.
fn history(results: &Path, names: &[&str]) {
    let mut plan: Plan = plan(1, names.len());
    for (at, name) in names.iter().enumerate() {
        plan.cells[at].id = CellId((*name).into());
        plan.kernels[0].cells[at].id = CellId((*name).into());
    }
    write(results, RUN, &run(RUN, plan, &[], ""));
}

#[test]
fn suggestions_begin_with_the_word_or_differ_by_few_letters() {
    let error = |kernel: &str| stderr(&lab(&["list", "--kernel", kernel]).output().unwrap());
    let told = error("6.18");
    assert!(told.contains("no kernel matches `6.18`; nearest: 6.18.5, 6.18.9, 6.18.12, 6.18.15\n"), "{told}");
    let told = error("6.99");
    assert!(told.contains("nearest: 6.19.14, 7.0.4\n"), "its neighbours, since no version is like another: {told}");
    let dir = tempfile::tempdir().unwrap();
    history(dir.path(), &["A10-no-such-device[tcx]", "T08-service[tc,veth]", "T09-other[tc]"]);
    let history = |case: &str| lab(&["history", case, "--results"]).arg(dir.path()).output().unwrap();
    let told = stderr(&history("nosuch*"));
    assert!(told.contains("no case matches `nosuch*`\n"), "{told}");
    let told = stderr(&history("T08-servcie*"));
    assert!(told.contains("no case matches `T08-servcie*`; nearest: T08-service"), "{told}");
    let found = history("t08*");
    assert!(found.status.success(), "{}", stderr(&found));
    assert!(stdout(&found).contains("T08-service[tc,veth]") && !stdout(&found).contains("T09"), "{}", stdout(&found));
}

#[test]
fn an_error_about_a_number_has_the_valid_range() {
    for (arguments, range) in [
        (&["run", "--jobs", "0"][..], "a whole number from 1 to "),
        (&["run", "--jobs", "two"], "a whole number from 1 to "),
        (&["run", "--retries", "x"], "a whole number from 0 to 20"),
        (&["run", "--retries", "21"], "a whole number from 0 to 20"),
        (&["plan", "--shards", "0"], "a whole number from 1 to "),
        (&["history", "x", "--last", "0"], "a whole number from 1 to "),
        (&["mutants", "--jobs", "-1"], "a whole number from 1 to "),
        (&["capabilities", "--jobs", "0"], "a whole number from 1 to "),
        (&["bench", "suite", "--repeat", "0"], "a whole number from 1 to "),
        (&["results", "prune", "--keep", "x"], "a whole number from 1 to "),
        (&["bisect", "--case", "x", "--good", "a", "--bad", "b", "--max-runs", "1"], "a whole number from 3 to 99999"),
    ] {
        let joined: Vec<String> = match arguments {
            // A value that looks like an option is one with `=` only.
            [command, option, value] if value.starts_with('-') => {
                vec![(*command).to_owned(), format!("{option}={value}")]
            }
            all => all.iter().map(|it| (*it).to_owned()).collect(),
        };
        let words: Vec<&str> = joined.iter().map(String::as_str).collect();
        let output = lab(&words).output().unwrap();
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(range), "{arguments:?}: {told}");
        for rust in ["non-zero type", "invalid digit", "u32", "usize", "ParseIntError"] {
            assert!(!told.contains(rust), "{arguments:?}: {told}");
        }
    }
}

/// What a guest can't be started from is refused where a person asks whether the machine is ready.
#[test]
fn one_rule_for_the_path_of_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    for (name, found) in [("käse", "'ä'"), ("with blank", "' '"), ("a,b", "','")] {
        let cache = dir.path().join(name);
        fs::create_dir(&cache).unwrap();
        for arguments in [&["doctor"][..], &["kernels", "list"], &["setup"]] {
            let output = lab(arguments).env("NETKIT_LAB_CACHE", &cache).output().unwrap();
            let told = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}{}", stdout(&output));
            assert!(told.contains(name) && told.contains(found) && told.contains("NETKIT_LAB_CACHE"), "{told}");
        }
        assert!(fs::read_dir(&cache).unwrap().next().is_none(), "nothing is left in it");
    }
}

#[test]
fn help_says_what_is_done() {
    let help = |words: &[&str]| {
        let told = stdout(&lab(words).arg("--help").output().unwrap());
        told.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let update = help(&["kernels", "update"]);
    assert!(update.contains("every kernel of kernels.toml"), "{update}");
    assert!(update.contains("are dropped") && !update.contains("Default: the kernels with"), "{update}");
    let report = help(&["report"]);
    assert!(report.contains("The exit code is that of the run"), "{report}");
}

/// As the documents say.
#[test]
fn exit_codes_of_the_shell_and_of_reports() {
    assert_eq!(lab(&["shell", "no-such-kernel", "--no-build", "--", "true"]).output().unwrap().status.code(), Some(4));
    let dir = tempfile::tempdir().unwrap();
    let passed = write(dir.path(), "passed", &run(RUN, plan(1, 3), &[], ""));
    let failed = write(dir.path(), "failed", &run(RUN, plan(1, 3), &[1], "lost"));
    for format in [&[][..], &["--format", "markdown"], &["--format", "junit"]] {
        for (run, code) in [(&passed, 0), (&failed, 1)] {
            assert_eq!(lab(&["report"]).arg(run).args(format).output().unwrap().status.code(), Some(code));
        }
    }
}
