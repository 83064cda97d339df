//! The exit code of `lab exec`, and what it says beside the command's own output.

use lab_base::text;
use lab_protocol::Outcome;
use lab_record::{
    exit::Exit,
    rows,
    run::RunRecord,
    verdict::{Standing, Verdict},
};
use lab_report::attached;

/// Exit code where the lab itself failed and the command has none, as of timeout(1) and env(1).
pub const FAILED: u8 = 125;
/// Characters of a line about a verdict.
const WIDTH: usize = 400;

/// The end of a run with one command in one guest: its exit code, and lines about everything that the command's own output and
/// exit code do not tell.
/// With `shows` the witness's account is among the lines.
pub fn of_one(record: &RunRecord, shows: bool) -> (Exit, Vec<String>) {
    let mut said = Vec::new();
    let found = record.verdicts().find(|(_, cell, _)| !rows::is_row(&cell.id));
    let Some((kernel, _, verdict)) = found else {
        return (Exit::Program(FAILED), vec!["no command ran".to_owned()]);
    };
    let id = &kernel.facts.id;
    let mut say = |line: String| said.push(format!("{id}: {}", text::line(&line, WIDTH)));
    let interrupted = record.finished.and_then(|(exit, _)| matches!(exit, Exit::Interrupted(_)).then_some(exit));
    let code = verdict.report.program.as_ref().map(|end| end.how.code());
    if !is_plain(&verdict) {
        say(format!("{}{}", verdict.outcome.word(), separated(&verdict.outcome.message())));
    }
    verdict.splats.iter().for_each(|splat| say(splat.line()));
    // Demands on what was attached that are not met either.
    verdict.warnings.iter().for_each(|warning| say(warning.clone()));
    if shows && let Some(account) = verdict.report.witness.as_deref() {
        attached::lines(account).into_iter().for_each(&mut say);
    }
    let processes = verdict.report.program.iter().flat_map(|end| &end.processes);
    let left: Vec<&str> = processes.map(String::as_str).collect();
    if !left.is_empty() {
        say(format!("the command left processes running, which were killed: {}", left.join(", ")));
    }
    let is_told = |line: &&String| ["left behind: ", "core dump "].iter().any(|start| line.starts_with(start));
    verdict.report.log.iter().filter(is_told).for_each(|line| say(line.clone()));
    verdict.earlier.iter().zip(1..).for_each(|(attempt, number)| {
        say(format!("attempt {number} {}{}", attempt.outcome.word(), separated(&attempt.outcome.message())));
    });
    for (_, cell, row) in record.verdicts().filter(|(_, cell, row)| rows::is_row(&cell.id) && row.standing().is_bad()) {
        say(format!("{}: {}", cell.id, row.outcome.message()));
    }
    let exit = match (interrupted, code) {
        (Some(exit), _) => exit,
        (None, Some(0)) => match record.exit() {
            Exit::Passed => Exit::Program(0),
            Exit::Failed => Exit::Program(1),
            _ => Exit::Program(FAILED),
        },
        (None, Some(code)) => Exit::Program(code),
        (None, None) => Exit::Program(FAILED),
    };
    (exit, said)
}

/// Whether the command's exit code says it all.
fn is_plain(verdict: &Verdict) -> bool {
    use lab_protocol::FailureKind;
    match &verdict.outcome {
        Outcome::Passed => verdict.standing() == Standing::Passed,
        Outcome::Failed { kind, .. } => *kind == FailureKind::Exit,
        _ => false,
    }
}

fn separated(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
