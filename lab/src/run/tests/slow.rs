//! Kernels that take much longer than recorded.

use super::*;
use crate::pace::Pace;
use lab_record::slow::Slow;

const KERNELS: [(&str, &str); 2] = [("6.12", "6.12.43"), ("6.12-cloud", "6.12.43")];
/// Time of a cell as it is recorded, microseconds.
const USUAL_US: u64 = 100_000;

fn cells() -> Vec<CellInfo> {
    (0..20).map(|number| cell(&format!("C{number:02}-third[tc,veth]"))).collect()
}

/// A run in which a cell of each kernel takes so long, and the guest waits so long of it for its host.
fn taking(pace: Option<&Pace>, slow_fails: bool, times: fn(kernel: &str, number: usize) -> (u64, u64)) -> Outcomes {
    let launcher = FakeLauncher::new(move |agent| {
        let kernel = if agent.spec().name.starts_with("6.12-cloud") { "6.12-cloud" } else { "6.12" };
        let mut script = Script { agent };
        let cells = script.boot();
        for (number, cell) in cells.iter().enumerate() {
            let (took, waited) = times(kernel, number);
            script.start(cell);
            // The host reads how long the guest has waited where it hears of the start, and again where it hears of the end.
            std::thread::sleep(Duration::from_millis(if waited > 0 { 20 } else { 0 }));
            script.agent.wait_for_host(waited);
            script.finish(CellReport { duration_us: took, ..good(cell) });
        }
        script.end(cells.len());
    });
    let dir = tempfile::tempdir().unwrap();
    let mut heard = Heard::default();
    let mut run = FakeRun { pace, ..fake(&KERNELS, &launcher, Choice { cells: cells(), ..Choice::default() }) };
    run.slow_fails = slow_fails;
    let record = run.go(dir.path(), &mut [&mut heard]).unwrap();
    Outcomes { record, events: heard.0, boots: launcher.boots(), dir }
}

fn recorded() -> Pace {
    Pace::of(&taking(None, false, |_, _| (USUAL_US, 0)).record, "a record")
}

fn found(outcomes: &Outcomes) -> Vec<(&str, &Slow)> {
    outcomes.record.slow().map(|(kernel, finding)| (&*kernel.facts.id, finding)).collect()
}

#[test]
fn a_kernel_that_takes_six_times_as_long_is_a_finding_and_no_failure() {
    let pace = recorded();
    let six = |kernel: &str, _| if kernel == "6.12" { (6 * USUAL_US, 0) } else { (USUAL_US, 0) };
    let outcomes = taking(Some(&pace), false, six);
    let found = found(&outcomes);
    assert_eq!(found.len(), 1, "{found:?}");
    let (kernel, finding) = found[0];
    assert_eq!((kernel, &*finding.cells, finding.count), ("6.12", "all cells", 20));
    assert_eq!((finding.took_ms, finding.recorded_ms), (12_000, 2_000));
    assert_eq!(
        finding.line(),
        "all cells: 20 cells took 5.2 times as long as recorded (12.0 s, recorded 2.0 s; the rest of the run: 1.0 times; \
         record of kernel 6.12 under tcg in a record)"
    );
    assert_eq!(outcomes.exit(), 0);
    assert!(
        lab_report::terminal::summary(&outcomes.record, Path::new("r"), false)
            .contains("\nSLOW 6.12 all cells: 20 cells")
    );
    let failed = taking(Some(&pace), true, six);
    assert_eq!(failed.exit(), 1, "--slow fail");
}

#[test]
fn a_busy_host_is_no_finding() {
    let pace = recorded();
    // Both kernels, and nobody can say how long their guests waited: another guest of the host's host.
    assert!(found(&taking(Some(&pace), true, |_, _| (6 * USUAL_US, 0))).is_empty());
    // One kernel, whose guest waited for its host.
    let waits = |kernel: &str, _| if kernel == "6.12" { (6 * USUAL_US, 5 * USUAL_US) } else { (USUAL_US, 0) };
    assert!(found(&taking(Some(&pace), true, waits)).is_empty());
    // A host that stands still for five seconds while one cell runs.
    let still = |kernel: &str, number| if (kernel, number) == ("6.12", 7) { (50 * USUAL_US, 0) } else { (USUAL_US, 0) };
    assert!(found(&taking(Some(&pace), true, still)).is_empty());
}
