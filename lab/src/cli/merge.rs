//! `lab merge`.

use crate::{error::Error, project, provenance, shard::merge::Shards};
use clap::Args;
use lab_base::say::{self, show};
use lab_guard::Id;
use lab_record::{exit::Exit, log::EventLog, provenance::Provenance};
use lab_report::{results::directory, terminal, write_all};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// Results of shards: directories of runs, or directories that contain runs.
    #[arg(value_name = "DIR", required = true)]
    shards: Vec<PathBuf>,
    /// Directory for results. Default: results/ in the project.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn merge(named: Option<PathBuf>, args: &MergeArgs) -> Result<Exit, Error> {
    let mut shards = Shards::open(&args.shards)?;
    let results = match &args.out {
        Some(out) => out.clone(),
        None => project::root(named.clone())?.join("results"),
    };
    let root = project::root(named.clone()).unwrap_or_else(|_| PathBuf::from("."));
    shards.started_by(Provenance {
        results: provenance::place(&root, &results),
        call: Some(provenance::call(&root, named.as_deref())),
        ..provenance::of(&root)
    });
    let id = directory::fresh_id();
    fs::create_dir_all(&results).map_err(Error::file("create", &results))?;
    // Merged in a temporary directory: if a shard is damaged, no partial run remains.
    let aside = lab_vm::hidden_scratch(&results)?;
    let record = replay(shards, &id, aside.path())?;
    let finished = results.join(&id);
    fs::set_permissions(aside.path(), fs::Permissions::from_mode(0o755)).map_err(Error::file("open", aside.path()))?;
    fs::rename(aside.keep(), &finished).map_err(Error::file("create", &finished))?;
    let (name, problem) = directory::note_latest(&results, &id);
    if let Some(problem) = problem {
        say::say(&problem);
    }
    show(terminal::summary(&record, &name, say::colours()))?;
    Ok(record.exit())
}

fn replay(shards: Shards, id: &Id, directory: &Path) -> Result<lab_record::run::RunRecord, Error> {
    let mut events = EventLog::create(directory)?;
    let record = shards.merge(id.clone(), Some(directory), Some(&mut events))?;
    write_all(directory, &record)?;
    Ok(record)
}
