//! Workloads: the command lines of `lab exec` that a project keeps in `workloads.toml`, under names.

mod file;
mod keys;

use file::{NamedWorkload, Workloads};

use super::{
    args::{HowArgs, OutputArgs, SelectArgs},
    exec::{self, Ahead, ExecArgs, ExecOrder, ExecPlan, RunTold, ShardOrder},
};
use crate::{
    error::Error,
    project::{
        Project,
        filter::{CellFilter, KernelFilter},
        select::{Selected, select_cells},
    },
    shard::part,
};
use lab_base::say::say;
use lab_kernel_store::Kernel;
use lab_record::{exit::Exit, plan::Plan, shard::Part};
use serde::Serialize;
use std::{fmt::Write as _, path::Path};

/// A workload in a list.
#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    about: Option<&'a str>,
    kernels: &'a [String],
    /// What it is, as `lab exec` has it.
    words: Vec<String>,
}

impl<'a> Row<'a> {
    fn of(NamedWorkload { name, about, kernels, words }: &'a NamedWorkload) -> Self {
        let words = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        Self { name, about: about.as_deref(), kernels, words }
    }
}

/// Prints the workloads of a project.
pub(super) fn show(project: &Project, output: &OutputArgs) -> Result<Exit, Error> {
    let Workloads(all) = Workloads::load(&project.root)?;
    let rows: Vec<Row<'_>> = all.iter().map(Row::of).collect();
    output.show("workloads", &rows, || {
        let mut text = String::new();
        for Row { name, about, words, .. } in &rows {
            let _ = writeln!(text, "{name}{}", about.map_or_else(String::new, |about| format!("  {about}")));
            let words: Vec<String> = words.iter().map(|word| lab_base::text::shell_quote(word)).collect();
            let _ = writeln!(text, "    lab exec {}", words.join(" "));
        }
        text
    })?;
    Ok(if rows.is_empty() { Exit::Nothing } else { Exit::Passed })
}

/// The workload with this name, as arguments of `lab exec`.
fn named(project: &Project, name: &str) -> Result<(NamedWorkload, ExecArgs), Error> {
    let workload = Workloads::load(&project.root)?.named(name)?;
    let args = ExecArgs::parsed(&workload.words).map_err(|error| Error::Usage(format!("workload {name}: {error}")))?;
    Ok((workload, args))
}

/// The kernels that the command line names, or else the workload, or else the default ones.
fn kernels_of(workload: &NamedWorkload, asked: KernelFilter) -> KernelFilter {
    if names_some(&asked) { asked } else { KernelFilter { kernel: workload.kernels.clone(), ..asked } }
}

fn names_some(asked: &KernelFilter) -> bool {
    !asked.kernel.is_empty() || !asked.class.is_empty() || asked.all
}

/// What a command line says of a workload that is to run.
#[derive(Clone, Copy)]
pub(super) struct WantedWorkload<'a> {
    pub name: &'a str,
    pub select: &'a SelectArgs,
    pub how: &'a HowArgs,
    /// The shard of it that runs.
    pub part: Option<Part>,
    /// File with the durations by which it is split.
    pub durations: Option<&'a Path>,
}

/// Runs a workload, or a shard of it.
pub(super) fn run(project: &Project, wanted: WantedWorkload<'_>) -> Result<Exit, Error> {
    let WantedWorkload { name, select, how, part, durations } = wanted;
    let (workload, args) = followed(project, name, select, how)?;
    let told = RunTold { talk: how.talk(), format: Some(&how.format), fail_fast: how.fail_fast };
    let order = ExecOrder {
        args: &args,
        kernels: kernels_of(&workload, select.kernels.filter()),
        words: workload.words,
        cells: select.filter(),
        suite: Some(told),
        shard: part.map(|part| ShardOrder { part, durations }),
    };
    exec::go(project, order, |plan| plan)
}

/// What [`run`] would run.
pub(super) fn dry(project: &Project, wanted: WantedWorkload<'_>) -> Result<Plan, Error> {
    let WantedWorkload { name, select, how, part, durations } = wanted;
    let (workload, args) = followed(project, name, select, how)?;
    let kernels = project.kernels_for_programs(&kernels_of(&workload, select.kernels.filter()))?;
    let Some(part) = part else { return plan(project, &kernels, &args, &select.filter()) };
    let selected = exec::built(project, args.no_build)?;
    let planned = ExecPlan::new(project, &kernels, &args, &selected, Ahead::Look)?;
    let cells = select_cells(&planned.cells(false, None), &select.filter())?;
    let selected = Selected { cells, every_cell: false, ..selected };
    let adapt = |plan| planned.skips.apply(plan);
    Ok(part::whole(project, &kernels, &selected, false, durations, adapt)?.part(part)?.0)
}

fn followed(
    project: &Project,
    name: &str,
    select: &SelectArgs,
    how: &HowArgs,
) -> Result<(NamedWorkload, ExecArgs), Error> {
    let (workload, mut args) = named(project, name)?;
    args.no_build |= select.no_build;
    args.follow(how);
    if names_some(&select.kernels.filter()) {
        args.narrow();
    }
    Ok((workload, args))
}

/// The plan of a workload as far as it is known without a download.
pub(super) fn listed(project: &Project, name: &str, asked: KernelFilter, cells: &CellFilter) -> Result<Plan, Error> {
    let (workload, mut args) = named(project, name)?;
    args.no_build |= cells.no_build;
    if names_some(&asked) {
        args.narrow();
    }
    let kernels = project.kernels_for_programs(&kernels_of(&workload, asked))?;
    plan(project, &kernels, &args, cells)
}

/// The same of arguments of `lab exec`.
pub(super) fn plan(
    project: &Project,
    kernels: &[&Kernel],
    args: &ExecArgs,
    filter: &CellFilter,
) -> Result<Plan, Error> {
    let mut facts = Vec::new();
    for kernel in kernels {
        match project.facts(kernel) {
            Ok(known) => facts.push(known),
            Err(error) => say(&format!("left out: {error}")),
        }
    }
    let selected = exec::built(project, args.no_build)?;
    let planned = ExecPlan::new(project, kernels, args, &selected, Ahead::Look)?;
    let cells = select_cells(&planned.cells(false, None), filter)?;
    Ok(planned.skips.apply(Plan::new(facts, cells, false)))
}
