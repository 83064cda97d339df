//! Failures of the host, and interrupts.

use super::*;
use lab_base::file::FileError;

#[test]
fn ctrl_c_ends_the_guests_and_leaves_a_report() {
    let interrupt = Interrupt::default();
    let flag = interrupt.clone();
    let outcomes = run_on(&[("6.12", "6.12.43")], timing(), interrupt, move |mut script| {
        let cells = script.boot();
        script.pass(&cells[0]);
        script.start(&cells[1]);
        flag.raise(signal_hook::consts::SIGINT);
        script.hang();
    });
    let lines = outcomes.lines();
    assert_eq!(lines[2], "C03 not-run: the run was interrupted");
    assert!(lines[0] == "A01 passed" || lines[0].contains("interrupted"), "{lines:?}");
    assert_eq!((outcomes.exit(), outcomes.boots), (130, 1));
}

#[test]
fn a_kernel_without_an_image_runs_no_cells_and_reports_the_cause() {
    let launcher = FakeLauncher::new(|_| {});
    let dir = tempfile::tempdir().unwrap();
    let run = fake(&[("6.12", "6.12.43")], &launcher, Choice::default());
    let run = FakeRun { imageless: Some("image: no space"), ..run };
    let record = run.go(dir.path(), &mut []).unwrap();
    let (_, _, verdict) = record.verdicts().find(|(_, cell, _)| cell.id.as_str() == A).unwrap();
    assert_eq!(verdict.outcome, Outcome::NotRun { message: "image: no space".to_owned() });
    assert_eq!(record.exit(), Exit::Infra);
}

#[test]
fn a_reporter_that_can_not_write_ends_the_run() {
    struct Full;
    impl Reporter for Full {
        fn event(&mut self, stamped: &Stamped, _: &RunRecord) -> Result<(), FileError> {
            match stamped.event {
                Event::Booted { .. } => {
                    Err(FileError::of("write", Path::new("events.jsonl"))(std::io::ErrorKind::StorageFull.into()))
                }
                _ => Ok(()),
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let launcher = FakeLauncher::new(|agent| {
        let mut script = Script { agent };
        script.boot();
        script.hang();
    });
    let run = fake(&[("6.12", "6.12.43")], &launcher, Choice::default());
    let error = run.go(dir.path(), &mut [&mut Full]).unwrap_err();
    assert_eq!(error.exit(), Exit::Infra);
    assert!(error.to_string().starts_with("can't write events.jsonl: "));
}
