//! The directory of runs: which there are, and which of them are kept.

pub mod directory;
mod retention;

pub use retention::{LAB_TOML, Retention, SECTIONS, Verdict, prune, sweep};

use crate::error::ReportError;
use lab_base::file::FileError;
use lab_record::log;
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Bytes in which the last event of a run has room.
const LAST_SIZE: u64 = 4 << 10;

/// A run in a directory of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its id, which is its directory's name.
    pub id: String,
    /// Its directory.
    pub directory: PathBuf,
}

/// Whether a name is one that [`crate::results::directory::fresh_id`] makes: `20261120T120000Z-abcdef`.
fn is_id(name: &str) -> bool {
    let shape = |(at, byte): (usize, u8)| match at {
        8 => byte == b'T',
        15 => byte == b'Z',
        16 => byte == b'-',
        0..=14 => byte.is_ascii_digit(),
        _ => byte.is_ascii_hexdigit(),
    };
    name.len() == 23 && name.bytes().enumerate().all(shape)
}

/// The runs below a directory, oldest first. What has another name, or holds no events, is no run.
///
/// # Errors
/// The directory can't be read; one that is not there holds none.
pub fn stored(results: &Path) -> Result<Vec<Stored>, ReportError> {
    let mut found = Vec::new();
    for (name, directory) in entries(results)? {
        if is_id(&name) && directory.join(log::FILE).is_file() {
            found.push(Stored { id: name, directory });
        }
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

/// Directories below a directory, links not followed.
fn entries(results: &Path) -> Result<Vec<(String, PathBuf)>, ReportError> {
    let listing = match fs::read_dir(results) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(FileError::of("read", results)(error).into()),
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.map_err(FileError::of("read", results))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(name) = entry.file_name().into_string()
        {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

impl Stored {
    /// Whether the run ended, and everything in it passed; of any version of the lab.
    pub fn passed(&self) -> bool {
        self.last_event().is_some_and(|event| event["event"] == "run-finished" && event["exit"] == "passed")
    }

    fn last_event(&self) -> Option<Value> {
        let mut file = File::open(self.directory.join(log::FILE)).ok()?;
        let size = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(LAST_SIZE))).ok()?;
        let mut bytes = Vec::new();
        file.take(LAST_SIZE).read_to_end(&mut bytes).ok()?;
        let last = bytes.strip_suffix(b"\n")?.rsplit(|&byte| byte == b'\n').next()?;
        serde_json::from_slice(last).ok()
    }

    /// Whether a lab is writing it right now.
    fn is_running(&self) -> bool {
        File::open(self.directory.join(log::FILE)).is_ok_and(|file| file.try_lock().is_err())
    }

    /// Bytes on disk.
    pub fn size(&self) -> u64 {
        let files = walkdir::WalkDir::new(&self.directory).into_iter().flatten();
        files.filter_map(|entry| entry.metadata().ok()).filter(|it| it.is_file()).map(|it| it.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_runs_are_runs() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["20261120T120000Z-abcdef", "20261119T120000Z-abcdef", "20261121T120000Z-abcdef", "mine", "latest"]
        {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join(log::FILE), "").unwrap();
        }
        fs::remove_file(dir.path().join("20261121T120000Z-abcdef").join(log::FILE)).unwrap();
        let ids: Vec<String> = stored(dir.path()).unwrap().into_iter().map(|it| it.id).collect();
        assert_eq!(ids, ["20261119T120000Z-abcdef", "20261120T120000Z-abcdef"]);
        assert!(stored(&dir.path().join("none")).unwrap().is_empty());
        assert!(is_id(&crate::results::directory::fresh_id()));
    }
}
