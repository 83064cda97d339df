//! Hostile results: names, links, files and texts that `lab merge`, `report` and `compare` read.

use crate::{
    attack::{Attack, By, Wanted},
    stage::{Seen, Stage},
};
use lab_guard::Inside;
use lab_protocol::{FailureKind, Outcome};
use lab_record::{
    event::{Event, RunInfo, Stamped},
    shard::{Part, Shard, Share},
    synthetic,
};
use nix::{sys::stat::Mode, unistd::mkfifo};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// Control sequences for terminals, browsers, CI systems and parsers.
const EVIL: &str = "\x1b]0;x\x07\x1b[2J\u{202e}\u{200b}\u{feff}\r\n::error::forged\n##[add-mask]forged\nok 9 forged\n]]><script>x</script>|`x`";

const NAMES: &str = "A name that is read back is checked where it is read";
const PLAIN: &str = "Only plain files are taken from elsewhere";
const WORDS: &str = "Words from results steer no terminal and command no CI system";
const BOUND: &str = "What is read has a limit";

/// A run on three kernels.
pub fn run(name: &str) -> Vec<Stamped> {
    synthetic::events(synthetic::run_info(name, synthetic::plan(3, 6))).collect()
}

/// The only shard of such a run.
pub fn shard() -> Vec<Stamped> {
    let plan = synthetic::plan(3, 6);
    let kernels = plan.kernels.iter().map(|kernel| Share { facts: kernel.facts.clone(), shards: vec![1] }).collect();
    let part = Part::new(1, 1).expect("the only part");
    let identity = BTreeMap::from([("the plan".to_owned(), "made up".to_owned())]);
    let shard = Shard { part, identity, kernels, full_matrix: false, estimate_ms: None };
    synthetic::events(RunInfo { shard: Some(shard), ..synthetic::run_info("shard-1", plan) }).collect()
}

/// Events as they lie on the disk, with a word in place of another.
pub fn with(events: &[Stamped], old: &str, new: &str) -> Vec<u8> {
    let lines: String = events.iter().map(|stamped| serde_json::to_string(stamped).unwrap() + "\n").collect();
    assert!(lines.contains(old), "{old}");
    lines.replace(old, new).into_bytes()
}

fn merge(stage: &Stage<'_>, shards: &Path) -> Seen {
    let out = stage.run().join("merged");
    stage.told(&["merge", path(shards), "--out", path(&out)])
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of this test")
}

/// A shard's directory with a directory of its kernel 6.12.
fn with_kernel(stage: &Stage<'_>) -> (PathBuf, PathBuf) {
    let shard = stage.results("shard", &shard());
    let kernel = shard.join("6.12");
    fs::create_dir(&kernel).unwrap();
    (shard, kernel)
}

/// A run whose first verdict that can fail says this.
fn saying(words: &str) -> Vec<Stamped> {
    let mut events = run("20261120T120000Z-abcdef");
    for stamped in &mut events {
        if let Event::CellFinished { verdict, .. } = &mut stamped.event {
            verdict.outcome = Outcome::Failed { kind: FailureKind::Check, message: words.to_owned() };
            verdict.warnings = vec![words.to_owned()];
            verdict.evidence = Some(words.to_owned());
        }
        if let Event::Note { text, .. } = &mut stamped.event {
            words.clone_into(text);
        }
    }
    events
}

/// The rows.
pub fn attacks() -> Vec<Attack> {
    let mut all = names();
    all.extend(links());
    all.extend(words());
    all.extend(sizes());
    all
}

fn names() -> Vec<Attack> {
    let row = Attack::by(By::Results);
    let refused = || Wanted::exit(&[2], &["is not a valid name of a kernel or a run"]);
    vec![
        row("kernel-id-climbs", "a shard's kernel id is `../evil`", NAMES, refused(), |stage| {
            let shard = stage.raw_results("shard", &with(&shard(), "\"6.12\"", "\"../evil\""));
            merge(stage, &shard)
        }),
        row("kernel-id-is-a-path", "a kernel id is an absolute path", NAMES, refused(), |stage| {
            let evil = format!("\"{}\"", stage.outside().display());
            let run = stage.raw_results("20261120T120000Z-abcdef", &with(&run("x"), "\"6.12\"", &evil));
            stage.told(&["report", path(&run)])
        }),
        row("run-id-climbs", "a shard's run id is `../../outside/key`", NAMES, refused(), |stage| {
            let shard = stage.raw_results("shard", &with(&shard(), "\"shard-1\"", "\"../../outside/key\""));
            merge(stage, &shard)
        }),
        row("kernel-id-steers", "a kernel id is an escape sequence", NAMES, refused(), |stage| {
            let run = stage.raw_results("r", &with(&run("x"), "\"6.12\"", "\"\\u001b[2J\\u202e\""));
            stage.told(&["report", path(&run)])
        }),
        row(
            "file-climbs",
            "a file of a cell is `../../outside/key`",
            NAMES,
            Wanted::exit(&[2], &["is not a valid path of a file in a run"]),
            |stage| {
                let mut events = run("x");
                let inside = Inside::new("6.12/cells/x/planted").unwrap();
                for stamped in &mut events {
                    if let Event::CellFinished { verdict, .. } = &mut stamped.event {
                        verdict.files = vec![inside.clone()];
                    }
                }
                let run = stage.raw_results("r", &with(&events, "6.12/cells/x/planted", "../../outside/key"));
                stage.told(&["report", path(&run)])
            },
        ),
    ]
}

fn links() -> Vec<Attack> {
    let row = Attack::by(By::Results);
    let link = || Wanted::exit(&[3], &["a symbolic link instead of a"]);
    vec![
        row("shard-is-a-link", "a shard's directory is a link to another", PLAIN, link(), |stage| {
            let shard = stage.results("elsewhere", &shard());
            symlink(&shard, stage.run().join("link")).unwrap();
            merge(stage, &stage.run().join("link"))
        }),
        row("shard-is-a-link-with-a-slash", "the same, named with a slash at its end", PLAIN, link(), |stage| {
            let shard = stage.results("elsewhere", &shard());
            symlink(&shard, stage.run().join("link")).unwrap();
            merge(stage, &stage.run().join("link/"))
        }),
        row(
            "kernel-directory-is-a-link",
            "a kernel's directory in a shard is a link to a key",
            PLAIN,
            link(),
            |stage| {
                let shard = stage.results("shard", &shard());
                symlink(stage.outside(), shard.join("6.12")).unwrap();
                merge(stage, &shard)
            },
        ),
        row("report-through-a-link", "a kernel's directory in a run leads outside", PLAIN, link(), |stage| {
            let run = stage.results("run", &run("x"));
            symlink(stage.outside(), run.join("6.12")).unwrap();
            stage.told(&["report", path(&run)])
        }),
        row("console-is-a-link", "a console in a shard is a link to a key", PLAIN, link(), |stage| {
            let (shard, kernel) = with_kernel(stage);
            symlink(stage.outside().join("key"), kernel.join("console.log")).unwrap();
            merge(stage, &shard)
        }),
        row(
            "evidence-is-a-fifo",
            "a file in a shard is a FIFO that nobody writes to",
            PLAIN,
            Wanted::exit(&[3], &["a FIFO instead of a file"]),
            |stage| {
                let (shard, kernel) = with_kernel(stage);
                mkfifo(&kernel.join("console.log"), Mode::S_IRUSR).unwrap();
                merge(stage, &shard)
            },
        ),
        row(
            "events-are-a-fifo",
            "events.jsonl is a FIFO that nobody writes to",
            PLAIN,
            Wanted::exit(&[2, 3], &["instead of a file"]),
            |stage| {
                let run = stage.run().join("run");
                fs::create_dir(&run).unwrap();
                mkfifo(&run.join("events.jsonl"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
                merge(stage, &run)
            },
        ),
        row("events-are-endless", "events.jsonl is a link to /dev/zero", PLAIN, link(), |stage| {
            let run = stage.run().join("run");
            fs::create_dir(&run).unwrap();
            symlink("/dev/zero", run.join("events.jsonl")).unwrap();
            merge(stage, &run)
        }),
    ]
}

fn words() -> Vec<Attack> {
    let row = Attack::by(By::Results);
    let quiet = || Wanted::exit(&[1], &[]).never(&["\n::error", "##[add-mask]", "\nok 9 forged"]);
    let commands = || Wanted::exit(&[1], &[]).never(&["\n::error", "##[add-mask]"]);
    vec![
        row("words-in-a-summary", "reasons, notes and evidence steer a terminal", WORDS, quiet(), |stage| {
            let run = stage.results("run", &saying(EVIL));
            told_in_ci(stage, &["report", path(&run)])
        }),
        row("words-in-ktap", "a reason forges lines of KTAP", WORDS, quiet(), |stage| {
            let run = stage.results("run", &saying(EVIL));
            told_in_ci(stage, &["report", path(&run), "--format", "ktap"])
        }),
        row("words-in-junit", "a reason ends JUnit's text and commands the runner", WORDS, commands(), |stage| {
            let run = stage.results("run", &saying(EVIL));
            told_in_ci(stage, &["report", path(&run), "--format", "junit"])
        }),
        row("words-in-a-comparison", "a changed reason is Markdown and a command", WORDS, quiet(), |stage| {
            let [before, after] = ["before", "after"].map(|name| {
                stage.results(name, &if name == "after" { saying(EVIL) } else { run("20261119T120000Z-abcdef") })
            });
            told_in_ci(stage, &["compare", path(&before), path(&after), "--format", "markdown"])
        }),
        row(
            "words-in-an-error",
            "a directory's name is an escape sequence and a command",
            WORDS,
            Wanted::exit(&[2], &["is not a run"]).never(&["\n::error", "##[add-mask]"]),
            |stage| {
                let named = stage.run().join("\u{1b}[2J\u{202e}\n::error::x##[add-mask]");
                fs::create_dir_all(&named).unwrap();
                told_in_ci(stage, &["merge", path(&named)])
            },
        ),
    ]
}

fn told_in_ci(stage: &Stage<'_>, arguments: &[&str]) -> Seen {
    let mut command = stage.lab(arguments);
    command.env("CI", "true");
    stage.finish(command, std::time::Duration::from_secs(60))
}

fn sizes() -> Vec<Attack> {
    let row = Attack::by(By::Results);
    vec![
        row(
            "evidence-is-sparse",
            "a console in a shard claims a terabyte",
            BOUND,
            Wanted::exit(&[3], &["can't copy", "GiB in all"]),
            |stage| {
                let (shard, kernel) = with_kernel(stage);
                File::create(kernel.join("console.log")).unwrap().set_len(1 << 40).unwrap();
                merge(stage, &shard)
            },
        ),
        row(
            "line-without-end",
            "a line of events.jsonl has two gigabytes",
            BOUND,
            Wanted { memory_mib: 600, ..Wanted::exit(&[2], &["the line has more than"]) },
            |stage| {
                let run = stage.results("run", &run("x"));
                File::options().append(true).open(run.join("events.jsonl")).unwrap().set_len(2 << 30).unwrap();
                stage.told(&["report", path(&run)])
            },
        ),
        row(
            "nested-without-end",
            "an event is nested a hundred thousand deep",
            BOUND,
            Wanted::exit(&[2], &["not an event of this version of lab"]),
            |stage| {
                let mut bytes = with(&run("x"), "x", "x");
                bytes.extend_from_slice(b"{\"at_ms\":1,\"event\":");
                bytes.extend(std::iter::repeat_n(b'[', 100_000));
                bytes.push(b'\n');
                let run = stage.raw_results("run", &bytes);
                stage.told(&["report", path(&run)])
            },
        ),
        row(
            "name-is-no-utf-8",
            "a run's id has bytes that are no text",
            NAMES,
            Wanted::exit(&[2], &["not an event of this version of lab"]),
            |stage| {
                let text = with(&run("nobytes"), "nobytes", "no-bytes-here");
                let at = text.windows(8).position(|it| it == b"no-bytes").unwrap();
                let mut bytes = text.clone();
                bytes[at] = 0xff;
                let run = stage.raw_results("run", &bytes);
                stage.told(&["report", path(&run)])
            },
        ),
    ]
}
