//! The same cells in guests of every size.

use super::*;

fn isolated(isolate: Isolate, script: impl Fn(Script<'_>) + Send + Sync + 'static) -> (Outcomes, Vec<usize>) {
    let launcher = FakeLauncher::new(move |agent| script(Script { agent }));
    let kernels = &[("6.12", "6.12.43")];
    let outcomes = run_with(kernels, timing(), Interrupt::default(), &launcher, None, isolate);
    let mut per_guest = std::collections::BTreeMap::<u32, usize>::new();
    for event in &outcomes.events {
        if let Event::CellStarted { guest, .. } = event {
            *per_guest.entry(*guest).or_default() += 1;
        }
    }
    (outcomes, per_guest.into_values().collect())
}

#[test]
fn a_case_of_its_own_guest_ends_as_one_that_shares() {
    for (isolate, guests) in [(Isolate::Kernel, vec![3]), (Isolate::Group, vec![3]), (Isolate::Case, vec![1, 1, 1])] {
        let (outcomes, cells) = isolated(isolate, |mut script| {
            let cells = script.boot();
            cells.iter().for_each(|cell| script.pass(cell));
            script.done(cells.len());
            script.hang();
        });
        assert_eq!(outcomes.lines(), ["A01 passed", "B02 passed", "C03 passed"], "{isolate:?}");
        assert_eq!(cells, guests, "{isolate:?}");
    }
}

#[test]
fn a_case_that_lives_on_another_ones_remains_is_found() {
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
        script.done(cells.len());
        script.hang();
    });
    assert_eq!(
        outcomes.lines(),
        [
            "A01 passed",
            "B02 failed: isolation: passed in a guest that it shared, failed (check: no map) in a pristine one",
            "C03 passed"
        ]
    );
    assert_eq!((outcomes.exit(), cells), (1, vec![3, 1, 1, 1]));
}
