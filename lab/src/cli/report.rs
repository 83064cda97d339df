//! `lab report`.

use crate::{cli::args::FormatArgs, error::Error, project};
use lab_base::say::{self, show};
use lab_record::{exit::Exit, log};
use lab_report::{results, terminal, write_all};
use std::{
    env,
    path::{Path, PathBuf},
};

/// A run's directory: the given path, or its name in the project's results.
pub(super) fn directory(named: Option<PathBuf>, run: &Path) -> Result<PathBuf, Error> {
    let is_path = run.join(log::FILE).is_file();
    Ok(if is_path { run.to_owned() } else { results::find(&project::root(named)?.join("results"), run) })
}

pub(super) fn report(named: Option<PathBuf>, run: &Path, format: &FormatArgs) -> Result<Exit, Error> {
    let directory = directory(named, run)?;
    let record = log::read(&directory)?;
    let exit = record.outcome();
    if let Some(chosen) = format.format {
        chosen.show(&record, &format.origin)?;
        return Ok(exit);
    }
    write_all(&directory, &record)?;
    let colour = terminal::colours(say::is_shown_to_people(), env::var_os("NO_COLOR").as_deref(), say::in_ci());
    show(terminal::summary(&record, &directory, colour))?;
    Ok(exit)
}
