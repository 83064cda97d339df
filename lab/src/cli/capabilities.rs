//! `lab capabilities`.

use super::args::KernelArgs;
use crate::{
    error::Error,
    guests::{Guests, How, progress},
    project::{Project, select::build},
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
    /// How the table is written.
    #[arg(long, value_enum, default_value = "text")]
    format: capabilities::Format,
    /// Guests at the same time. Default: one per processor, no more than kernels.
    #[arg(long, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// Use the agent and the eBPF object as they are.
    #[arg(long)]
    no_build: bool,
}

pub(super) fn capabilities(named: Option<PathBuf>, args: &CapabilitiesArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let kernels = project.kernels(&args.kernels.filter())?;
    let selected = build(&project, args.no_build, false)?;
    let guests = Guests::open(&project, &kernels, &selected)?;
    // A run without cells: the guests boot, probe and end.
    let plan = Plan::new(guests.facts(), Vec::new(), false);
    let scratch = tempfile::tempdir().map_err(Error::file("create", std::env::temp_dir()))?;
    let mut progress = progress();
    // A guest that only probes is over before a snapshot of it would be made.
    let how = How { jobs: args.jobs, cold: true, ..How::default() };
    let record = guests.run(directory::fresh_id(), plan, scratch.path(), &how, &mut [&mut *progress])?;
    let rows = capabilities::rows(&record);
    let silent = rows.iter().any(|row| row.capabilities.is_empty());
    show(format_args!("{}\n", args.format.render(&rows)))?;
    let exit = record.finished.map_or(Exit::Infra, |(exit, _)| exit);
    // What was not probed is no answer, whatever the run says that had no cells to lose.
    Ok(if silent && exit == Exit::Passed { Exit::Infra } else { exit })
}
