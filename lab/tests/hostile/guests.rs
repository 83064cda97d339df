//! The hostile agent in real guests: one run of the program with every attack as a cell. If an attack ends its guest,
//! the next attack has a new one.

use crate::{
    attack::{Attack, By, Wanted},
    stage::{ROOT, Seen, Stage},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

const KERNEL: &str = "6.12";
/// For the whole run: a cold boot per attack, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(500);

/// Result of the run with all of these attacks.
#[derive(Default)]
struct Whole {
    seen: Seen,
    /// `word: message` by the name of the cell.
    verdicts: BTreeMap<String, String>,
    /// Files below the run's directory.
    files: Vec<PathBuf>,
    /// Problems with launch directories while guests ran.
    open: Vec<String>,
}

fn row(name: &'static str, what: &'static str, promise: &'static str, verdict: &'static [&'static str]) -> Attack {
    Attack {
        name,
        by: By::Guest,
        what,
        promise,
        wanted: Wanted { seconds: PATIENCE.as_secs(), ..Wanted::exit(&[0], verdict) },
        act: act_of(name),
    }
}

/// The rows.
pub fn attacks() -> Vec<Attack> {
    const BUDGET: &str = "A guest has a budget of messages and bytes, and exceeding it is a verdict of its own";
    const OVER: &[&str] = &["errored: over-budget: the guest sent too much"];
    vec![
        row("guest-nothing", "nothing: the control", "A guest that behaves passes", &["passed"]),
        row("guest-probes-without-end", "`Probed` without end", BUDGET, OVER),
        row("guest-complaints-without-end", "unique warnings without end", BUDGET, OVER),
        row("guest-heartbeats-without-end", "heartbeats without end", BUDGET, OVER),
        row("guest-notes-without-end", "endless log lines", BUDGET, OVER),
        row("guest-garbage-without-end", "endless bytes outside of messages", BUDGET, OVER),
        row(
            "guest-console-without-end",
            "a console that is written to without end",
            "Every file that a guest can make grow has a limit",
            &["errored: "],
        ),
        row(
            "guest-frame-of-four-gigabytes",
            "a frame that claims four gigabytes",
            "Bytes on the port can't crash or stall the lab",
            &["passed"],
        ),
        row(
            "guest-half-a-frame-and-silence",
            "half a frame, and nothing more",
            "A guest can't keep the lab waiting",
            &["errored: hang"],
        ),
        row(
            "guest-verdicts-of-other-cells",
            "passes for every other cell",
            "A guest can't claim another cell's verdict",
            &["passed"],
        ),
        row(
            "guest-words-that-steer",
            "words that steer terminals, browsers and CI systems",
            "Words of a guest steer no terminal and command no CI system",
            &["failed: check: "],
        ),
        row(
            "guest-files-that-climb",
            "files that are named as paths to elsewhere",
            "No path of a guest is followed",
            &["failed: check: with files"],
        ),
        row(
            "guest-drawing-with-a-script",
            "a drawing that carries a script",
            "What a guest left runs nothing in a browser",
            &["failed: check: with files"],
        ),
        row("guest-power-off", "the machine ends in the middle", "A guest can't keep the lab waiting", &["errored: "]),
        row(
            "guest-host-is-looked-for",
            "exports, disks, networks and consoles of the host are looked for",
            "A guest sees no file of its host",
            &["passed"],
        ),
        row("guest-last-words-without-end", "words without end after its last report", BUDGET, &["passed"]),
        row(
            "guest-launch-directory",
            "launch directories are entered while guests run, under a umask of 0",
            "Launch directories are the user's own",
            &["0 open launch directories"],
        ),
    ]
}

fn act_of(name: &'static str) -> fn(&Stage<'_>) -> Seen {
    // An act knows no more than its stage, so the attack that is next is remembered: real ones go one by one.
    static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if !names.contains(&name) {
        names.push(name);
    }
    macro_rules! acts {
        ($($at:literal),*) => {
            [$((|stage| judge(stage, $at)) as fn(&Stage<'_>) -> Seen),*]
        };
    }
    let acts = acts![0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    acts[names.iter().position(|known| *known == name).expect("it was just put there")]
}

/// Result of the attack with this number.
fn judge(_: &Stage<'_>, number: usize) -> Seen {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    let whole = WHOLE.get_or_init(run);
    let mut seen = Seen { exit: Some(0), memory_mib: whole.seen.memory_mib, ..Seen::default() };
    let begin = format!("X{number:02}-");
    let verdict = whole.verdicts.iter().find(|(cell, _)| cell.starts_with(&begin));
    seen.printed = match verdict {
        Some((_, verdict)) => verdict.clone(),
        None if number == 16 => {
            seen.wrong.extend(whole.open.clone());
            format!("{} open launch directories", whole.open.len())
        }
        None => format!("the run has no such cell: {}", whole.seen.printed),
    };
    for path in &whole.files {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
        if !path.to_string_lossy().chars().all(plain) || path.extension().is_some_and(|it| it == "svg") {
            seen.wrong.push(format!("the run has a file {}", path.display()));
        }
    }
    for words in ["\n::error", "##[add-mask]", "\u{1b}", "\u{202e}"] {
        if whole.seen.printed.contains(words) {
            seen.wrong.push(format!("{words:?} was printed"));
        }
    }
    seen
}

/// A project whose agent is the hostile one.
pub fn project(scratch: &Path) -> PathBuf {
    let project = scratch.join("project");
    let root = fs::canonicalize(ROOT).expect("the project");
    let agent = "target/guest/x86_64-unknown-linux-gnu/release";
    fs::create_dir_all(project.join(agent)).expect("a directory");
    for file in ["kernels.toml", "kernels.lock", "ebpf"] {
        symlink(root.join(file), project.join(file)).expect("a link");
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--release", "--package=hostile-agent", "--target=x86_64-unknown-linux-gnu"]);
    build.arg("--target-dir").arg(root.join("target/guest")).current_dir(&root);
    build.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
    assert!(build.status().expect("cargo starts").success(), "the hostile agent is built");
    fs::copy(root.join(agent).join("hostile-agent"), project.join(agent).join("guest-agent")).expect("the agent");
    project
}

fn run() -> Whole {
    let scratch = tempfile::Builder::new().prefix("hostile-").tempdir().expect("a temporary directory");
    let (results, temporary) = (scratch.path().join("results"), scratch.path().join("tmp"));
    fs::create_dir(&temporary).expect("a directory");
    // Other users can access it, like /tmp.
    for (path, mode) in [(scratch.path(), 0o755), (&*temporary, 0o1777)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
    }
    let project = project(scratch.path());
    let mut command = Command::new("sh");
    command.args(["-c", r#"umask 0; exec "$@""#, "sh", env!("CARGO_BIN_EXE_lab"), "--project"]).arg(&project);
    command.args(["run", "--no-build", "--kernel", KERNEL, "--jobs", "1"]);
    command.args(["--deadline", "cell=6s", "--deadline", "silence=6s", "--out"]).arg(&results);
    // No later run is to find images with this agent.
    let cache = scratch.path().join("cache");
    crate::own_cache::but(&cache, &["images", "snapshots"]);
    command.env("TMPDIR", &temporary).env("NETKIT_LAB_CACHE", &cache).env("CI", "true");
    let stage = Stage { scratch: scratch.path() };
    let mut whole = Whole::default();
    thread::scope(|scope| {
        let run = scope.spawn(|| stage.finish(command, PATIENCE));
        while !run.is_finished() {
            look(&temporary, &mut whole.open);
            thread::sleep(Duration::from_millis(100));
        }
        whole.seen = run.join().expect("it only waits");
    });
    let events = fs::read_to_string(results.join("latest/events.jsonl")).unwrap_or_default();
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        if event["event"] == "cell-finished" {
            let verdict = &event["verdict"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let outcome = &verdict["outcome"];
            let [word, kind, message] = ["outcome", "kind", "message"].map(|key| text(&outcome[key]));
            let told = [word, kind, message].into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(": ");
            whole.verdicts.insert(text(&verdict["report"]["cell"]), told.escape_debug().to_string());
        }
    }
    let run = fs::canonicalize(results.join("latest")).unwrap_or_default();
    let files = walkdir::WalkDir::new(&run).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    whole.files = files.filter_map(|it| Some(it.path().strip_prefix(&run).ok()?.to_owned())).collect();
    whole
}

/// Launch directories that others could enter, looked at by their modes and, where there is another user to be, by
/// going in.
fn look(temporary: &Path, open: &mut Vec<String>) {
    for entry in fs::read_dir(temporary).into_iter().flatten().flatten() {
        let Ok(found) = entry.metadata() else { continue };
        if found.mode() & 0o077 != 0 && found.is_dir() {
            open.push(format!("{} has mode {:o}", entry.path().display(), found.mode() & 0o777));
        }
        if nix::unistd::geteuid().is_root() {
            let mut other = Command::new("setpriv");
            other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "ls"]).arg(entry.path());
            if other.output().is_ok_and(|output| output.status.success()) && entry.path().exists() {
                open.push(format!("another user got into {}", entry.path().display()));
            }
        }
    }
}
