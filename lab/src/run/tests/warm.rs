//! Snapshots: created, reused, shared, damaged and useless.

use super::*;
use lab_base::held::HeldFile;
use lab_protocol::HostMessage;
use std::{
    fs::OpenOptions,
    sync::{Arc, Mutex},
};

const KERNELS: &[(&str, &str)] = &[("6.12", "6.12.43")];

/// Passes every cell, as a booted or as a restored guest.
fn willing() -> FakeLauncher {
    FakeLauncher::new(|agent| {
        let mut script = Script { agent };
        script.agent.console("Linux version 6.12\n");
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    })
}

fn run_warm(launcher: &FakeLauncher, cache: &Path) -> Outcomes {
    run_with(KERNELS, launcher, Choice { snapshots: Some(SnapshotStore::below(cache)), ..Choice::default() })
}

fn file(cache: &Path, name: &str) -> std::path::PathBuf {
    cache.join("snapshots/fake").join(name)
}

#[test]
fn a_kernel_boots_once_and_is_then_restored() {
    let (cache, launcher) = (tempfile::tempdir().unwrap(), willing());
    let first = run_warm(&launcher, cache.path());
    assert_eq!(first.lines(), ["A01 passed", "B02 passed", "C03 passed"]);
    assert_eq!(starts(&first), [Start::Snapshot, Start::Restore]);
    let second = run_warm(&launcher, cache.path());
    assert_eq!((second.exit(), starts(&second)), (0, vec![Start::Restore]));
    assert_eq!(fs::read_to_string(file(cache.path(), "console.log")).unwrap(), "Linux version 6.12\n");
    let left: Vec<_> =
        fs::read_dir(cache.path().join("snapshots")).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left, ["fake"], "the snapshot, and no lock");
}

#[test]
fn every_restore_counts_as_a_use_of_the_snapshot() {
    let (cache, launcher) = (tempfile::tempdir().unwrap(), willing());
    run_warm(&launcher, cache.path());
    let dir = file(cache.path(), "");
    let day = Duration::from_secs(86_400);
    let aging = FakeLauncher::new(move |agent| {
        // A guest that finds an old snapshot, as another run would, does not answer.
        let snapshot = fs::File::open(&dir).unwrap();
        assert!(snapshot.metadata().unwrap().modified().unwrap().elapsed().unwrap() < day / 2);
        snapshot.set_modified(std::time::SystemTime::now() - day).unwrap();
        let mut script = Script { agent };
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.done(cells.len());
        script.hang();
    });
    let snapshots = Some(SnapshotStore::below(cache.path()));
    // One after another: each guest makes the snapshot look old for the next one.
    let (isolate, room) = (Isolate::Case, Room::of(1));
    let outcomes = run_with(KERNELS, &aging, Choice { snapshots, isolate, room, ..Choice::default() });
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 passed", "C03 passed"]);
    assert_eq!(starts(&outcomes), [Start::Restore; 3]);
}

#[test]
fn a_damaged_snapshot_is_removed_and_replaced() {
    let (cache, launcher) = (tempfile::tempdir().unwrap(), willing());
    run_warm(&launcher, cache.path());
    let damage = |name: &str, change: &dyn Fn(&Path), why: &str| {
        change(&file(cache.path(), name));
        let outcomes = run_warm(&launcher, cache.path());
        assert_eq!((outcomes.exit(), starts(&outcomes)), (0, vec![Start::Snapshot, Start::Restore]), "{name}");
        assert_eq!(outcomes.notes(), [format!("the snapshot was removed: {why}")]);
    };
    let flip = |path: &Path| fs::write(path, vec![1; fs::read(path).unwrap().len()]).unwrap();
    let cut = |path: &Path| OpenOptions::new().write(true).open(path).unwrap().set_len(3).unwrap();
    damage("memory", &flip, "the checksum of memory is wrong");
    damage("state", &flip, "the checksum of state is wrong");
    damage("memory", &cut, "memory has 3 bytes instead of 1048576");
    damage("snapshot.json", &cut, "snapshot.json: EOF while parsing a string at line 1 column 3");
    damage("state", &|path| fs::remove_file(path).unwrap(), "state: No such file or directory (os error 2)");
}

#[test]
fn a_snapshot_with_new_time_stamps_but_the_same_content_is_used() {
    let (cache, launcher) = (tempfile::tempdir().unwrap(), willing());
    run_warm(&launcher, cache.path());
    let path = file(cache.path(), "state");
    fs::write(&path, fs::read(&path).unwrap()).unwrap();
    assert_eq!(starts(&run_warm(&launcher, cache.path())), [Start::Restore]);
}

#[test]
fn a_snapshot_whose_guests_never_answer_is_removed() {
    let cache = tempfile::tempdir().unwrap();
    run_warm(&willing(), cache.path());
    let dead = FakeLauncher::new(|agent| {
        if agent.restored() {
            return;
        }
        let mut script = Script { agent };
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    let outcomes = run_warm(&dead, cache.path());
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 passed", "C03 passed"]);
    assert_eq!(starts(&outcomes), [Start::Restore, Start::Snapshot, Start::Restore, Start::Boot]);
    assert!(outcomes.notes()[0].starts_with("the snapshot was removed: a guest restored from it did not answer: "));
    assert!(!file(cache.path(), "memory").exists());
}

#[test]
fn a_message_from_before_the_snapshot_is_ignored() {
    let cache = tempfile::tempdir().unwrap();
    run_warm(&willing(), cache.path());
    let echo = FakeLauncher::new(|agent| {
        let mut script = Script { agent };
        if script.agent.restored() {
            script.hello_to(PROTOCOL_VERSION, Some(7));
        }
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    let outcomes = run_warm(&echo, cache.path());
    assert_eq!((outcomes.exit(), starts(&outcomes)), (0, vec![Start::Restore]));
    assert_eq!(outcomes.notes(), ["ignored a Hello with a stale nonce"]);
}

#[test]
fn a_full_disk_prevents_the_snapshot_but_not_the_run() {
    let cache = tempfile::tempdir().unwrap();
    let outcomes = run_warm(&willing().never_freezing(), cache.path());
    assert_eq!((outcomes.exit(), starts(&outcomes)), (0, vec![Start::Snapshot, Start::Boot]));
    assert_eq!(outcomes.notes(), ["guests boot, because there is no snapshot: snapshot: No space left on device"]);
    assert!(!file(cache.path(), "").exists());
}

#[test]
fn two_runs_with_a_shared_cache_boot_a_single_guest() {
    let (cache, launcher) = (tempfile::tempdir().unwrap(), willing());
    let runs: Vec<Vec<Start>> = std::thread::scope(|scope| {
        let runs = [(); 3].map(|()| scope.spawn(|| starts(&run_warm(&launcher, cache.path()))));
        runs.map(|run| run.join().unwrap()).into()
    });
    let made = runs.iter().flatten().filter(|start| **start == Start::Snapshot).count();
    let restored = runs.iter().flatten().filter(|start| **start == Start::Restore).count();
    assert_eq!((made, restored), (1, 3), "{runs:?}");
}

#[test]
fn a_panic_in_a_restored_guest_affects_its_cell_but_not_the_snapshot() {
    let cache = tempfile::tempdir().unwrap();
    let launcher = FakeLauncher::new(|agent| {
        let mut script = Script { agent };
        let cells = script.boot();
        for cell in &cells {
            if cell.as_str() == B {
                script.start(cell);
                script.agent.console("[    3.2] Kernel panic - not syncing: x\n");
                return;
            }
            script.pass(cell);
        }
        script.end(cells.len());
    });
    let outcomes = run_warm(&launcher, cache.path());
    assert_eq!(outcomes.lines()[0], "A01 passed");
    assert!(outcomes.lines()[1].starts_with("B02 errored: panic: Kernel panic"), "{:?}", outcomes.lines());
    assert_eq!(outcomes.lines()[2], "C03 passed");
    assert_eq!(starts(&outcomes), [Start::Snapshot, Start::Restore, Start::Restore]);
}

/// Deadlines that a restored guest as slow as [`slow`] misses unless they are scaled by its snapshot's boot.
fn tight() -> Choice {
    let quick = Timing { restore: Duration::from_millis(100), shutdown: Duration::from_millis(100), ..timing() };
    Choice { timing: quick, rescale: &|boot| if boot > SLOW / 2 { 50.0 } else { 1.0 }, ..Choice::default() }
}

const SLOW: Duration = Duration::from_millis(600);

/// A guest that is slow to send its first and its last message.
fn slow() -> FakeLauncher {
    FakeLauncher::new(|agent| {
        let mut script = Script { agent };
        std::thread::sleep(SLOW);
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
        std::thread::sleep(SLOW);
    })
}

#[test]
fn deadlines_of_restored_guests_depend_on_their_snapshots_boot() {
    let (cache, launcher) = (tempfile::tempdir().unwrap(), slow());
    let run =
        || run_with(KERNELS, &launcher, Choice { snapshots: Some(SnapshotStore::below(cache.path())), ..tight() });
    let first = run();
    assert_eq!((first.exit(), starts(&first)), (0, vec![Start::Snapshot, Start::Restore]), "{:?}", first.rows());
    let later = run();
    assert_eq!((later.exit(), starts(&later)), (0, vec![Start::Restore]), "{:?}", later.rows());
    let meta = file(cache.path(), "snapshot.json");
    let meta: serde_json::Value = serde_json::from_slice(&fs::read(meta).unwrap()).unwrap();
    assert!(meta["boot_ms"].as_u64().unwrap() >= 600, "{meta}");
}

/// Restored guests that are alive but never answer.
fn speechless() -> FakeLauncher {
    FakeLauncher::new(|agent| {
        let mut script = Script { agent };
        if script.agent.restored() {
            return script.hang();
        }
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    })
}

#[test]
fn a_snapshot_whose_guest_was_alive_is_kept_the_first_time() {
    let cache = tempfile::tempdir().unwrap();
    let mute = speechless();
    let run = |launcher: &FakeLauncher| {
        let quick = Timing { restore: Duration::from_millis(200), ..timing() };
        run_with(
            KERNELS,
            launcher,
            Choice { snapshots: Some(SnapshotStore::below(cache.path())), timing: quick, ..tight() },
        )
    };
    run(&willing());
    let doubted = run(&mute);
    assert_eq!((doubted.exit(), starts(&doubted)), (0, vec![Start::Restore, Start::Restore, Start::Boot]));
    assert!(doubted.notes()[0].starts_with("the snapshot is kept: a guest restored from it did not answer"));
    assert_eq!(starts(&run(&willing())), [Start::Restore], "the snapshot is used again");
    assert_eq!(starts(&run(&mute)), [Start::Restore, Start::Restore, Start::Boot]);
    let removed = run(&mute);
    assert_eq!(starts(&removed), [Start::Restore, Start::Snapshot, Start::Restore, Start::Boot]);
    assert!(removed.notes()[0].starts_with("the snapshot was removed: guests restored from it are alive but do not"));
}

#[test]
fn objects_are_sent_to_guests_that_run_cells_and_not_to_a_snapshot() {
    let cache = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let launcher = FakeLauncher::new(move |agent| {
        let mut script = Script { agent };
        let mut objects = Vec::new();
        let cells = script.hear(|message| {
            if let HostMessage::Object { name, bytes } = message {
                objects.push((name, bytes));
            }
        });
        notes.lock().unwrap().push((script.agent.restored(), cells.len(), objects));
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    let (name, bytes) = ("lab.o".to_owned(), b"object".to_vec());
    let objects = vec![SentObject { name: name.clone(), file: HeldFile::of_bytes("lab.o", bytes.clone()) }];
    let choice = Choice { snapshots: Some(SnapshotStore::below(cache.path())), objects, ..Choice::default() };
    let outcomes = run_with(KERNELS, &launcher, choice);
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 passed", "C03 passed"]);
    assert_eq!(*seen.lock().unwrap(), [(false, 0, Vec::new()), (true, 3, vec![(name, bytes)])]);
}
