//! Verdicts that are taken over from an earlier run.

use super::*;
use crate::run::reuse::EarlierRun;
use lab_record::testing::id;
use std::collections::BTreeSet;

const KERNEL: (&str, &str) = ("6.12", "6.12.43");

fn failed(cell: &CellId) -> CellReport {
    let outcome = Outcome::Failed { kind: FailureKind::Check, message: "lost".to_owned() };
    CellReport { outcome, ..good(cell) }
}

/// Sixty cells, so that some are run again as a check whatever the run's id is, or nearly so.
fn cells() -> Vec<CellInfo> {
    (0..60).map(|number| cell(&format!("C{number:02}-third[tc,veth]"))).collect()
}

/// A run with this id, in which these cells fail.
fn night(
    name: &str,
    cells: Vec<CellInfo>,
    earlier: Option<&EarlierRun>,
    fails: impl Fn(&CellId) -> bool + Send + Sync + 'static,
) -> Outcomes {
    let launcher = FakeLauncher::new(move |agent| {
        let mut script = Script { agent };
        let cells = script.boot();
        for cell in &cells {
            script.start(cell);
            script.finish(if fails(cell) { failed(cell) } else { good(cell) });
        }
        script.end(cells.len());
    });
    let dir = tempfile::tempdir().unwrap();
    let mut heard = Heard::default();
    let run = fake(&[KERNEL], &launcher, Choice { cells, ..Choice::default() });
    let record = FakeRun { id: id(name), earlier, ..run }.go(dir.path(), &mut [&mut heard]).unwrap();
    Outcomes { record, events: heard.0, boots: launcher.boots(), dir }
}

fn started(outcomes: &Outcomes) -> BTreeSet<&str> {
    let started = outcomes.events.iter().filter_map(|event| match event {
        Event::CellStarted { cell, .. } => Some(cell.as_str()),
        _ => None,
    });
    started.collect()
}

fn earlier(outcomes: &Outcomes) -> EarlierRun {
    EarlierRun::of(&outcomes.record).unwrap()
}

#[test]
fn an_unchanged_night_runs_a_few_cells_as_a_check_and_takes_over_the_rest() {
    let first = night("first", cells(), None, |_| false);
    assert_eq!(started(&first).len(), 60);
    let second = night("second", cells(), Some(&earlier(&first)), |_| false);
    assert!((1..10).contains(&started(&second).len()), "{:?}", started(&second));
    assert_eq!((second.exit(), second.boots, second.record.counts().passed), (0, 1, 60 + 3));
    for verdict in second.record.given(&second.record.kernels["6.12"]) {
        let own = started(&second).contains(verdict.report.cell.as_str());
        assert_eq!(verdict.reused.as_deref(), if own { None } else { Some("first") }, "{:?}", verdict.report.cell);
    }
    assert!(second.notes().iter().any(|note| note.contains("taken over from run first")), "{:?}", second.notes());

    // The next night names the run that gave the verdict.
    let third = night("third", cells(), Some(&earlier(&second)), |_| false);
    let from: BTreeSet<String> = third
        .record
        .given(&third.record.kernels["6.12"])
        .filter_map(|verdict| verdict.reused.as_deref().map(str::to_owned))
        .collect();
    assert!(from.contains("first") && !from.contains("third"), "{from:?}");
}

#[test]
fn a_failed_cell_and_a_new_one_run_again() {
    let first = night("first", cells(), None, |cell| cell.as_str().starts_with("C07"));
    let mut more = cells();
    more.push(cell("D01-new[tc,veth]"));
    let second = night("second", more, Some(&earlier(&first)), |_| false);
    let started = started(&second);
    assert!(started.contains("C07-third[tc,veth]") && started.contains("D01-new[tc,veth]"), "{started:?}");
    assert!(started.len() < 12 && second.exit() == 0, "{started:?}");
}

#[test]
fn a_cell_that_ends_otherwise_with_nothing_changed_is_an_error_of_its_own() {
    let first = night("first", cells(), None, |_| false);
    let second = night("second", cells(), Some(&earlier(&first)), |_| true);
    assert_eq!(second.exit(), 1);
    let bad = second.record.given(&second.record.kernels["6.12"]).find(|verdict| verdict.standing().is_bad()).unwrap();
    let Outcome::Failed { kind: FailureKind::Reuse, message } = &bad.outcome else { panic!("{:?}", bad.outcome) };
    assert!(message.starts_with("passed in run first and failed (check: lost) now"), "{message}");
}

#[test]
fn another_kernel_or_another_cell_of_the_same_name_runs() {
    let mut first = night("first", cells(), None, |_| false);
    let image = first.record.kernels.values_mut().next().unwrap().image.as_mut().unwrap();
    let content = image.content.replace("another kernel's".to_owned());
    let other = night("second", cells(), Some(&earlier(&first)), |_| false);
    assert_eq!(started(&other).len(), 60);
    assert!(other.notes().iter().any(|note| note.contains("no verdict is taken over from run first")));

    let image = first.record.kernels.values_mut().next().unwrap().image.as_mut().unwrap();
    image.content = content;
    let mut changed = cells();
    changed[3].title = "It asks more now.".to_owned();
    let second = night("second", changed, Some(&earlier(&first)), |_| false);
    assert!(started(&second).contains("C03-third[tc,veth]"));
}

#[test]
fn a_run_with_a_deliberate_fault_is_refused() {
    let mut first = night("first", cells(), None, |_| false);
    first.record.info.as_mut().unwrap().mutant = Some("weak".to_owned());
    let error = EarlierRun::of(&first.record).unwrap_err().to_string();
    assert_eq!(error, "the verdicts of run first can't be taken over: it had a deliberate fault");
}
