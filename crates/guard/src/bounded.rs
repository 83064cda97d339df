//! Reads files that other programs extend, in pieces of limited size.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

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
}
