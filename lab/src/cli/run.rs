//! `lab run`.

use super::{
    args::{HowArgs, SelectArgs, UnlistedArgs},
    list, report, workload,
};
use crate::{
    error::Error,
    guests::{Conducted, Guests, rounds, with_downloads},
    project::{Project, select::select},
    run::{queue::Isolate, reuse::EarlierRun},
    shard::part,
};
use clap::Args;
use lab_base::{
    say::{self, note},
    text::count,
};
use lab_kernel_store::Kernel;
use lab_record::{
    exit::Exit,
    plan::{Expectation, Plan},
    run::RunRecord,
    shard::Part,
};
use lab_report::{results::directory, terminal};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) select: SelectArgs,
    /// Run this workload of workloads.toml instead of the suite. CASE and --case select its tests; the options of guests replace
    /// what it says.
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["attach", "canary", "mutant", "witness", "watch", "image", "tree"]
    )]
    workload: Option<String>,
    #[command(flatten)]
    unlisted: UnlistedArgs,
    /// Run one shard of the plan: 2/4, or auto or auto/4 to use the variables of the CI system. Without this option the
    /// variables are used if they name one of several shards.
    #[arg(long, value_name = "M/N")]
    partition: Option<crate::shard::Request>,
    /// File with recorded durations by which shards are split. Default: ci/durations.json of the project.
    #[arg(long, value_name = "FILE")]
    durations: Option<PathBuf>,
    #[command(flatten)]
    pub(super) how: HowArgs,
    /// Run again whenever a source of the agent, the suite or the eBPF programs changes.
    #[arg(long, conflicts_with = "no_build")]
    watch: bool,
    /// Take over passes and skips of this run, where kernel, image, agent, objects, lists, lab and case are the same; one cell in
    /// fifty runs nevertheless, and fails where it ends in another way. Without RUN, of the latest run; `none` turns it off.
    #[arg(
        long,
        value_name = "RUN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = directory::LATEST,
        conflicts_with_all = ["workload", "canary", "mutant", "watch"]
    )]
    reuse: Option<PathBuf>,
    /// Print what would run on which kernel, what would be skipped and why, and which kernels would be downloaded.
    /// Nothing is downloaded or booted.
    #[arg(long, conflicts_with_all = ["watch", "format"])]
    pub(super) dry_run: bool,
}

pub(super) fn run(named: Option<PathBuf>, args: &RunArgs) -> Result<Exit, Error> {
    args.how.hush();
    let part = part::requested(args.partition)?;
    if let Some(name) = &args.workload {
        let project = Project::open(named)?;
        let RunArgs { select, how, durations, .. } = args;
        let wanted = workload::WantedWorkload { name, select, how, part, durations: durations.as_deref() };
        if args.dry_run {
            return show_dry(&project, &workload::dry(&project, wanted)?);
        }
        return workload::run(&project, wanted);
    }
    let project = args.unlisted.project(named.clone())?;
    let earlier = earlier(named, args)?;
    let order = || {
        let mut order = args.how.order(args.select.selection(&args.unlisted, &args.how));
        order.how.earlier = earlier.clone();
        order
    };
    let kernels = project.kernels(&args.unlisted.filter(&args.select.kernels))?;
    if args.dry_run {
        return dry_run(&project, &kernels, args, part);
    }
    rounds::rounds(&project, args.watch, || {
        let filter = args.select.filter();
        let selected = match part {
            // Its kernels are known when its plan is.
            Some(_) => select(&project, &filter)?,
            None => with_downloads(&project, &kernels, || select(&project, &filter))?,
        };
        match part {
            Some(part) => {
                let whole = part::whole(
                    &project,
                    &kernels,
                    &selected,
                    args.unlisted.filter(&args.select.kernels).is_full_matrix(),
                    args.durations.as_deref(),
                    |plan| plan,
                )?;
                let (plan, shard) = whole.part(part)?;
                let own = |kernel: &&&Kernel| plan.kernels.iter().any(|planned| planned.facts.id == kernel.id);
                let kernels: Vec<&Kernel> = kernels.iter().filter(own).copied().collect();
                args.how.mutant.as_deref().map(|name| selected.mutant(name)).transpose()?;
                let guests = Guests::open(&project, &kernels, &selected)?;
                Ok(tell(guests.conduct(&project, plan, Some(shard), selected.canary, order())?, &args.how))
            }
            None => {
                let full_matrix = args.unlisted.filter(&args.select.kernels).is_full_matrix();
                let done = Guests::execute(&project, &kernels, selected, order(), full_matrix, |plan| plan)?;
                Ok(tell(done, &args.how))
            }
        }
    })
}

/// The run whose verdicts are taken over.
fn earlier(named: Option<PathBuf>, args: &RunArgs) -> Result<Option<Arc<EarlierRun>>, Error> {
    let Some(run) = args.reuse.as_deref().filter(|run| *run != Path::new("none")) else { return Ok(None) };
    if args.how.isolate == Some(Isolate::Both) {
        let why = "--reuse can't be used with --isolate=both, which runs every cell twice: remove one of them";
        return Err(Error::Usage(why.to_owned()));
    }
    let latest = run == Path::new(directory::LATEST);
    let place = match &args.how.out {
        Some(out) if latest => out.join(run),
        _ => report::directory(named, run)?,
    };
    if latest && !place.exists() {
        note("no verdict is taken over: there is no earlier run");
        return Ok(None);
    }
    Ok(Some(Arc::new(EarlierRun::read(&place)?)))
}

/// Prints a finished run in the selected format.
pub(super) fn tell(done: Conducted, how: &HowArgs) -> RunRecord {
    // An output error must not change the exit code.
    let _ = match how.format.format {
        Some(chosen) => chosen.show(&done.record, &how.format.origin),
        None if how.quiet > 1 => Ok(()),
        None => say::show(format_args!("\n{}", terminal::summary(&done.record, &done.name, say::colours()))),
    };
    done.record
}

/// Prints the plan. Only a shard needs a build: it is a part of a plan that has the hash of what guests run.
fn dry_run(project: &Project, kernels: &[&Kernel], args: &RunArgs, part: Option<Part>) -> Result<Exit, Error> {
    let filter = args.select.filter();
    let plan = match part {
        Some(part) => {
            let (selected, full) =
                (select(project, &filter)?, args.unlisted.filter(&args.select.kernels).is_full_matrix());
            part::whole(project, kernels, &selected, full, args.durations.as_deref(), |plan| plan)?.part(part)?.0
        }
        None => list::planned(project, kernels, &filter)?,
    };
    show_dry(project, &plan)
}

/// Prints a plan.
pub(super) fn show_dry(project: &Project, plan: &Plan) -> Result<Exit, Error> {
    let (store, known) = (project.store(), &project.config.kernels);
    let cached = |id: &str| known.iter().any(|kernel| *kernel.id == *id && store.is_cached(kernel, &project.lock));
    let downloads: BTreeSet<&str> =
        plan.kernels.iter().map(|kernel| &*kernel.facts.id).filter(|id| !cached(id)).collect();
    say::show(dry_text(plan, &downloads))?;
    Ok(Exit::Passed)
}

/// A plan as text: each kernel with its cells, and those that are skipped by reason.
fn dry_text(plan: &Plan, downloads: &BTreeSet<&str>) -> String {
    let mut out = String::new();
    let mut all = 0;
    for kernel in &plan.kernels {
        let mut runs = Vec::new();
        let mut skips: BTreeMap<String, usize> = BTreeMap::new();
        for cell in &kernel.cells {
            match &cell.expectation {
                Expectation::Run => runs.push((&cell.id, cell.required)),
                Expectation::Skip { capability, why } => {
                    *skips.entry(format!("{capability}: {why}")).or_default() += 1;
                }
                Expectation::HostSkip { why } => *skips.entry(why.clone()).or_default() += 1,
            }
        }
        all += runs.len();
        let facts = &kernel.facts;
        let download = if downloads.contains(&*facts.id) { "; it would be downloaded" } else { "" };
        let _ =
            writeln!(out, "{} ({}, {}): {}{download}", facts.id, facts.version, facts.class, count(runs.len(), "cell"));
        for (cell, required) in runs {
            let required = required.map_or_else(String::new, |it| format!("  {}", it.name()));
            let _ = writeln!(out, "  run   {cell}{required}");
        }
        for (why, number) in skips {
            let _ = writeln!(out, "  skip  {}: {why}", count(number, "cell"));
        }
    }
    let kernels = count(plan.kernels.len(), "kernel");
    let _ = writeln!(out, "{} on {kernels} would run; nothing was booted", count(all, "cell"));
    out
}
