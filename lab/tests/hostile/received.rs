//! Results from other machines, read by the commands that list, compare and remove runs.

use crate::{
    attack::{Attack, By, Wanted},
    results::{run, with},
    stage::{Seen, Stage},
};
use nix::{sys::stat::Mode, unistd::mkfifo};
use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const PLAIN: &str = "Only plain files are taken from elsewhere";
const WORDS: &str = "Words from results steer no terminal and command no CI system";
const BOUND: &str = "What is read has a limit";
const OURS: &str = "Nothing outside of the results is removed or written";
const GOOD: &str = "20261119T120000Z-abcdef";
const EVIL: &str = "20261120T120000Z-abcdef";

/// A project with a good run and another one, whose directory is returned.
fn project(stage: &Stage<'_>) -> (PathBuf, PathBuf) {
    let project = stage.run().join("project");
    let results = project.join("results");
    for id in [GOOD, EVIL] {
        fs::create_dir_all(results.join(id)).unwrap();
        fs::write(results.join(id).join("events.jsonl"), with(&run(id), "at_ms", "at_ms")).unwrap();
    }
    fs::write(project.join("kernels.toml"), "[kernels]\n").unwrap();
    (project, results.join(EVIL))
}

fn told(stage: &Stage<'_>, project: &Path, arguments: &[&str]) -> Seen {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(project).args(arguments);
    let mut command = stage.dressed(command);
    command.env("CI", "true");
    stage.finish(command, Duration::from_secs(60))
}

/// The rows.
pub fn attacks() -> Vec<Attack> {
    let row = Attack::by(By::Results);
    let mut all = vec![
        row(
            "summary-is-a-fifo",
            "run.json is a FIFO that nobody writes to",
            PLAIN,
            Wanted::exit(&[0], &[GOOD, EVIL]),
            |stage| {
                let (project, run) = project(stage);
                mkfifo(&run.join("run.json"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
                told(stage, &project, &["results", "list"])
            },
        ),
        row(
            "summary-is-a-link",
            "run.json is a link to a key, and another one is a terabyte of nothing",
            PLAIN,
            Wanted::exit(&[0], &[GOOD, EVIL]),
            |stage| {
                let (project, run) = project(stage);
                symlink(stage.outside().join("key"), run.join("run.json")).unwrap();
                File::create(run.with_file_name(GOOD).join("run.json")).unwrap().set_len(1 << 40).unwrap();
                told(stage, &project, &["results", "list"])
            },
        ),
        row(
            "summary-is-nested",
            "run.json is nested a hundred thousand deep, and its numbers are no counts",
            BOUND,
            Wanted::exit(&[0], &[GOOD, EVIL]),
            |stage| {
                let (project, run) = project(stage);
                fs::write(run.join("run.json"), "[".repeat(100_000)).unwrap();
                let numbers = r#"{"exit_code":-1,"counts":{"passed":1e999,"failed":"\u001b[2J","skipped":[]}}"#;
                fs::write(run.with_file_name(GOOD).join("run.json"), numbers).unwrap();
                told(stage, &project, &["results", "list"])
            },
        ),
        row(
            "run-directory-steers",
            "a run's directory is named as an escape sequence and a command",
            WORDS,
            Wanted::exit(&[0], &[GOOD]).never(&["\n::error", "##[add-mask]"]),
            |stage| {
                let (project, run) = project(stage);
                fs::rename(&run, run.with_file_name("2026\u{1b}[2J\u{202e}\n::error::x##[add-mask]")).unwrap();
                let mut seen = told(stage, &project, &["results", "list"]);
                for arguments in [&["history", "*"][..], &["trend"], &["splats"], &["results", "prune", "--dry-run"]] {
                    let other = told(stage, &project, arguments);
                    seen.wrong.extend(other.exit.is_none().then(|| format!("{arguments:?} did not end")));
                    seen.printed.push_str(&other.printed);
                }
                seen
            },
        ),
        row(
            "history-meets-a-fifo",
            "events.jsonl of one of many runs is a FIFO",
            PLAIN,
            Wanted::exit(&[0], &[GOOD]),
            |stage| {
                let (project, run) = project(stage);
                fs::remove_file(run.join("events.jsonl")).unwrap();
                mkfifo(&run.join("events.jsonl"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
                told(stage, &project, &["history", "*"])
            },
        ),
        row(
            "comparison-with-a-device",
            "events.jsonl of the run to compare with is a link to /dev/zero",
            PLAIN,
            Wanted::exit(&[2, 3], &["a symbolic link instead of a file"]),
            |stage| {
                let (project, run) = project(stage);
                fs::remove_file(run.join("events.jsonl")).unwrap();
                symlink("/dev/zero", run.join("events.jsonl")).unwrap();
                told(stage, &project, &["compare", GOOD, EVIL])
            },
        ),
        row(
            "prune-through-links",
            "runs to be removed are links, and have links, to a directory of keys",
            OURS,
            Wanted::exit(&[0], &["removed"]),
            |stage| {
                let (project, run) = project(stage);
                let results = run.parent().unwrap().to_owned();
                for day in 1..9 {
                    let id = format!("2026110{day}T120000Z-abcdef");
                    if day % 2 == 0 {
                        symlink(stage.outside(), results.join(id)).unwrap();
                    } else {
                        fs::create_dir(results.join(&id)).unwrap();
                        symlink(stage.outside(), results.join(&id).join("6.12")).unwrap();
                        symlink(stage.outside().join("key"), results.join(&id).join("events.jsonl")).unwrap();
                    }
                }
                symlink(stage.outside(), results.join(".pruned-20261101T120000Z-abcdef")).unwrap();
                told(stage, &project, &["results", "prune", "--keep", "1"])
            },
        ),
        row(
            "page-is-a-link",
            "trend.html, which is written, is a link to a key",
            OURS,
            Wanted::exit(&[0], &[]),
            |stage| {
                let (project, run) = project(stage);
                symlink(stage.outside().join("key"), run.with_file_name("trend.html")).unwrap();
                told(stage, &project, &["trend"])
            },
        ),
    ];
    all.push(row(
        "durations-are-endless",
        "durations of earlier runs are a link to /dev/zero, and then a FIFO",
        BOUND,
        Wanted::exit(&[2, 3], &["a FIFO instead of a file"]),
        |stage| {
            let device = stage.run().join("device.json");
            symlink("/dev/zero", &device).unwrap();
            let fifo = stage.run().join("fifo.json");
            mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
            let read = |path: &Path| {
                let mut command = stage.lab(&["durations", "--out"]);
                command.arg(path).env_remove("NETKIT_LAB_CACHE");
                stage.finish(command, Duration::from_secs(60))
            };
            let first = read(&device);
            let mut seen = read(&fifo);
            seen.wrong.extend((!first.printed.contains("a device instead of a file")).then_some(first.printed));
            seen
        },
    ));
    all
}
