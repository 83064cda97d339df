//! A command that prepares a guest before it is saved, and what its result depends on.

use super::WorldError;
use lab_base::{file, hex::hex};
use lab_protocol::{CellId, CellJob, CellProgram, Work};
use lab_share::FileStamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Name of its cell, which is in no plan.
const CELL: &str = "setup";
/// Where a snapshot keeps what its set-up read.
const FILE: &str = "inputs.json";

/// A command that prepares a guest.
#[derive(Debug)]
pub struct GuestSetup {
    job: CellJob,
    digest: String,
}

impl GuestSetup {
    /// `files` are the root's archive and the modules, whose content the guest gets.
    pub(super) fn new<'a>(program: CellProgram, files: impl Iterator<Item = &'a PathBuf>) -> Result<Self, WorldError> {
        let job = CellJob { cell: CellId(CELL.into()), work: Work::Program(Box::new(program)), requires: Vec::new() };
        let mut digest = Sha256::new();
        digest.update(serde_json::to_vec(&job).unwrap_or_default());
        for path in files {
            let stamp = fs::metadata(path).map(|it| FileStamp::of(&it)).map_err(WorldError::io(path))?;
            digest.update(serde_json::to_vec(&(path, stamp)).unwrap_or_default());
        }
        Ok(Self { job, digest: hex(&digest.finalize()) })
    }

    /// What the guest is to do.
    pub fn job(&self) -> CellJob {
        self.job.clone()
    }

    /// The key of a snapshot behind this set-up, of a guest whose own is `key`.
    pub fn key(&self, key: &str) -> String {
        let mut digest = Sha256::new();
        digest.update(key);
        digest.update(&self.digest);
        hex(&digest.finalize())
    }
}

/// The files of the host that a set-up has read. What it looked for and did not find is not known.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct SetupInputs(BTreeMap<PathBuf, FileStamp>);

impl SetupInputs {
    /// Of what was served.
    pub fn new(read: BTreeMap<PathBuf, FileStamp>) -> Self {
        Self(read)
    }

    /// Keeps them in a snapshot's directory.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        file::replace(&dir.join(FILE), &serde_json::to_vec(self)?)
    }

    /// A file that has changed since the snapshot in this directory was made.
    pub fn changed(dir: &Path) -> Option<PathBuf> {
        let path = dir.join(FILE);
        let Ok(Self(inputs)) = fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?)) else {
            return Some(path);
        };
        let same = |path: &Path, stamp: &FileStamp| fs::metadata(path).is_ok_and(|it| FileStamp::of(&it) == *stamp);
        inputs.into_iter().find(|(path, stamp)| !same(path, stamp)).map(|(path, _)| path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(SetupInputs::changed(dir.path()), Some(dir.path().join(FILE)), "nothing is known");
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let stamp = |path: &PathBuf| (path.clone(), FileStamp::of(&fs::metadata(path).unwrap()));
        fs::write(&one, "1").unwrap();
        fs::write(&two, "2").unwrap();
        SetupInputs::new([stamp(&one), stamp(&two)].into()).save(dir.path()).unwrap();
        assert_eq!(SetupInputs::changed(dir.path()), None);
        fs::write(&two, "22").unwrap();
        assert_eq!(SetupInputs::changed(dir.path()), Some(two));
    }
}
