//! The beginning of a shard's events, without the list of the plan's cells: every shard has that list, and a merge of a thousand
//! shards needs it once.

use super::{EventReader, LogError};
use crate::{
    event::{Accelerator, FORMAT, Versions},
    excuse::Expired,
    plan::repeated,
    shard::Shard,
};
use lab_base::file::FileError;
use lab_guard::{Id, foreign};
use lab_protocol::CellId;
use serde::Deserialize;
use std::{
    fs::File,
    io::{BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// What distinguishes a shard from the others of its plan.
#[derive(Debug, Deserialize)]
pub struct PartInfo {
    /// As in [`RunInfo`](crate::event::RunInfo).
    pub id: Id,
    format: u32,
    /// As in [`RunInfo`](crate::event::RunInfo).
    pub versions: Versions,
    /// As in [`RunInfo`](crate::event::RunInfo).
    pub accelerator: Accelerator,
    /// As in [`RunInfo`](crate::event::RunInfo).
    pub mutant: Option<String>,
    /// As in [`RunInfo`](crate::event::RunInfo).
    #[serde(default)]
    pub canary: bool,
    /// As in [`RunInfo`](crate::event::RunInfo).
    #[serde(default)]
    pub retries: u32,
    /// As in [`RunInfo`](crate::event::RunInfo).
    #[serde(default)]
    pub expired: Vec<Expired>,
    /// The shard's own part of the plan.
    pub plan: PartPlan,
    /// `None` if the run is no shard.
    #[serde(default)]
    pub shard: Option<Shard>,
}

/// The kernels of a shard.
#[derive(Debug, Deserialize)]
pub struct PartPlan {
    /// Those with cells of the shard.
    pub kernels: Vec<PartKernel>,
}

/// A kernel of a shard, with its cells.
#[derive(Debug, Deserialize)]
pub struct PartKernel {
    facts: PartFacts,
    cells: Vec<PartCell>,
}

#[derive(Debug, Deserialize)]
struct PartFacts {
    id: Id,
}

#[derive(Debug, Deserialize)]
struct PartCell {
    id: CellId,
}

impl PartKernel {
    /// Its name.
    pub const fn id(&self) -> &Id {
        &self.facts.id
    }

    /// The cells that the shard runs on it.
    pub fn cells(&self) -> impl Iterator<Item = &CellId> {
        self.cells.iter().map(|cell| &cell.id)
    }
}

#[derive(Deserialize)]
struct Begun {
    at_ms: u64,
    event: Started,
    run: PartInfo,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Started {
    RunStarted,
}

/// A shard's events behind the first one, while they are not read: a merge holds as many of them as there are shards.
#[derive(Debug)]
pub struct Paused {
    path: PathBuf,
    offset: u64,
}

impl Paused {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long the run took, milliseconds, if the file ends with the end of the run.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn wall_ms(&self) -> Result<Option<u64>, LogError> {
        super::wall_ms(&self.path)
    }

    /// Opens the file again.
    ///
    /// # Errors
    /// It can't be read.
    pub fn resume(self) -> Result<EventReader, LogError> {
        let open = || -> std::io::Result<File> {
            let mut file = foreign::open(&self.path)?;
            file.seek(SeekFrom::Start(self.offset))?;
            Ok(file)
        };
        let file = open().map_err(FileError::of("read", &self.path))?;
        let lines = BufReader::with_capacity(super::READ_SIZE, file);
        Ok(EventReader { path: self.path, lines, number: 1, first: None, failed: false })
    }
}

/// The start time of a shard, milliseconds since the epoch, what is its own, and its other events.
pub type StartedPart = (u64, PartInfo, Paused);

/// Reads the first event of a shard.
///
/// # Errors
/// Those of [`EventReader::open`].
pub fn begin(directory: &Path) -> Result<StartedPart, LogError> {
    let mut reader = EventReader::at(directory)?;
    let mut line = Vec::new();
    if !reader.line(&mut line)? {
        return Err(reader.bad("the first event is incomplete".to_owned()));
    }
    let run = match serde_json::from_slice(&line) {
        Ok(Begun { at_ms, event: Started::RunStarted, run }) if run.format == FORMAT => {
            reader.on_time(at_ms)?;
            let kernels = run.plan.kernels.iter().map(|kernel| (kernel.id(), kernel.cells()));
            if let Some(twice) = repeated(kernels) {
                return Err(reader.bad(format!("the plan contains {twice} twice")));
            }
            (at_ms, run)
        }
        // Named as by every other command that reads the file.
        other => {
            let error = crate::event::Stamped::parse(&line).err().or_else(|| other.err());
            return Err(reader.no_run(&line, error));
        }
    };
    let offset = line.len() as u64;
    Ok((run.0, run.1, Paused { path: reader.path, offset }))
}
