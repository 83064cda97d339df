//! `lab run`.

use super::args::{FormatArgs, HowArgs, SelectArgs, UnlistedArgs};
use crate::{
    error::Error,
    guests::{Conducted, Guests, rounds},
    project::select::select,
    shard::part,
};
use clap::Args;
use lab_base::say;
use lab_kernel_store::Kernel;
use lab_record::{exit::Exit, run::RunRecord};
use lab_report::terminal;
use std::{env, path::PathBuf};

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) select: SelectArgs,
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
}

pub(super) fn run(named: Option<PathBuf>, args: &RunArgs) -> Result<Exit, Error> {
    let part = part::requested(args.partition)?;
    let project = args.unlisted.project(named)?;
    let kernels = project.kernels(&args.unlisted.filter(&args.select.kernels))?;
    rounds::rounds(&project, args.watch, || {
        let selected = select(&project, &args.select.filter())?;
        match part {
            Some(part) => {
                let whole = part::whole(
                    &project,
                    &kernels,
                    &selected,
                    args.unlisted.filter(&args.select.kernels).is_full_matrix(),
                    args.durations.as_deref(),
                )?;
                let (plan, shard) = whole.part(part)?;
                let own = |kernel: &&&Kernel| plan.kernels.iter().any(|planned| planned.facts.id == kernel.id);
                let kernels: Vec<&Kernel> = kernels.iter().filter(own).copied().collect();
                args.how.mutant.as_deref().map(|name| selected.mutant(name)).transpose()?;
                let guests = Guests::open(&project, &kernels, &selected)?;
                Ok(tell(
                    guests.conduct(
                        &project,
                        plan,
                        Some(shard),
                        selected.canary,
                        args.how.order(args.select.selection(&args.unlisted, &args.how)),
                    )?,
                    &args.how.format,
                ))
            }
            None => {
                let full_matrix = args.unlisted.filter(&args.select.kernels).is_full_matrix();
                let done = Guests::execute(
                    &project,
                    &kernels,
                    selected,
                    args.how.order(args.select.selection(&args.unlisted, &args.how)),
                    full_matrix,
                    |plan| plan,
                )?;
                Ok(tell(done, &args.how.format))
            }
        }
    })
}

/// Prints a finished run in the selected format.
pub(super) fn tell(done: Conducted, args: &FormatArgs) -> RunRecord {
    let colour = terminal::colours(say::is_shown_to_people(), env::var_os("NO_COLOR").as_deref(), say::in_ci());
    // An output error must not change the exit code.
    let _ = match args.format {
        Some(chosen) => chosen.show(&done.record, &args.origin),
        None => say::show(format_args!("\n{}", terminal::summary(&done.record, &done.name, colour))),
    };
    done.record
}
