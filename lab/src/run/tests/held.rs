//! Guests that another process holds: taken, of no use, asked for, and made ready.

use super::*;
use crate::run::{
    held::{GuestHolder, HoldOrder, MOST_CELLS, rehearsal},
    rehearse::{HoldError, rehearse},
};
use lab_protocol::{CellJob, Raw, Work, work::CellProgram};
use lab_vm::{Guest, GuestSpec, fake::specification};
use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

const KERNELS: &[(&str, &str)] = &[("6.12", "6.12.43")];

/// Holds so many guests.
struct Shelf {
    launcher: FakeLauncher,
    left: AtomicU32,
    asked: Mutex<Vec<String>>,
    orders: Mutex<Vec<HoldOrder>>,
}

impl Shelf {
    fn with(guests: u32, launcher: FakeLauncher) -> &'static Self {
        let (asked, orders) = Default::default();
        Box::leak(Box::new(Self { launcher, left: AtomicU32::new(guests), asked, orders }))
    }
}

impl GuestHolder for Shelf {
    fn take(&self, key: &str, spec: &GuestSpec) -> Option<Box<dyn Guest>> {
        self.asked.lock().unwrap().push(key.to_owned());
        let one_less = |left: u32| left.checked_sub(1);
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).ok()?;
        self.launcher.held(spec).ok()
    }

    fn offer(&self, order: HoldOrder) {
        self.orders.lock().unwrap().push(order);
    }
}

/// Passes every cell.
fn willing() -> FakeLauncher {
    FakeLauncher::new(|agent| {
        let mut script = Script { agent };
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    })
}

fn run_on(launcher: &FakeLauncher, cache: &Path, shelf: &'static Shelf) -> Outcomes {
    let snapshots = Some(SnapshotStore::below(cache));
    run_with(KERNELS, launcher, Choice { snapshots, holder: Some(shelf), ..Choice::default() })
}

#[test]
fn a_held_guest_is_taken_in_the_place_of_a_restored_one() {
    let (cache, shelf) = (tempfile::tempdir().unwrap(), Shelf::with(1, willing()));
    let launcher = willing();
    run_with(KERNELS, &launcher, Choice { snapshots: Some(SnapshotStore::below(cache.path())), ..Choice::default() });
    let outcomes = run_on(&launcher, cache.path(), shelf);
    assert_eq!(
        (outcomes.lines(), starts(&outcomes)),
        (vec!["A01 passed", "B02 passed", "C03 passed"].into_iter().map(str::to_owned).collect(), vec![Start::Held])
    );
    // The shelf is empty now.
    assert_eq!(starts(&run_on(&launcher, cache.path(), shelf)), [Start::Restore]);
    assert_eq!(*shelf.asked.lock().unwrap(), ["fake", "fake"], "the snapshot's key");
    let orders = shelf.orders.lock().unwrap();
    let jobs: Vec<Vec<&str>> =
        orders.iter().map(|order| order.jobs.iter().map(|job| job.cell.as_str()).collect()).collect();
    assert_eq!(jobs, [[A, B, C], [A, B, C]]);
    assert!(orders.iter().all(|order| order.key == "fake" && order.files.is_none()));
}

#[test]
fn a_run_without_snapshots_neither_asks_nor_offers() {
    let (shelf, launcher) = (Shelf::with(1, willing()), willing());
    let outcomes = run_with(KERNELS, &launcher, Choice { holder: Some(shelf), ..Choice::default() });
    assert_eq!(starts(&outcomes), [Start::Boot]);
    assert!(shelf.asked.lock().unwrap().is_empty() && shelf.orders.lock().unwrap().is_empty());
}

#[test]
fn a_held_guest_that_does_not_answer_says_nothing_against_the_snapshot() {
    let cache = tempfile::tempdir().unwrap();
    let (silent, launcher) = (FakeLauncher::new(|_| ()), willing());
    run_on(&launcher, cache.path(), Shelf::with(0, willing()));
    let outcomes = run_on(&launcher, cache.path(), Shelf::with(1, silent));
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 passed", "C03 passed"]);
    assert_eq!((outcomes.exit(), starts(&outcomes)), (0, vec![Start::Held, Start::Restore]));
    assert!(
        outcomes.notes()[0].starts_with("a guest that was held did not answer; another is restored: "),
        "{:?}",
        outcomes.notes()
    );
    assert!(cache.path().join("snapshots/fake/memory").exists());
}

fn program(name: &str) -> CellProgram {
    let word = |text: &str| Raw::from(text.as_bytes());
    CellProgram {
        argv: vec![word(name)],
        env: vec![(word("TOKEN"), word("secret"))],
        inherit: lab_protocol::work::Inherit::All,
        cwd: word("/home/x"),
        world: None,
        stage: lab_protocol::shell::ShellStage::Bare,
        node: None,
        user: Some((1000, 1000)),
        terminal: None,
        timeout_ms: Some(1),
        core_bytes: 1,
        sysctl: vec![("kernel.core_pattern".to_owned(), "x".to_owned())],
        input: true,
        witness: None,
    }
}

#[test]
fn of_a_command_nothing_is_rehearsed_but_its_place() {
    let job = |cell: &str, work| CellJob { cell: CellId(cell.into()), work, requires: Vec::new() };
    let one = rehearsal(std::iter::once(job("exec", Work::Program(Box::new(program("rm"))))));
    let [CellJob { work: Work::Program(program), .. }] = &one[..] else { panic!("{one:?}") };
    let told = format!("{program:?}");
    assert_eq!(program.argv, [Raw::from(b"/bin/true".as_slice())]);
    assert!(program.env.is_empty() && program.sysctl.is_empty() && program.user.is_none() && !program.input, "{told}");
    let many = rehearsal((0..9).map(|number| job(&format!("A0{number}"), Work::Case)));
    assert_eq!(many.len(), MOST_CELLS);
    assert_eq!(many[0].cell.as_str(), "A00");
}

/// What becomes of a guest that runs two cells before it is held.
fn rehearsed(script: impl Fn(&mut Script<'_>) + Send + Sync + 'static) -> Result<(), HoldError> {
    let dir = tempfile::tempdir().unwrap();
    let launcher = FakeLauncher::new(move |agent| script(&mut Script { agent }));
    let spec = GuestSpec { name: "6.12-1".to_owned(), ..specification(dir.path().to_owned()) };
    let mut guest = launcher.held(&spec).unwrap();
    let jobs = [A, B].map(|cell| CellJob::case(CellId(cell.into()))).to_vec();
    let version = facts("6.12", "6.12.43").version;
    let order = HoldOrder { key: "fake".to_owned(), spec, version, time_scale: 1.0, jobs, files: None };
    rehearse(&mut *guest, &order, dir.path(), &Interrupt::default())
}

#[test]
fn a_guest_is_held_only_if_what_it_ran_first_left_no_trace() {
    let ready = rehearsed(|script| {
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    assert!(ready.is_ok(), "{ready:?}");
    let failed = rehearsed(|script| {
        let cells = script.boot();
        let outcome = Outcome::Failed { kind: FailureKind::Check, message: "no".to_owned() };
        script.start(&cells[0]);
        script.finish(CellReport { outcome, ..good(&cells[0]) });
        script.hang();
    });
    assert!(failed.unwrap_err().to_string().starts_with("what it ran first failed: "));
    let splat = rehearsed(|script| {
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.agent.console("[    2.0] BUG: kernel NULL pointer dereference, address: 0000000000000000\n");
        script.end(cells.len());
    });
    assert!(splat.unwrap_err().to_string().starts_with("what it ran first caused a splat"));
    let dead = rehearsed(|_| ());
    assert!(matches!(dead, Err(HoldError::Guest(_))), "{dead:?}");
}
