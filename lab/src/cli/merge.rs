//! `lab merge`.

use crate::{error::Error, guests::in_ci, project, shard::merge::Shards};
use clap::Args;
use lab_base::say::{say, show};
use lab_record::{exit::Exit, log::EventLog};
use lab_report::{results::directory, terminal, write_all};
use std::{
    env, fs,
    io::IsTerminal,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// Results of shards: a run's directory each, or one with runs directly below it.
    #[arg(value_name = "DIR", required = true)]
    shards: Vec<PathBuf>,
    /// Directory for results. Default: results/ in the project.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn merge(named: Option<PathBuf>, args: &MergeArgs) -> Result<Exit, Error> {
    let shards = Shards::open(&args.shards)?;
    let results = match &args.out {
        Some(out) => out.clone(),
        None => project::root(named)?.join("results"),
    };
    let id = directory::fresh_id();
    fs::create_dir_all(&results).map_err(Error::file("create", &results))?;
    // A shard may turn out to be damaged in the middle: nothing is left behind that looks like a run.
    let aside = tempfile::Builder::new().prefix(".merge-").tempdir_in(&results);
    let aside = aside.map_err(Error::file("create", &results))?;
    let record = replay(shards, &id, aside.path())?;
    let finished = results.join(&id);
    fs::set_permissions(aside.path(), fs::Permissions::from_mode(0o755)).map_err(Error::file("open", aside.path()))?;
    fs::rename(aside.keep(), &finished).map_err(Error::file("create", &finished))?;
    let (name, problem) = directory::note_latest(&results, &id);
    if let Some(problem) = problem {
        say(&problem);
    }
    let colour = terminal::colours(std::io::stdout().is_terminal(), env::var_os("NO_COLOR").as_deref(), in_ci());
    show(terminal::summary(&record, &name, colour))?;
    Ok(record.exit())
}

fn replay(shards: Shards, id: &str, directory: &Path) -> Result<lab_record::run::RunRecord, Error> {
    let mut events = EventLog::create(directory)?;
    let record = shards.merge(id.to_owned(), Some(directory), Some(&mut events))?;
    write_all(directory, &record)?;
    Ok(record)
}
