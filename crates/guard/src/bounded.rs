//! Reads files up to a limit: those that other programs extend, and those that a person or a project names.

use crate::{foreign::too_large, private::kind};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Maximum size of a configuration file, bytes.
pub const SETTINGS: u64 = 4 << 20;

/// Opens a regular file without blocking. Links are followed: the image of a kernel often is one.
///
/// # Errors
/// It is something else, such as a FIFO or a device, which may never end, or can't be opened.
pub fn open(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let found = opened.metadata()?;
    if found.is_file() {
        return Ok(opened);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} instead of a file", kind(&found))))
}

/// Reads a file as [`open`] opens it.
///
/// # Errors
/// As [`open`], or it has more than `most` bytes.
pub fn file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large(most)) } else { Ok(bytes) }
}

/// Reads a configuration file of at most [`SETTINGS`] bytes.
///
/// # Errors
/// As [`file`], or it is not UTF-8.
pub fn text(path: &Path) -> io::Result<String> {
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8");
    String::from_utf8(file(path, SETTINGS)?).map_err(wrong)
}

/// Reads the first bytes of a file.
///
/// # Errors
/// It can't be read.
pub fn head(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads the last bytes of a file.
///
/// # Errors
/// It can't be read.
pub fn tail(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let length = File::open(path)?.metadata()?.len();
    from(path, length.saturating_sub(most), most)
}

/// Reads a file's bytes from an offset.
///
/// # Errors
/// It can't be read.
pub fn from(path: &Path, begin: u64, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_requested_bytes_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(head(&path, 3).unwrap(), b"012");
        assert_eq!(tail(&path, 3).unwrap(), b"789");
        assert_eq!(tail(&path, 99).unwrap(), b"0123456789");
        assert_eq!(from(&path, 8, 99).unwrap(), b"89");
        assert_eq!(from(&path, 99, 99).unwrap(), b"");
        assert!(tail(&dir.path().join("none"), 1).is_err());
    }

    #[test]
    fn only_files_are_read_whole_and_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "words").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
        assert_eq!(text(&at("link")).unwrap(), "words");
        assert_eq!(file(&at("file"), 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        for (path, told) in
            [(at("fifo"), "a FIFO"), (dir.path().into(), "a directory"), ("/dev/zero".into(), "a device")]
        {
            assert_eq!(text(&path).unwrap_err().to_string(), format!("{told} instead of a file"));
        }
        std::fs::write(at("file"), [0xff]).unwrap();
        assert_eq!(text(&at("file")).unwrap_err().to_string(), "it is not UTF-8");
        assert_eq!(text(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
