//! Synthetic runs, and the binary that reads them.

use lab_protocol::{FailureKind, Outcome};
use lab_record::{
    event::{Event, Stamped},
    exit::Exit,
    plan::{Plan, PlannedKernel},
    shard::{Part, Shard, Share},
    synthetic,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The binary in the project's directory.
pub fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.current_dir(ROOT).args(arguments);
    command
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A run of a plan in which the cells whose place in the plan is one of these fail with a message, and all others pass or
/// are skipped.
pub fn run(id: &str, plan: Plan, bad: &[usize], message: &str) -> Vec<Stamped> {
    let names: Vec<_> = bad.iter().map(|&at| plan.cells[at].id.clone()).collect();
    let mut events: Vec<Stamped> = synthetic::events(synthetic::run_info(id, plan)).collect();
    for stamped in &mut events {
        match &mut stamped.event {
            Event::CellFinished { verdict, .. } if names.contains(&verdict.report.cell) => {
                verdict.outcome = Outcome::Failed { kind: FailureKind::Check, message: message.to_owned() };
            }
            Event::CellFinished { verdict, .. } if verdict.standing().is_bad() => verdict.outcome = Outcome::Passed,
            Event::RunFinished { exit, .. } => *exit = if bad.is_empty() { Exit::Passed } else { Exit::Failed },
            _ => {}
        }
    }
    events
}

/// A plan in which every cell runs on every kernel.
pub fn plan(kernels: usize, cells: usize) -> Plan {
    synthetic::plan(kernels + 2, cells + 2).keeping(kernels, cells)
}

/// A smaller selection of a plan.
pub trait Keep {
    /// The last kernels and the first cells.
    fn keeping(self, kernels: usize, cells: usize) -> Self;
}

impl Keep for Plan {
    fn keeping(mut self, kernels: usize, cells: usize) -> Self {
        self.cells.truncate(cells);
        let skipped = self.kernels.len() - kernels;
        self.kernels.drain(..skipped);
        let keep =
            |kernel: &mut PlannedKernel| kernel.cells.retain(|cell| self.cells.iter().any(|it| it.id == cell.id));
        self.kernels.iter_mut().for_each(keep);
        self
    }
}

/// Says that the run is the only shard of its plan.
pub fn as_shard(events: &mut [Stamped], part: Part) {
    if let Event::RunStarted { run } = &mut events[0].event {
        let facts = run.plan.kernels.iter().map(|kernel| kernel.facts.clone());
        let kernels = facts.map(|facts| Share { facts, shards: (1..=part.count).collect() }).collect();
        let identity = [("the cells".to_owned(), "same".to_owned())].into();
        run.shard = Some(Shard { part, identity, kernels, full_matrix: false, estimate_ms: None });
    }
}

/// Writes a run below a directory.
pub fn write(below: &Path, id: &str, events: &[Stamped]) -> PathBuf {
    let directory = below.join(id);
    fs::create_dir_all(&directory).unwrap();
    let lines: String = events.iter().map(|stamped| serde_json::to_string(stamped).unwrap() + "\n").collect();
    fs::write(directory.join("events.jsonl"), lines).unwrap();
    directory
}
