//! `lab run`.

use super::{
    args::{FormatArgs, HowArgs, SelectArgs},
    watch,
};
use crate::{
    error::Error,
    guests::{Conducted, Guests, in_ci},
    project::{Project, select::select},
    shard::part,
};
use clap::Args;
use lab_kernel_store::Kernel;
use lab_record::{exit::Exit, run::RunRecord};
use lab_report::terminal;
use std::{
    env,
    io::{IsTerminal, Write},
    path::PathBuf,
};

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) select: SelectArgs,
    /// Run one shard of the plan: 2/4, or auto, or auto/4, where the CI system's variables say which one. Without the
    /// flag these variables count too, where they name one shard of several.
    #[arg(long, value_name = "M/N")]
    partition: Option<crate::shard::Request>,
    /// Recorded durations by which shards are split. Default: ci/durations.json of the project.
    #[arg(long, value_name = "FILE")]
    durations: Option<PathBuf>,
    #[command(flatten)]
    how: HowArgs,
    /// Run again whenever a source of the agent, the suite or the eBPF programs changes.
    #[arg(long, conflicts_with = "no_build")]
    watch: bool,
}

pub(super) fn run(named: Option<PathBuf>, args: &RunArgs) -> Result<Exit, Error> {
    let part = part::requested(args.partition)?;
    let project = Project::open(named)?;
    let kernels = project.kernels(&args.select.kernels.filter())?;
    watch::rounds(&project.root, args.watch, || {
        let selected = select(&project, &args.select.filter())?;
        match part {
            Some(part) => {
                let whole = part::whole(
                    &project,
                    &kernels,
                    &selected,
                    args.select.kernels.filter().is_full_matrix(),
                    args.durations.as_deref(),
                )?;
                let (plan, shard) = whole.part(part)?;
                let own = |kernel: &&&Kernel| plan.kernels.iter().any(|planned| planned.facts.id == kernel.id);
                let kernels: Vec<&Kernel> = kernels.iter().filter(own).copied().collect();
                args.how.mutant.as_deref().map(|name| selected.mutant(name)).transpose()?;
                let guests = Guests::open(&project, &kernels, &selected)?;
                Ok(tell(
                    guests.conduct(&project, plan, Some(shard), selected.canary, args.how.order())?,
                    &args.how.format,
                ))
            }
            None => {
                let full_matrix = args.select.kernels.filter().is_full_matrix();
                let done = Guests::execute(&project, &kernels, selected, args.how.order(), full_matrix, |plan| plan)?;
                Ok(tell(done, &args.how.format))
            }
        }
    })
}

/// Shows a run that is over, in the format that was asked for.
pub(super) fn tell(done: Conducted, args: &FormatArgs) -> RunRecord {
    let stdout = std::io::stdout();
    let colour = terminal::colours(stdout.is_terminal(), env::var_os("NO_COLOR").as_deref(), in_ci());
    let told = match args.format {
        Some(chosen) => chosen.render(&done.record, &args.origin),
        None => format!("\n{}", terminal::summary(&done.record, &done.name, colour)),
    };
    // A closed pipe must not hide the exit code.
    let _ = stdout.lock().write_all(told.as_bytes());
    done.record
}
