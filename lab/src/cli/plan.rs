//! `lab plan` and `lab durations`.

use super::{args::SelectArgs, report};
use crate::{
    error::Error,
    project::{Project, select::select},
    shard::{
        durations::Durations,
        layout::Layout,
        part::{durations_path, whole},
    },
};
use clap::Args;
use lab_base::say::show;
use lab_record::{exit::Exit, log, plan::KernelFacts};
use std::{fs, path::PathBuf};

#[derive(Debug, Args)]
pub(super) struct DurationsArgs {
    /// Runs to read: directories, or names in results/.
    #[arg(value_name = "RUN", default_value = "latest")]
    runs: Vec<PathBuf>,
    /// Output file. Default: ci/durations.json of the project.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Discard the recorded durations first.
    #[arg(long)]
    anew: bool,
}

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// Number of shards. Default: one per kernel.
    #[arg(long, value_name = "N", value_parser = crate::cli::args::count::<std::num::NonZeroU32>)]
    shards: Option<std::num::NonZeroU32>,
    /// Output format.
    #[arg(long, value_enum, default_value = "text")]
    format: crate::shard::layout::LayoutFormat,
    /// Recorded durations. Default: ci/durations.json of the project; without it all cells count the same.
    #[arg(long, value_name = "FILE")]
    durations: Option<PathBuf>,
    /// Container image of the Kubernetes job.
    #[arg(long, value_name = "IMAGE", default_value = "netkit-lab:latest")]
    container: String,
}

pub(super) fn plan(named: Option<PathBuf>, args: &PlanArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let kernels = project.kernels(&args.select.kernels.filter())?;
    let selected = select(&project, &args.select.filter())?;
    let whole = whole(
        &project,
        &kernels,
        &selected,
        args.select.kernels.filter().is_full_matrix(),
        args.durations.as_deref(),
        |plan| plan,
    )?;
    let count = args.shards.map_or_else(|| u32::try_from(kernels.len()).unwrap_or(u32::MAX), std::num::NonZero::get);
    let split = whole.split(count)?;
    let mut words = args.select.words();
    if let Some(path) = &args.durations {
        words.extend(["--durations".to_owned(), path.display().to_string()]);
    }
    let layout = Layout::new(&whole.plan, &split, whole.identity, &words);
    show(layout.render(args.format, &args.container).map_err(|error| Error::Host(error.to_string()))?)?;
    Ok(Exit::Passed)
}

pub(super) fn durations(named: Option<PathBuf>, args: &DurationsArgs) -> Result<Exit, Error> {
    let project = Project::open(named.clone())?;
    let path = args.out.clone().unwrap_or_else(|| durations_path(&project));
    let mut durations = if args.anew { Durations::default() } else { Durations::load(&path)? };
    for run in &args.runs {
        durations.learn(&log::read(&report::directory(named.clone(), run)?)?, &KernelFacts::paced_as);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
    }
    durations.save(&path)?;
    show(format_args!("{}: {} durations\n", path.display(), durations.count()))?;
    Ok(Exit::Passed)
}
