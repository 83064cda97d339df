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
    let mut wanted = Wanted::new();
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
        selected.cells.retain(|info| is_wanted(&wanted, &info.id));
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

/// Cells by the id of their kernel.
type Wanted = BTreeMap<String, BTreeSet<CellId>>;

/// Whether a cell is to run on any kernel.
fn is_wanted(wanted: &Wanted, cell: &CellId) -> bool {
    wanted.values().any(|cells| cells.contains(cell))
}

/// The part of a plan that holds these cells.
fn narrowed(mut plan: Plan, wanted: &Wanted) -> Plan {
    for kernel in &mut plan.kernels {
        let cells = wanted.get(&*kernel.facts.id);
        kernel.cells.retain(|cell| cells.is_some_and(|cells| cells.contains(&cell.id)));
    }
    plan.kernels.retain(|kernel| !kernel.cells.is_empty());
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_record::testing::{cell, facts};

    #[test]
    fn what_failed_on_one_kernel_runs_again_on_that_one() {
        let [everywhere, on_one, nowhere] = ["A01-x", "A02-x", "A03-x"].map(cell);
        let plan = Plan::new(
            vec![facts("6.1", "6.1.170"), facts("6.12", "6.12.43"), facts("6.17", "6.17.13")],
            [&everywhere, &on_one, &nowhere].map(Clone::clone).to_vec(),
            false,
        );
        let both = BTreeSet::from([everywhere.id.clone(), on_one.id.clone()]);
        let wanted =
            Wanted::from([("6.1".to_owned(), BTreeSet::from([everywhere.id.clone()])), ("6.12".to_owned(), both)]);
        assert!(is_wanted(&wanted, &everywhere.id) && is_wanted(&wanted, &on_one.id), "on any kernel");
        assert!(!is_wanted(&wanted, &nowhere.id));
        let plan = narrowed(plan, &wanted);
        let told: Vec<_> = plan.kernels.iter().map(|kernel| (kernel.facts.id.as_str(), kernel.cells.len())).collect();
        assert_eq!(told, [("6.1", 1), ("6.12", 2)]);
    }
}
