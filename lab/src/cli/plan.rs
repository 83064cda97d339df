//! `lab plan` and `lab durations`.

use super::{
    DurationsArgs, PlanArgs,
    part::{durations_path, whole},
    project::Project,
    report,
    select::select,
};
use crate::{durations::Durations, error::Error, shard::layout::Layout};
use lab_base::say::show;
use lab_record::{exit::Exit, log};
use std::{fs, path::PathBuf};

pub(super) fn plan(named: Option<PathBuf>, args: &PlanArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let kernels = project.kernels(&args.select.kernels)?;
    let selected = select(&project, &args.select)?;
    let whole = whole(&project, &kernels, &selected, &args.select, args.durations.as_deref())?;
    let count = args.shards.map_or_else(|| u32::try_from(kernels.len()).unwrap_or(u32::MAX), std::num::NonZero::get);
    let split = whole.split(count)?;
    let mut words = args.select.words();
    if let Some(path) = &args.durations {
        words.extend(["--durations".to_owned(), path.display().to_string()]);
    }
    let layout = Layout::new(&whole.plan, &split, whole.identity, &words);
    show(layout.render(args.format, &args.image).map_err(Error::Host)?)?;
    Ok(Exit::Passed)
}

pub(super) fn durations(named: Option<PathBuf>, args: &DurationsArgs) -> Result<Exit, Error> {
    let project = Project::open(named.clone())?;
    let path = args.out.clone().unwrap_or_else(|| durations_path(&project));
    let mut durations = if args.anew { Durations::default() } else { Durations::load(&path)? };
    for run in &args.runs {
        durations.learn(&log::read(&report::directory(named.clone(), run)?)?);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
    }
    durations.save(&path)?;
    show(format_args!("{}: {} durations\n", path.display(), durations.count()))?;
    Ok(Exit::Passed)
}
