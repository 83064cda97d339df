//! `lab run`.

use super::{
    RunArgs,
    project::Project,
    say,
    select::{facts, select},
};
use crate::{
    error::{Error, Exit},
    event::{Accelerator, RunInfo},
    interrupt::Interrupt,
    kernels::Unpacked,
    machine::Machine,
    plan::{Plan, PlannedKernel},
    report::{
        Reporter, directory,
        events::EventLog,
        html::HtmlReporter,
        junit::JunitReporter,
        progress::{Bars, Lines},
        run_json::RunJson,
        terminal,
    },
    run::{dispatch::Run, timing::Timing},
    vm::VngLauncher,
};
use std::{
    collections::BTreeMap,
    env,
    io::{IsTerminal, Write},
    path::PathBuf,
    thread::available_parallelism,
};

pub(super) fn run(named: Option<PathBuf>, args: &RunArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let kernels = project.kernels(&args.select.kernels)?;
    let selected = select(&project, &args.select)?;
    let machine = Machine::new(project.cache.root(), selected.artifacts, selected.agent_version)?;
    let fetch = |kernel: &&_| project.store().fetch(kernel, &project.lock, &say);
    let unpacked: Vec<Unpacked> = kernels.iter().map(fetch).collect::<Result<_, _>>()?;
    let launcher = VngLauncher::new();
    let first = unpacked.first().ok_or(Error::NothingSelected)?;
    let interrupt = Interrupt::install().map_err(Error::file("watch", "signals"))?;
    let acceleration = machine.acceleration(&launcher, first)?;
    let accelerator = Accelerator::from(&acceleration);

    let known = unpacked.iter().map(|it| facts(&it.id, it.class.name(), it.version, &it.departures)).collect();
    let full_matrix = args.select.kernels.kernel.is_empty() && args.select.kernels.class.is_empty();
    let others = project.config.kernels.iter().filter(|kernel| !kernels.contains(kernel));
    let others = others.filter_map(|kernel| project.facts(kernel)).collect();
    let plan = Plan { others, ..Plan::new(known, selected.cells, full_matrix) };
    let by_id: BTreeMap<&str, &Unpacked> = unpacked.iter().map(|kernel| (&*kernel.id, kernel)).collect();

    let results = args.out.clone().unwrap_or_else(|| project.root.join("results"));
    let id = directory::fresh_id();
    let directory = directory::create(&results, &id)?;
    // QEMU runs with another working directory.
    let directory = super::project::absolute(&directory)?;
    let prepare = |kernel: &PlannedKernel| {
        let id = &*kernel.facts.id;
        let unpacked = by_id.get(id).ok_or_else(|| format!("{id} was not fetched"))?;
        let console = directory::kernel(&directory, id).map_err(|error| error.to_string())?;
        machine.prepare(unpacked, acceleration.accel, console)
    };
    let run = Run {
        info: RunInfo {
            id: id.clone(),
            versions: machine.versions.clone(),
            accelerator: accelerator.clone(),
            mutant: args.mutant.clone(),
            plan,
        },
        jobs: args.jobs.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from),
        timing: Timing::default().scaled(accelerator.time_scale),
        rescale: &|boot| acceleration.time_scale(Some(boot)),
        launcher: &launcher,
        prepare: &prepare,
        interrupt,
    };
    let mut progress = progress();
    let mut events = EventLog::create(&directory)?;
    let mut junit = JunitReporter { directory: directory.clone() };
    let mut run_json = RunJson { directory: directory.clone() };
    let mut html = HtmlReporter { directory: directory.clone() };
    let record = run.go(&mut [&mut events, &mut junit, &mut run_json, &mut html, &mut *progress])?;
    directory::point_latest(&results, &id)?;

    let stdout = std::io::stdout();
    let colour = terminal::colours(stdout.is_terminal(), env::var_os("NO_COLOR").as_deref(), in_ci());
    // A closed pipe must not hide the exit code.
    let _ = write!(stdout.lock(), "\n{}", terminal::summary(&record, &results.join(directory::LATEST), colour));
    Ok(record.finished.map_or(Exit::Infra, |(exit, _)| exit))
}

fn progress() -> Box<dyn Reporter> {
    if std::io::stderr().is_terminal() && !in_ci() {
        Box::new(Bars::new())
    } else {
        Box::new(Lines::new(std::io::stderr()))
    }
}

/// The variable that the common CI systems set.
pub(super) fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}
