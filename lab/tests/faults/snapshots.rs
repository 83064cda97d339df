//! Faults around snapshots of real guests, each with a cache without snapshots.

use crate::{
    fault::{Expected, Fault, How, Seen},
    own_cache,
    real::{Stage, hit, pid, wait_for},
};
use nix::{sys::signal::Signal, unistd::geteuid};
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Selects a few fast cells.
const SHORT: &[&str] = &["--case", "D10*"];
/// Text in the events after the guest for a snapshot was started.
const MAKING: &str = r#""start":"snapshot""#;

/// The rows of the table.
pub fn faults() -> Vec<Fault> {
    let fault = |name, injected, (exit, cells, told), act| Fault {
        name,
        injected,
        expected: Expected { exit, cells, told },
        how: How::Real(act),
    };
    vec![
        fault(
            "snapshot-no-space",
            "a disk with too little space for a snapshot",
            (0, &["D10 passed"], &["guests boot, because there is no snapshot", "MiB free, 768 MiB needed"]),
            |stage| stage.finish(small_disk(stage, "600m")),
        ),
        fault(
            "snapshot-disk-full",
            "a disk that fills up while a snapshot is written",
            (0, &["D10 passed"], &["guests boot, because there is no snapshot", "No space left on device"]),
            disk_full,
        ),
        fault(
            "snapshot-interrupted",
            "Ctrl-C while a snapshot is made",
            (130, &["D10 not-run: the run was interrupted"], &[]),
            |stage| {
                let child = stage.until(run(stage), MAKING);
                hit(pid(&child), Signal::SIGINT);
                stage.end(child)
            },
        ),
        fault(
            "snapshot-killed",
            "SIGKILL while a snapshot is made, and then another run",
            (0, &["D10 passed"], &[]),
            killed,
        ),
        fault(
            "snapshot-damaged",
            "one changed byte in a snapshot's memory",
            (0, &["D10 passed"], &["the snapshot was removed: the checksum of memory is wrong"]),
            damaged,
        ),
        fault(
            "snapshot-shared",
            "two runs that need the same snapshot, and a third run with another QEMU",
            (0, &["D10 passed"], &[]),
            shared,
        ),
    ]
}

/// A cache with everything but snapshots.
fn cache(stage: &Stage) -> PathBuf {
    let cache = stage.scratch.join("cache");
    if !cache.exists() {
        own_cache::but(&cache, &["snapshots"]);
    }
    cache
}

fn run(stage: &Stage) -> Command {
    let mut command = stage.run(SHORT);
    command.env("NETKIT_LAB_CACHE", cache(stage));
    command
}

fn snapshots(stage: &Stage) -> Vec<PathBuf> {
    fs::read_dir(cache(stage).join("snapshots")).expect("a directory").flatten().map(|entry| entry.path()).collect()
}

/// The run with its snapshots on a separately mounted file system of this size.
fn small_disk(stage: &Stage, size: &str) -> Command {
    const MOUNT: &str = r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@""#;
    let run = run(stage);
    let mut command = Command::new("unshare");
    command.args(if geteuid().is_root() { &["--mount"][..] } else { &["--user", "--map-root-user", "--mount"] });
    command.args(["sh", "-c", MOUNT, "sh", size]).arg(cache(stage).join("snapshots"));
    command.arg(run.get_program()).args(run.get_args()).stdin(Stdio::null());
    command.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

fn disk_full(stage: &Stage) -> Seen {
    let child = stage.until(small_disk(stage, "800m"), MAKING);
    let inside = Path::new("/proc").join(pid(&child).to_string()).join("root");
    let disk = inside.join(cache(stage).strip_prefix("/").expect("an absolute path")).join("snapshots");
    let mut filler = File::create(disk.join("filler")).expect("a file on it");
    while filler.write_all(&[1; 1 << 16]).is_ok() {}
    stage.end(child)
}

fn killed(stage: &Stage) -> Seen {
    let child = stage.until(run(stage), MAKING);
    hit(pid(&child), Signal::SIGKILL);
    let killed = stage.end(child).runs;
    let seen = stage.finish(run(stage));
    assert_eq!(snapshots(stage).len(), 1, "one snapshot, and no part of the unfinished one");
    Seen { runs: seen.runs.into_iter().filter(|run| !killed.contains(run)).collect(), ..seen }
}

fn damaged(stage: &Stage) -> Seen {
    let made = stage.finish(run(stage));
    assert_eq!(made.exit, Some(0), "{}", made.printed);
    let memory = File::options().read(true).write(true).open(snapshots(stage)[0].join("memory")).expect("the memory");
    let (at, mut byte) = (64 << 20, [0]);
    memory.read_exact_at(&mut byte, at).expect("a byte");
    memory.write_all_at(&[!byte[0]], at).expect("another byte");
    stage.finish(run(stage))
}

fn shared(stage: &Stage) -> Seen {
    let other = run(stage).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut other = other.expect("lab starts");
    let seen = stage.finish(run(stage));
    wait_for("the other run", || other.try_wait().expect("our child").is_some());
    let ended = other.wait().expect("our child").code();
    assert_eq!((ended, snapshots(stage).len()), (Some(0), 1), "{}", seen.printed);

    // The version is that in QEMU's output.
    let qemu = stage.scratch.join("qemu");
    let tools = lab::setup::Tools::in_cache(&lab_base::paths::cache_dir().expect("the cache"));
    let real = tools.qemu().expect("the QEMU that runs guests").path.display().to_string();
    let script = format!(
        "#!/bin/sh\n[ \"$*\" = --version ] && echo 'QEMU emulator version 99.0' && exit\nexec '{real}' \"$@\"\n"
    );
    fs::write(&qemu, script).expect("a program");
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).expect("that can be run");
    let mut command = run(stage);
    command.env("NETKIT_LAB_QEMU", &qemu);
    let seen = stage.finish(command);
    assert_eq!(snapshots(stage).len(), 2, "one of each QEMU: {}", seen.printed);
    let made: usize = seen.runs.iter().map(|run| events(run).matches(MAKING).count()).sum();
    assert_eq!(made, 2, "existing snapshots are not created again");
    seen
}

fn events(run: &Path) -> String {
    fs::read_to_string(run.join("events.jsonl")).expect("events of a run")
}
