//! `lab run`.

use super::{
    HowArgs, RunArgs,
    guests::{Guests, How, in_ci, progress},
    part,
    project::Project,
    select::{Selected, select},
    watch,
};
use crate::{
    error::Error,
    run::{kernel::Retries, queue::Isolate},
};
use lab_base::say::say;
use lab_kernel_store::Kernel;
use lab_record::{exit::Exit, log::EventLog, plan::Plan, reporter::Reporter, run::RunRecord, shard::Shard};
use lab_report::{html::HtmlReporter, junit::JunitReporter, results::directory, run_json::RunJson, terminal};
use std::{
    env,
    io::{IsTerminal, Write},
    path::PathBuf,
};

pub(super) fn run(named: Option<PathBuf>, args: &RunArgs) -> Result<Exit, Error> {
    let part = part::requested(args)?;
    let project = Project::open(named)?;
    let kernels = project.kernels(&args.select.kernels)?;
    watch::rounds(&project.root, args.watch, || {
        let selected = select(&project, &args.select)?;
        match part {
            Some(part) => {
                let whole = part::whole(&project, &kernels, &selected, &args.select, args.durations.as_deref())?;
                let (plan, shard) = whole.part(part)?;
                let own = |kernel: &&&Kernel| plan.kernels.iter().any(|planned| planned.facts.id == kernel.id);
                let kernels: Vec<&Kernel> = kernels.iter().filter(own).copied().collect();
                args.how.mutant.as_deref().map(|name| selected.mutant(name)).transpose()?;
                let guests = Guests::open(&project, &kernels, &selected)?;
                conduct(&project, &guests, plan, Some(shard), selected.canary, &args.how)
            }
            None => {
                let full_matrix = args.select.is_full_matrix();
                execute(&project, &kernels, selected, &args.how, full_matrix, |plan| plan)
            }
        }
    })
}

/// Runs the selected cells, or what `narrow` leaves of their plan, and reports them.
pub(super) fn execute(
    project: &Project,
    kernels: &[&Kernel],
    selected: Selected,
    args: &HowArgs,
    full_matrix: bool,
    narrow: impl FnOnce(Plan) -> Plan,
) -> Result<RunRecord, Error> {
    args.mutant.as_deref().map(|name| selected.mutant(name)).transpose()?;
    let guests = Guests::open(project, kernels, &selected)?;
    let canary = selected.canary;
    let others = project.config.kernels.iter().filter(|kernel| !kernels.contains(kernel));
    let others = others.filter_map(|kernel| project.facts(kernel).ok()).collect();
    let plan = narrow(Plan { others, ..Plan::new(guests.facts(), selected.cells, full_matrix) });
    conduct(project, &guests, plan, None, canary, args)
}

/// Runs a plan and reports it.
fn conduct(
    project: &Project,
    guests: &Guests,
    plan: Plan,
    shard: Option<Shard>,
    canary: bool,
    args: &HowArgs,
) -> Result<RunRecord, Error> {
    if args.retries > 0 && args.isolate == Isolate::Both {
        let why =
            "--retries can't be used with --isolate=both, which compares two attempts at every cell: drop one of them";
        return Err(Error::Usage(why.to_owned()));
    }
    let results = args.out.clone().unwrap_or_else(|| project.root.join("results"));
    let id = directory::fresh_id();
    let directory = directory::create(&results, &id)?;
    let mut progress = progress();
    let mut events = EventLog::create(&directory)?;
    let mut junit = JunitReporter { directory: directory.clone() };
    let mut run_json = RunJson { directory: directory.clone() };
    let mut html = HtmlReporter { directory: directory.clone() };
    let mut reporters: [&mut dyn Reporter; 5] = [&mut events, &mut junit, &mut run_json, &mut html, &mut *progress];
    let how = How {
        jobs: args.jobs,
        mutant: args.mutant.clone(),
        cold: args.cold,
        isolate: args.isolate,
        canary,
        lists: project.lists.clone(),
        retries: Retries { count: args.retries, on_flaky: args.flaky },
        shard,
        deadlines: args.deadline.clone(),
    };
    let record = guests.run(id.clone(), plan, &directory, &how, &mut reporters)?;
    directory::point_latest(&results, &id)?;
    guests.remember(&record);
    // Nobody but the person who named it removes anything from another directory.
    if args.out.is_none()
        && let Some(line) = lab_report::results::sweep(&project.root, &results)
    {
        say(&line);
    }

    let stdout = std::io::stdout();
    let colour = terminal::colours(stdout.is_terminal(), env::var_os("NO_COLOR").as_deref(), in_ci());
    let told = match args.format.format {
        Some(chosen) => chosen.render(&record, &args.format.origin),
        None => format!("\n{}", terminal::summary(&record, &results.join(directory::LATEST), colour)),
    };
    // A closed pipe must not hide the exit code.
    let _ = stdout.lock().write_all(told.as_bytes());
    Ok(record)
}
