//! `lab rerun`.

use super::{args::HowArgs, check, exec, kselftest, report, run};
use crate::{
    error::Error,
    guests::{Guests, Selection, rounds},
    project::{Project, filter::KernelFilter, select::build},
};
use clap::Args;
use lab_base::say::say;
use lab_protocol::CellId;
use lab_record::{exit::Exit, log, plan::Plan, rows};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// More cases than this are not named one by one in a command that runs them again.
const NAMED: usize = 20;

#[derive(Debug, Args)]
pub(super) struct RerunArgs {
    /// Only cells that did not pass.
    #[arg(long)]
    failed: bool,
    /// A run's directory, or its name in results/.
    #[arg(value_name = "RUN", default_value = "latest")]
    run: PathBuf,
    /// Run the cells again whenever a source of the agent, the suite or the eBPF programs changes.
    #[arg(long, conflicts_with = "no_build")]
    watch: bool,
    /// Use the existing builds of the agent and the eBPF object.
    #[arg(long)]
    no_build: bool,
    #[command(flatten)]
    how: HowArgs,
}

pub(super) fn rerun(named: Option<PathBuf>, args: &RerunArgs) -> Result<Exit, Error> {
    args.how.hush();
    let record = log::read(&report::directory(named.clone(), &args.run)?)?;
    let mut wanted: BTreeMap<String, BTreeSet<CellId>> = BTreeMap::new();
    for (kernel, cell, verdict) in record.verdicts() {
        if args.failed && !verdict.standing().is_bad() {
            continue;
        }
        let wanted = wanted.entry(kernel.facts.id.to_string()).or_default();
        if rows::is_row(&cell.id) {
            // A failure outside of cells may be caused by any cell.
            wanted.extend(kernel.cells.iter().map(|cell| cell.id.clone()));
        } else {
            wanted.insert(cell.id.clone());
        }
    }
    if wanted.is_empty() {
        say(&format!("nothing to run: every cell of {} passed or was skipped", args.run.display()));
        return Ok(Exit::Nothing);
    }
    let ran = record.info.as_ref().map(|info| info.exec.clone()).unwrap_or_default();
    if !ran.is_empty() {
        let kernels: Vec<String> = wanted.keys().cloned().collect();
        if ran.first().is_some_and(|word| word.as_bytes() == check::WORD.as_bytes()) {
            return check::again(named, &kernels, &ran, |plan| narrowed(plan, &wanted));
        }
        if ran.first().is_some_and(|word| word.as_bytes() == kselftest::WORD.as_bytes()) {
            return kselftest::again(named, &kernels, &ran, |plan| narrowed(plan, &wanted));
        }
        return exec::again(named, &kernels, &ran, |plan| narrowed(plan, &wanted));
    }
    let project = Project::open(named)?;
    let patterns = wanted.keys().cloned().collect();
    let kernels = project.kernels(&KernelFilter { kernel: patterns, ..KernelFilter::default() })?;
    let canary = record.info.as_ref().is_some_and(|info| info.canary);
    let narrow = |plan| narrowed(plan, &wanted);
    rounds::rounds(&project, args.watch, || {
        let mut selected = build(&project, args.no_build, canary)?;
        selected.every_cell = false;
        selected.cells.retain(|info| wanted.values().any(|cells| cells.contains(&info.id)));
        if selected.cells.is_empty() {
            // All of them have been renamed.
            return Err(Error::NothingSelected);
        }
        // The cells of the earlier run, by their cases, unless these are too many for a line.
        let cases: BTreeSet<&str> = wanted.values().flatten().map(CellId::case).collect();
        let cases =
            cases.iter().filter(|_| cases.len() <= NAMED).flat_map(|case| ["--case".to_owned(), (*case).to_owned()]);
        let selection = Selection { cells: cases.chain(args.how.sharing()).collect(), ..Selection::default() };
        let done = Guests::execute(&project, &kernels, selected, args.how.order(selection), false, narrow)?;
        Ok(run::tell(done, &args.how))
    })
}

/// The part of a plan that holds these cells.
fn narrowed(mut plan: Plan, wanted: &BTreeMap<String, BTreeSet<CellId>>) -> Plan {
    for kernel in &mut plan.kernels {
        let cells = wanted.get(&*kernel.facts.id);
        kernel.cells.retain(|cell| cells.is_some_and(|cells| cells.contains(&cell.id)));
    }
    plan.kernels.retain(|kernel| !kernel.cells.is_empty());
    plan
}
