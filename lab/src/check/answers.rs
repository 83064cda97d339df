//! What the loaders found out, from the files that their output is kept in.

use crate::run::evidence;
use lab_check::{CheckFacts, LIBBPF, unmet};
use lab_guard::bounded;
use lab_protocol::{ErrorKind, Outcome, witness::Account};
use lab_record::{
    rows,
    run::RunRecord,
    splat::Splat,
    verdict::{Standing, Verdict},
};
use lab_report::attached;
use std::path::Path;

use super::inputs::CheckInput;

/// Bytes of a loader's output that are read.
const MOST: u64 = 64 << 20;

/// What is known of one object on one kernel.
#[derive(Debug, Clone)]
pub struct CheckAnswer {
    /// The object's name.
    pub object: String,
    /// The kernel's.
    pub kernel: String,
    /// The loader's.
    pub loader: String,
    /// The facts.
    pub facts: CheckFacts,
    /// What is not as expected.
    pub unmet: Vec<String>,
    /// The cell's standing.
    pub standing: Standing,
    /// Why there is no whole answer: the kernel panicked, a timeout.
    pub ended: Option<String>,
    /// Splats of the kernel while it ran.
    pub splats: Vec<Splat>,
    /// What the witness saw another loader than libbpf attach, a line each.
    pub attached: Vec<String>,
}

impl CheckAnswer {
    /// Whether the kernel did not survive.
    pub fn is_crash(&self) -> bool {
        self.ended.is_some() && !self.facts.complete
    }
}

/// The answers of a run, by object and kernel in the order of the plan.
pub fn answers(record: &RunRecord, run: &Path, inputs: &[CheckInput]) -> Vec<CheckAnswer> {
    let mut all = Vec::new();
    for input in inputs {
        for (kernel, cell, verdict) in record.verdicts().filter(|(_, cell, _)| !rows::is_row(&cell.id)) {
            let Some(loader) = loader_of(cell.id.as_str(), &input.name) else { continue };
            let path = run.join(&*kernel.facts.id).join(evidence::home(cell.id.as_str())).join("stdout.txt");
            // What is not there was not written: the guest ended before.
            let bytes = bounded::head(&path, MOST).unwrap_or_default();
            let facts = CheckFacts::read(&String::from_utf8_lossy(&bytes));
            let expected = input.config.expected(&input.name, loader, kernel.facts.version);
            let mut unmet = unmet(&facts, &expected);
            let ended = ended(&verdict);
            if let Some(why) = &ended {
                unmet = vec![format!("{why}; it was at: {}", facts.last)];
            }
            all.push(CheckAnswer {
                object: input.name.clone(),
                kernel: kernel.facts.id.to_string(),
                loader: loader.to_owned(),
                facts,
                unmet,
                standing: verdict.standing(),
                ended,
                splats: verdict.splats.clone(),
                attached: verdict.report.witness.as_deref().map(attachments).unwrap_or_default(),
            });
        }
    }
    all
}

/// What was attached and what stayed, without devices, costs and sources.
fn attachments(account: &Account) -> Vec<String> {
    let Account { rows, left, lost, omitted, unexplained, absent, .. } = account.clone();
    attached::lines(&Account { rows, left, lost, omitted, unexplained, absent, ..Account::default() })
}

/// The loader of the cell, if the cell is the object's.
fn loader_of<'a>(cell: &'a str, object: &str) -> Option<&'a str> {
    let rest = cell.strip_prefix(object)?;
    if rest.is_empty() { Some(LIBBPF) } else { rest.strip_prefix('[')?.strip_suffix(']') }
}

/// Why the loader did not come to its end.
fn ended(verdict: &Verdict) -> Option<String> {
    match &verdict.outcome {
        Outcome::Errored { kind: ErrorKind::Panic, message } => Some(format!("crashed the kernel: {message}")),
        Outcome::Errored { .. } | Outcome::NotRun { .. } => Some(verdict.outcome.message()),
        _ => {
            let how = verdict.report.program.as_ref().map(|end| &end.how)?;
            // 0 and 1 are its own verdicts.
            (how.code() > 1).then(|| format!("the loader ended early: {how}"))
        }
    }
}
