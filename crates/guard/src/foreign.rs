//! Reads files from other machines: results and downloads.
//!
//! Only regular files are accepted: a symbolic link could point to a file of this machine, a FIFO never ends, and opening a
//! device may have effects.

use crate::private::kind;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Opens a regular file without blocking.
///
/// # Errors
/// It is not a regular file (a symbolic link is refused too), or can't be opened.
pub fn open(path: &Path) -> io::Result<File> {
    opened(OpenOptions::new().read(true), path)
}

/// Opens a regular file for reading and writing, which has no other name: what is written must not get into a file of somebody else.
///
/// # Errors
/// As [`open`], or the file has several names.
pub fn open_for_writing(path: &Path) -> io::Result<File> {
    let file = opened(OpenOptions::new().read(true).write(true), path)?;
    match file.metadata()?.nlink() {
        1 => Ok(file),
        names => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a file with {names} names instead of one"))),
    }
}

fn opened(how: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match how.custom_flags(flags).open(path) {
        Ok(file) => file,
        // The error names the kind of the file.
        Err(error) => {
            return Err(fs::symlink_metadata(path).map_or(error, |found| match found.is_file() {
                true => io::Error::from(io::ErrorKind::PermissionDenied),
                false => refused(&found, "a file"),
            }));
        }
    };
    let found = file.metadata()?;
    if found.is_file() { Ok(file) } else { Err(refused(&found, "a file")) }
}

/// Whether the path is a directory, not a symbolic link.
///
/// # Errors
/// The path exists but is not a directory.
pub fn is_directory(path: &Path) -> io::Result<bool> {
    // A path with a trailing slash would follow a symbolic link.
    let path: PathBuf = path.components().collect();
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(found) => Err(refused(&found, "a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads a regular file.
///
/// # Errors
/// It has more than `most` bytes, or is not a regular file.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large(most)) } else { Ok(bytes) }
}

/// Copies a regular file to a new file.
///
/// # Errors
/// It has more than `most` bytes or is not a regular file, or the target exists.
pub fn copy(from: &Path, to: &Path, most: u64) -> io::Result<u64> {
    let from = open(from)?;
    if from.metadata()?.len() > most {
        return Err(too_large(most));
    }
    let copied = io::copy(&mut from.take(most), &mut File::create_new(to)?)?;
    Ok(copied)
}

pub(crate) fn too_large(most: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {} MiB", most >> 20))
}

fn refused(found: &fs::Metadata, wanted: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} instead of {wanted}", kind(found)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_a_file_without_another_name_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "words").unwrap();
        assert!(open_for_writing(&at("file")).is_ok());
        symlink(at("file"), at("link")).unwrap();
        let refused = open_for_writing(&at("link")).unwrap_err().to_string();
        assert_eq!(refused, "a symbolic link instead of a file");
        fs::hard_link(at("file"), at("other")).unwrap();
        let refused = open_for_writing(&at("file")).unwrap_err().to_string();
        assert_eq!(refused, "a file with 2 names instead of one");
        assert_eq!(open_for_writing(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn links_fifos_and_devices_are_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "words").unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink(dir.path(), at("way")).unwrap();
        symlink("/dev/zero", at("endless")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(read(&at("file"), 5).unwrap(), b"words");
        assert!(read(&at("file"), 4).unwrap_err().to_string().contains("more than"));
        for (name, told) in [
            ("link", "a symbolic link instead of a file"),
            ("endless", "a symbolic link"),
            ("fifo", "a FIFO instead of a file"),
            (".", "a directory instead of a file"),
        ] {
            let error = open(&at(name)).unwrap_err().to_string();
            assert!(error.contains(told), "{name}: {error}");
        }
        assert!(open(Path::new("/dev/zero")).unwrap_err().to_string().contains("a device"));
        assert!(is_directory(dir.path()).unwrap() && !is_directory(&at("none")).unwrap());
        assert!(is_directory(&at("way")).unwrap_err().to_string().contains("a symbolic link instead of a directory"));
        assert!(is_directory(&at("way/")).is_err());
        assert_eq!(open(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_copy_is_new_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "words").unwrap();
        assert_eq!(copy(&at("file"), &at("copy"), 5).unwrap(), 5);
        assert_eq!(copy(&at("file"), &at("copy"), 5).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let sparse = File::create(at("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        assert!(copy(&at("sparse"), &at("other"), 1 << 20).unwrap_err().to_string().contains("more than 1 MiB"));
        assert!(!at("other").exists());
    }
}
