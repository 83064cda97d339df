//! `lab capabilities`.

use super::args::{KernelArgs, UnlistedArgs};
use crate::{
    error::Error,
    guests::{GuestOptions, Guests, progress},
    project::select::build,
};
use clap::Args;
use lab_base::say::show;
use lab_record::{exit::Exit, plan::Plan};
use lab_report::{capabilities, results::directory};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct CapabilitiesArgs {
    #[command(flatten)]
    kernels: KernelArgs,
    #[command(flatten)]
    unlisted: UnlistedArgs,
    /// Output format.
    #[arg(long, value_enum, default_value = "text")]
    format: capabilities::CapabilityFormat,
    /// Maximum number of parallel guests. Default: one per processor, at most one per kernel.
    #[arg(short, long, value_name = "N", value_parser = crate::cli::args::size)]
    jobs: Option<std::num::NonZeroUsize>,
    /// Use the existing builds of the agent and the eBPF object.
    #[arg(long)]
    no_build: bool,
}

pub(super) fn capabilities(named: Option<PathBuf>, args: &CapabilitiesArgs) -> Result<Exit, Error> {
    let project = args.unlisted.project(named)?;
    let kernels = project.kernels(&args.unlisted.filter(&args.kernels))?;
    let selected = build(&project, args.no_build, false)?;
    let guests = Guests::open(&project, &kernels, &selected)?;
    // A run without cells: the guests boot, probe and end.
    let plan = Plan::new(guests.facts(), Vec::new(), false);
    let scratch = lab_vm::scratch()?;
    let mut progress = progress();
    // A guest that only probes ends before a snapshot would be finished.
    let how = GuestOptions { jobs: args.jobs, cold: true, ..GuestOptions::default() };
    let record = guests.run(directory::fresh_id(), plan, scratch.path(), &how, &mut [&mut *progress])?;
    let rows = capabilities::rows(&record);
    let silent = rows.iter().any(|row| row.capabilities.is_empty());
    show(format_args!("{}\n", args.format.render(&rows)))?;
    let exit = record.finished.map_or(Exit::Infra, |(exit, _)| exit);
    // A kernel without probe results is a failure, although the run had no cells that could fail.
    Ok(if silent && exit == Exit::Passed { Exit::Infra } else { exit })
}
