//! `lab rerun`.

use super::{RerunArgs, project::Project, report, run, select::build, watch};
use crate::error::Error;
use lab_protocol::CellId;
use lab_record::{exit::Exit, log, plan::Plan, rows};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

pub(super) fn rerun(named: Option<PathBuf>, args: &RerunArgs) -> Result<Exit, Error> {
    let record = log::read(&report::directory(named.clone(), &args.run)?)?;
    let mut wanted: BTreeMap<String, BTreeSet<CellId>> = BTreeMap::new();
    for (kernel, cell, verdict) in record.verdicts() {
        if args.failed && !verdict.standing().is_bad() {
            continue;
        }
        let wanted = wanted.entry(kernel.facts.id.clone()).or_default();
        if rows::is_row(&cell.id) {
            // What went wrong outside of a cell may be any cell's doing.
            wanted.extend(kernel.cells.iter().map(|cell| cell.id.clone()));
        } else {
            wanted.insert(cell.id.clone());
        }
    }
    if wanted.is_empty() {
        eprintln!("nothing to run again: every cell of {} passed or was skipped", args.run.display());
        return Ok(Exit::Nothing);
    }
    let project = Project::open(named)?;
    let patterns = wanted.keys().cloned().collect();
    let kernels = project.kernels(&super::KernelArgs { kernel: patterns, ..super::KernelArgs::default() })?;
    let canary = record.info.as_ref().is_some_and(|info| info.canary);
    let narrow = |mut plan: Plan| {
        for kernel in &mut plan.kernels {
            let cells = wanted.get(&kernel.facts.id);
            kernel.cells.retain(|cell| cells.is_some_and(|cells| cells.contains(&cell.id)));
        }
        plan.kernels.retain(|kernel| !kernel.cells.is_empty());
        plan
    };
    watch::rounds(&project.root, args.watch, || {
        let mut selected = build(&project, args.no_build, canary)?;
        selected.cells.retain(|info| wanted.values().any(|cells| cells.contains(&info.id)));
        if selected.cells.is_empty() {
            // Renamed since, all of them.
            return Err(Error::NothingSelected);
        }
        run::execute(&project, &kernels, selected, &args.how, false, narrow)
    })
}
