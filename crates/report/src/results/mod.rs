//! The directory of runs: listing and retention.

pub mod directory;
mod retention;
mod settings;

pub use retention::{Decision, Retention, prune, sweep};
pub use settings::{LAB_TOML, SettingsError, setting, setting_in};

use crate::error::ReportError;
use lab_base::file::FileError;
use lab_guard::foreign;
use lab_record::log;
use serde_json::Value;
use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Size of the end of the file that contains the last event, bytes.
const LAST_SIZE: u64 = 4 << 10;

/// The directory below the suite's runs with those of `lab exec`. A prefix of another runner makes many runs in little time: in a
/// directory of their own, with a count of its own, they never push the suite's out.
pub const EXEC: &str = "exec";

/// The directories of runs below `results/`.
pub fn places(results: &Path) -> [PathBuf; 2] {
    [results.to_owned(), results.join(EXEC)]
}

/// The newest runs of a directory and of its [`EXEC`], at most `last` of each, oldest first.
///
/// # Errors
/// As of [`stored`].
pub fn newest(results: &Path, last: usize) -> Result<Vec<Stored>, ReportError> {
    let mut found = Vec::new();
    for place in places(results) {
        let mut runs = stored(&place)?;
        found.extend(runs.split_off(runs.len().saturating_sub(last)));
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

/// The directory of a run by its name: its id, `latest`, `exec/latest`, or the id of a command's run.
pub fn find(results: &Path, name: &Path) -> PathBuf {
    let found = places(results).map(|place| place.join(name));
    let [usual, _] = &found;
    found.iter().find(|run| run.join(log::FILE).is_file()).unwrap_or(usual).clone()
}

/// A run in the directory of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its id: the name of its directory.
    pub id: String,
    pub directory: PathBuf,
}

/// Whether a name has the form of [`crate::results::directory::fresh_id`]: `20261120T120000Z-abcdef`.
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

/// The runs in a directory, oldest first. Directories with other names, or without events, are ignored.
///
/// # Errors
/// The directory can't be read; a missing directory has no runs.
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

/// Subdirectories; symbolic links are not followed.
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

/// The counts of a `run.json`, in the order in which they are listed.
pub const COUNTS: [&str; 5] = ["passed", "failed", "skipped", "errored", "not-run"];

/// The exit code of a `run.json` and its [`COUNTS`]; `None` if they are missing.
pub fn figures(run_json: &[u8]) -> (Option<u64>, [Option<u64>; 5]) {
    let summary: Value = serde_json::from_slice(run_json).unwrap_or_default();
    (summary["exit_code"].as_u64(), COUNTS.map(|key| summary["counts"][key].as_u64()))
}

impl Stored {
    /// Whether the run ended and passed; works for all versions of `lab`.
    pub fn passed(&self) -> bool {
        self.last_event().is_some_and(|event| event["event"] == "run-finished" && event["exit"] == "passed")
    }

    fn last_event(&self) -> Option<Value> {
        let mut file = foreign::open(&self.directory.join(log::FILE)).ok()?;
        let size = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(LAST_SIZE))).ok()?;
        let mut bytes = Vec::new();
        file.take(LAST_SIZE).read_to_end(&mut bytes).ok()?;
        let last = bytes.strip_suffix(b"\n")?.rsplit(|&byte| byte == b'\n').next()?;
        serde_json::from_slice(last).ok()
    }

    /// Whether a `lab` process is writing the run now.
    fn is_running(&self) -> bool {
        foreign::open(&self.directory.join(log::FILE)).is_ok_and(|file| file.try_lock().is_err())
    }

    /// Size on disk, bytes.
    pub fn size(&self) -> u64 {
        let files = walkdir::WalkDir::new(&self.directory).into_iter().flatten();
        files.filter_map(|entry| entry.metadata().ok()).filter(|it| it.is_file()).map(|it| it.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_directories_are_not_runs() {
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

    #[test]
    fn runs_of_commands_are_found_and_do_not_displace_others() {
        let dir = tempfile::tempdir().unwrap();
        let [suite, exec] = places(dir.path());
        for (place, day) in [(&suite, 18), (&suite, 19), (&exec, 20), (&exec, 21), (&exec, 22)] {
            let run = place.join(format!("202611{day}T120000Z-abcdef"));
            fs::create_dir_all(&run).unwrap();
            fs::write(run.join(log::FILE), "").unwrap();
        }
        let days = |last| -> Vec<String> {
            newest(dir.path(), last).unwrap().into_iter().map(|it| it.id[6..8].to_owned()).collect()
        };
        assert_eq!(
            (days(9), days(1)),
            (["18", "19", "20", "21", "22"].map(String::from).to_vec(), vec!["19".to_owned(), "22".to_owned()])
        );
        let named = |name: &str| find(dir.path(), Path::new(name));
        assert_eq!(named("20261118T120000Z-abcdef"), suite.join("20261118T120000Z-abcdef"));
        assert_eq!(named("20261121T120000Z-abcdef"), exec.join("20261121T120000Z-abcdef"));
        assert_eq!(named("exec/20261121T120000Z-abcdef"), exec.join("20261121T120000Z-abcdef"));
        assert_eq!(named("nosuch"), suite.join("nosuch"));
    }
}
