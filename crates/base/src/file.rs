//! File errors that name the path, and atomic replacement of files.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Write buffer, bytes: reports of large runs are hundreds of megabytes long.
const WRITE_SIZE: usize = 256 << 10;

/// A file operation failed.
#[derive(Debug, thiserror::Error)]
#[error("can't {action} {}: {cause}", path.display())]
pub struct FileError {
    /// `read`, `write`, `create`, …
    pub action: &'static str,
    pub path: PathBuf,
    /// The system's answer.
    pub cause: io::Error,
}

impl FileError {
    /// Returns a converter for `map_err` on file operations.
    pub fn of(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self { action, path, cause }
    }
}

/// Replaces a file atomically: a reader sees either the old or the new content. The file mode is 0644.
///
/// # Errors
/// The file can't be written; the old file stays.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, |out| out.write_all(bytes))
}

/// As [`replace`], but syncs the new content to disk before the rename: for files that another program must be able to
/// trust after a power failure.
///
/// # Errors
/// The file can't be written; the old file stays.
pub fn replace_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    persist(path, |file| file.write_all(bytes).and_then(|()| file.sync_all()))
}

/// As [`replace`], for content that is written in pieces.
///
/// # Errors
/// The file can't be written, or `write` fails; the old file stays.
pub fn replace_with(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    persist(path, |file| {
        let mut buffered = BufWriter::with_capacity(WRITE_SIZE, file);
        write(&mut buffered)?;
        buffered.flush()
    })
}

/// Sets the time of use of a file or directory to now. Errors are ignored: the file then seems older than it is.
pub fn touch(path: &Path) {
    let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

fn persist(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    write(file.as_file_mut())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_keeps_the_old_file_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report");
        replace(&path, b"old").unwrap();
        let half = replace_with(&path, |out| {
            out.write_all(b"new")?;
            Err(io::ErrorKind::Other.into())
        });
        assert!(half.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }
}
