//! `lab list`.

use super::{
    args::{OutputArgs, SelectArgs, UnlistedArgs},
    workload,
};
use crate::{
    error::Error,
    project::{Project, filter::CellFilter, select},
};
use clap::Args;
use lab_base::{say::say, text::count};
use lab_kernel_store::Kernel;
use lab_protocol::{CatalogueRow, CellInfo};
use lab_record::{
    exit::Exit,
    plan::{Expectation, Plan},
};
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf};

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// List the tests of this workload of workloads.toml, without a guest and without a download.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["attach", "canary", "image", "tree", "coverage"])]
    workload: Option<String>,
    /// List the workloads of workloads.toml.
    #[arg(long, conflicts_with_all = ["cases", "case", "exclude", "attach", "kernel", "class", "workload", "coverage"])]
    workloads: bool,
    #[command(flatten)]
    unlisted: UnlistedArgs,
    /// Show which numbers of the catalogue have cases, and why the others have none.
    #[arg(long, conflicts_with_all = ["cases", "case", "exclude", "attach", "kernel", "class"])]
    coverage: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    info: &'a CellInfo,
    kernels: BTreeMap<&'a str, OnKernel<'a>>,
}

#[derive(Serialize)]
struct OnKernel<'a> {
    required: Option<&'static str>,
    #[serde(flatten)]
    expectation: Words<'a>,
}

#[derive(Serialize)]
#[serde(tag = "expected", rename_all = "kebab-case")]
enum Words<'a> {
    Run,
    Skip { capability: Option<&'static str>, why: &'a str },
}

pub(super) fn list(named: Option<PathBuf>, args: &ListArgs) -> Result<Exit, Error> {
    let project = args.unlisted.project(named)?;
    if args.workloads {
        return workload::show(&project, &args.output);
    }
    if let Some(name) = &args.workload {
        let plan = workload::listed(&project, name, args.select.kernels.filter(), &args.select.filter())?;
        return show(&plan, &args.output);
    }
    if args.coverage {
        return coverage(&project, args);
    }
    let kernels = project.kernels(&args.unlisted.filter(&args.select.kernels))?;
    let plan = planned(&project, &kernels, &args.select.filter())?;
    show(&plan, &args.output)
}

/// Prints a plan's cells.
pub(super) fn show(plan: &Plan, output: &OutputArgs) -> Result<Exit, Error> {
    let listed: Vec<Listed<'_>> = plan.cells.iter().map(|info| listed(plan, info)).collect();
    output.show("cells", &listed, || text(plan) + "\n")?;
    Ok(Exit::Passed)
}

/// The plan of these kernels and cells as far as it is known without a build or a download.
pub(super) fn planned(project: &Project, kernels: &[&Kernel], filter: &CellFilter) -> Result<Plan, Error> {
    let mut known = Vec::new();
    for kernel in kernels {
        match project.facts(kernel) {
            Ok(facts) => known.push(facts),
            Err(error) => say(&format!("left out: {error}")),
        }
    }
    let listing = select::last_listing(project, filter.no_build)?;
    let all = if filter.canary { listing.canaries } else { listing.cells };
    Ok(Plan::new(known, select::select_cells(&all, filter)?, false))
}

fn coverage(project: &Project, args: &ListArgs) -> Result<Exit, Error> {
    let listing = select::last_listing(project, args.select.no_build)?;
    args.output.show("coverage", &listing.coverage, || coverage_text(&listing.coverage) + "\n")?;
    Ok(Exit::Passed)
}

fn coverage_text(rows: &[CatalogueRow]) -> String {
    let line = |row: &CatalogueRow| match &row.missing {
        None => format!("  {}  {:>4} cells  {}", row.id, row.cells, row.title),
        Some(why) => format!("  {}  {}: {why}", row.id, row.title),
    };
    let (covered, missing): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.missing.is_none());
    let mut lines = vec!["covered".to_owned()];
    lines.extend(covered.iter().map(|row| line(row)));
    if !missing.is_empty() {
        lines.push("missing".to_owned());
        lines.extend(missing.iter().map(|row| line(row)));
    }
    lines.push(format!("{} of {} numbers covered", covered.len(), rows.len()));
    lines.join("\n")
}

fn listed<'a>(plan: &'a Plan, info: &'a CellInfo) -> Listed<'a> {
    let on = plan.kernels.iter().filter_map(|kernel| {
        let cell = kernel.cell(&info.id)?;
        let expectation = match &cell.expectation {
            Expectation::Run => Words::Run,
            Expectation::Skip { capability, why } => Words::Skip { capability: Some(capability.name()), why },
            Expectation::HostSkip { why } => Words::Skip { capability: None, why },
        };
        Some((&*kernel.facts.id, OnKernel { required: cell.required.map(|required| required.name()), expectation }))
    });
    Listed { info, kernels: on.collect() }
}

fn text(plan: &Plan) -> String {
    let mut lines = Vec::new();
    let mut case = "";
    for info in &plan.cells {
        if info.id.case() != case {
            case = info.id.case();
            lines.push(format!("{case}  ({}; {})\n    {}", info.area, info.topology, info.title));
        }
        let requires: Vec<&str> = info.requires.iter().map(|capability| capability.name()).collect();
        let requires = if requires.is_empty() { String::new() } else { format!("  needs {}", requires.join(", ")) };
        let on = plan.kernels.iter().filter_map(|kernel| {
            let cell = kernel.cell(&info.id)?;
            let what = match &cell.expectation {
                Expectation::Run => cell.required.map_or("run", |required| required.name()).to_owned(),
                Expectation::Skip { capability, why } => format!("skip ({capability}: {why})"),
                Expectation::HostSkip { why } => format!("skip ({why})"),
            };
            Some(format!("{} {what}", kernel.facts.id))
        });
        let on: Vec<String> = on.collect();
        lines.push(format!("  {}{requires}\n      {}", info.id, on.join(" · ")));
    }
    lines.push(format!("{}, {}", count(plan.cells.len(), "cell"), count(plan.kernels.len(), "kernel")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_lists_missing_numbers_with_the_reason() {
        let row = |id: &str, cells, missing: Option<&str>| CatalogueRow {
            id: id.into(),
            title: format!("title of {id}"),
            cells,
            missing: missing.map(str::to_owned),
        };
        let text = coverage_text(&[row("A01", 12, None), row("X07", 0, Some("needs KASAN"))]);
        let wanted = "covered\n  A01    12 cells  title of A01\nmissing\n  X07  title of X07: needs KASAN\n1 of 2 numbers covered";
        assert_eq!(text, wanted);
    }
}
