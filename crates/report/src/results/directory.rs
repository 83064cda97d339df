//! A run's directory: `results/<timestamp>-<short id>/` with one directory per kernel, and `results/latest`.

use lab_base::{
    file::{self, FileError},
    hex::hex,
};
use lab_guard::{Id, foreign};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Name of the link to the last run.
pub const LATEST: &str = "latest";

/// A new run id: UTC time in seconds, which sorts, and six digits that distinguish runs of the same second.
pub fn fresh_id() -> Id {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(now.as_secs()).unwrap_or_default();
    let stamp = chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default().format("%Y%m%dT%H%M%SZ");
    let seed = format!("{}-{}", now.as_nanos(), std::process::id());
    let short = hex(&Sha256::digest(seed)[..3]);
    Id::new(&format!("{stamp}-{short}")).expect("digits, letters and a dash")
}

/// Creates a run's directory.
///
/// # Errors
/// The directory can't be created, or exists.
pub fn create(results: &Path, id: &Id) -> Result<PathBuf, FileError> {
    fs::create_dir_all(results).map_err(FileError::of("create", results))?;
    let directory = results.join(id);
    fs::create_dir(&directory).map_err(FileError::of("create", &directory))?;
    Ok(directory)
}

/// A kernel's directory in a run's.
///
/// # Errors
/// It can't be created, or the path is not a directory (a link to a directory is refused too).
pub fn kernel(run: &Path, id: &Id) -> Result<PathBuf, FileError> {
    let directory = run.join(id);
    match foreign::is_directory(&directory) {
        Ok(true) => Ok(directory),
        Ok(false) => {
            fs::create_dir_all(&directory).map_err(FileError::of("create", &directory))?;
            Ok(directory)
        }
        Err(error) => Err(FileError::of("write to", directory)(error)),
    }
}

/// Name of a guest's console file in its kernel's directory: `console.log` for the first guest, with a number for later
/// guests.
pub fn console(guest: u32) -> String {
    if guest == 1 { "console.log".to_owned() } else { format!("console-{guest}.log") }
}

/// Replaces a file atomically.
///
/// # Errors
/// The file can't be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace_with(path, |out| out.write_all(bytes))
}

/// As [`replace`], for content that is written in pieces.
///
/// # Errors
/// The file can't be written.
pub fn replace_with(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), FileError> {
    file::replace_with(path, write).map_err(FileError::of("write", path))
}

/// Makes `latest` point to a run, atomically.
///
/// The link is not essential, so an error must not fail the run; [`note_latest`] reports it.
///
/// # Errors
/// The link can't be created; a directory of that name is not touched.
pub fn point_latest(results: &Path, id: &Id) -> Result<(), FileError> {
    let link = results.join(LATEST);
    let fresh = results.join(format!(".{LATEST}-{id}"));
    symlink(&**id, &fresh).map_err(FileError::of("create", &fresh))?;
    fs::rename(&fresh, &link).map_err(|error| {
        let _ = fs::remove_file(&fresh);
        FileError::of("replace", &link)(error)
    })
}

/// As [`point_latest`], but reports an error as a line. Returns the path to show for the run.
pub fn note_latest(results: &Path, id: &Id) -> (PathBuf, Option<String>) {
    match point_latest(results, id) {
        Ok(()) => (results.join(LATEST), None),
        Err(error) => {
            let line = format!("{LATEST} does not point to this run ({error}): remove or rename the existing file");
            (results.join(id.as_str()), Some(line))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_is_updated_and_never_replaces_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        for id in ["a", "b"].map(|id| Id::new(id).unwrap()) {
            create(dir.path(), &id).unwrap();
            point_latest(dir.path(), &id).unwrap();
            assert_eq!(fs::read_link(dir.path().join(LATEST)).unwrap(), Path::new(&*id));
        }
        fs::remove_file(dir.path().join(LATEST)).unwrap();
        fs::create_dir_all(dir.path().join(LATEST).join("kept")).unwrap();
        assert!(point_latest(dir.path(), &Id::new("a").unwrap()).is_err());
        assert!(dir.path().join(LATEST).join("kept").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "no temporary link remains");
    }
}
