//! What a person reads at the end of a run with a failure: what was expected and seen, and what to do next.

use crate::{
    Test,
    fake::{Scenario, locked},
    lab,
};
use lab::testing::agent::{A, B, Script, good};
use lab_protocol::{Check, FailureKind, Outcome};

/// The name of the scenario: the first cell fails.
pub const FAILING: &str = "first-fails";
/// A check of a service whose answers came from the backend's own address.
const CHECK: &str = "UDP over IPv4 from w0 to the service: answered by the service";
const SEEN: &str = "0 of 3 answered from 10.96.0.1:30012, 3 delivered; 3 from 10.244.0.2:30013 instead";

pub const TESTS: [Test; 1] = [("a failure says what was expected, what was seen and what to do next", failure)];

pub fn scenario() -> Scenario {
    Scenario::of(|mut script: Script<'_>| {
        let cells = script.boot();
        for cell in &cells {
            script.start(cell);
            let mut report = good(cell);
            if cell.as_str() == A {
                let message = format!("{CHECK}: {SEEN}");
                report.outcome = Outcome::Failed { kind: FailureKind::Check, message };
                report.checks.push(Check { name: CHECK.to_owned(), ok: false, seen: SEEN.to_owned() });
            }
            script.finish(report);
        }
        script.end(cells.len());
    })
}

fn failure() {
    let scratch = tempfile::Builder::new().prefix("verdict-").tempdir().unwrap();
    let words = ["run", "--no-build", "--cold", "--jobs", "1"];
    let output = lab(FAILING, scratch.path(), &words, &locked()).output().unwrap();
    let (progress, summary) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{progress}{summary}");
    let told = summary.split("FAILED ").nth(1).unwrap_or_default();
    let lines: Vec<&str> = told.lines().take_while(|line| !line.is_empty()).collect();
    assert!(lines.first().is_some_and(|line| line.ends_with(A)), "{summary}");
    // From where, and from where it was expected, without a look into the packets.
    assert!(lines.iter().any(|line| line.contains(CHECK) && line.contains(SEEN)), "{summary}");
    // The same cell again, and a shell beside it.
    for command in [" run --kernel 6.12 ", " shell 6.12 "] {
        let with_cell = |line: &&str| line.contains(command) && line.contains(&format!("--case '{A}'"));
        assert_eq!(lines.iter().copied().filter(|line| with_cell(line)).count(), 1, "{command}: {summary}");
    }
    assert!(!told.contains(B), "the other cells passed: {summary}");
    // The reason for the accelerator is one short line.
    assert_eq!(
        summary.lines().filter(|line| line.starts_with("tcg")).collect::<Vec<_>>(),
        ["tcg: NETKIT_LAB_ACCEL=tcg"]
    );
}
