//! The same cells with all kinds of isolation.

use super::*;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

fn isolated(isolate: Isolate, script: impl Fn(Script<'_>) + Send + Sync + 'static) -> (Outcomes, Vec<usize>) {
    let launcher = FakeLauncher::new(move |agent| script(Script { agent }));
    let kernels = &[("6.12", "6.12.43")];
    let outcomes = run_with(kernels, &launcher, Choice { isolate, ..Choice::default() });
    let mut per_guest = std::collections::BTreeMap::<u32, usize>::new();
    for event in &outcomes.events {
        if let Event::CellStarted { guest, .. } = event {
            *per_guest.entry(*guest).or_default() += 1;
        }
    }
    (outcomes, per_guest.into_values().collect())
}

#[test]
fn a_case_has_the_same_outcome_in_a_shared_and_in_a_fresh_guest() {
    for (isolate, guests) in [(Isolate::Kernel, vec![3]), (Isolate::Group, vec![3]), (Isolate::Case, vec![1, 1, 1])] {
        let (outcomes, cells) = isolated(isolate, |mut script| {
            let cells = script.boot();
            cells.iter().for_each(|cell| script.pass(cell));
            script.end(cells.len());
        });
        assert_eq!(outcomes.lines(), ["A01 passed", "B02 passed", "C03 passed"], "{isolate:?}");
        assert_eq!(cells, guests, "{isolate:?}");
    }
}

#[test]
fn a_case_that_depends_on_leftovers_of_another_is_found() {
    let (outcomes, cells) = isolated(Isolate::Both, |mut script| {
        let cells = script.boot();
        for cell in &cells {
            if cell.as_str() == B && cells.len() == 1 {
                script.start(cell);
                let outcome = Outcome::Failed { kind: FailureKind::Check, message: "no map".to_owned() };
                script.finish(CellReport { outcome, ..good(cell) });
            } else {
                script.pass(cell);
            }
        }
        script.end(cells.len());
    });
    assert_eq!(
        outcomes.lines(),
        [
            "A01 passed",
            "B02 failed: isolation: passed in a shared guest, failed (check: no map) in a fresh one",
            "C03 passed"
        ]
    );
    assert_eq!((outcomes.exit(), cells), (1, vec![3, 1, 1, 1]));
}

#[test]
fn a_case_without_a_verdict_in_the_shared_guest_does_not_pass_by_the_fresh_one_alone() {
    let (outcomes, cells) = isolated(Isolate::Both, |mut script| {
        let cells = script.boot();
        for cell in &cells {
            if cell.as_str() == B && cells.len() > 1 {
                script.start(cell);
                return;
            }
            script.pass(cell);
        }
        script.end(cells.len());
    });
    assert_eq!(
        outcomes.lines(),
        ["A01 passed", "B02 errored: guest-lost: the guest ended unexpectedly (exit code 0)", "C03 passed"]
    );
    assert_eq!((outcomes.exit(), cells[0]), (3, 2));
}

/// Runs cells of one kernel with two threads; returns the guests that ran cells, their maximum number at a time, and how many were
/// started.
fn shared(room: Room, isolate: Isolate, count: usize) -> (BTreeSet<u32>, u32, usize) {
    let cells: Vec<_> = (0..count).map(|number| cell(&format!("C{number:02}-x[tc,veth]"))).collect();
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (alive, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let seen = Arc::clone(&most);
    // With a guest for each cell, the first ones wait for each other: a second one is expected at the same time as soon as there is a
    // second cell.
    let together = if isolate == Isolate::Case { count.min(2) as u32 } else { 0 };
    let launcher = FakeLauncher::new(move |agent| {
        seen.fetch_max(alive.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let mut script = Script { agent };
        let mut cells = script.boot();
        while !cells.is_empty() {
            for cell in &cells {
                script.pass(cell);
                std::thread::sleep(Duration::from_millis(2));
                let begin = Instant::now();
                while seen.load(Ordering::SeqCst) < together && begin.elapsed() < Duration::from_secs(5) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            script.done(cells.len());
            cells = script.more();
        }
        alive.fetch_sub(1, Ordering::SeqCst);
    });
    let snapshots = Some(SnapshotStore::below(cache.path()));
    let run = fake(&[("6.12", "6.12.43")], &launcher, Choice { room, snapshots, isolate, cells, ..Choice::default() });
    let mut heard = Heard::default();
    let record = run.go(dir.path(), &mut [&mut heard]).unwrap();
    assert_eq!((record.exit(), record.counts().passed), (Exit::Passed, count + 3));
    let finished = heard.0.iter().filter(|it| matches!(it, Event::KernelFinished { .. })).count();
    assert_eq!(finished, 1);
    let ran = |event: &Event| if let Event::CellStarted { guest, .. } = event { Some(*guest) } else { None };
    let started = heard.0.iter().filter(|it| matches!(it, Event::GuestStarted { .. })).count();
    (heard.0.iter().filter_map(ran).collect(), most.load(Ordering::SeqCst), started)
}

#[test]
fn two_guests_of_a_kernel_share_its_cells() {
    let (guests, most, _) = shared(Room::unlimited(), Isolate::Kernel, 60);
    assert_eq!((guests.len(), most), (2, 2), "{guests:?}");
}

#[test]
fn cells_with_guests_of_their_own_run_side_by_side_and_start_no_other_guest() {
    for count in [1, 2, 3, 7] {
        let (guests, most, started) = shared(Room::unlimited(), Isolate::Case, count);
        assert_eq!((guests.len(), started), (count, count + 1), "the other one becomes the snapshot: {guests:?}");
        assert_eq!(most, count.min(2) as u32, "{count} cells");
    }
}

#[test]
fn guests_that_do_not_fit_into_memory_together_run_one_after_another() {
    let (guests, most, _) = shared(Room::of(1), Isolate::Kernel, 60);
    assert_eq!((guests.len(), most), (1, 1), "{guests:?}");
}
