//! Detects changed files, by a cheap stamp and by a checksum.

pub use lab_base::facts::{Stamp, boot_id};
use nix::{
    fcntl::{FallocateFlags, fallocate},
    unistd::{Whence, lseek64},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// A file's stamp and checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Compared first, because it is cheap.
    pub stamp: Stamp,
    /// Decides if the stamp differs.
    pub crc32: u32,
}

/// Reads a whole file and computes its stamp and checksum.
///
/// # Errors
/// The file can't be read.
pub fn seal(path: &Path) -> io::Result<Sealed> {
    let mut hasher = crc32fast::Hasher::new();
    read_through(path, |bytes| hasher.update(bytes))?;
    Ok(Sealed { stamp: Stamp::of(path)?, crc32: hasher.finalize() })
}

/// Passes a file's content to `take` in pieces.
///
/// # Errors
/// The file can't be read.
pub fn read_through(path: &Path, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            count => take(&buffer[..count]),
        }
    }
}

/// Punches holes for pages that the guest never used.
///
/// # Errors
/// The file system does not support it.
pub fn give_back_holes(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let end = i64::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut at = 0;
    while at < end {
        let hole = lseek64(&file, at, Whence::SeekHole)?;
        let data = match lseek64(&file, hole, Whence::SeekData) {
            Ok(data) => data,
            Err(nix::Error::ENXIO) => end,
            Err(error) => return Err(error.into()),
        };
        if data > hole {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(&file, flags, hole, data - hole)?;
        }
        at = data;
    }
    Ok(())
}
