//! Files that must not change: how one is recognised, cheaply and for certain.

use nix::{
    fcntl::{FallocateFlags, fallocate},
    unistd::{Whence, lseek64},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

/// What tells that a file is still the one that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub length: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Reads it off the file.
    pub fn of(path: &Path) -> io::Result<Self> {
        let it = fs::metadata(path)?;
        Ok(Self {
            length: it.len(),
            inode: it.ino(),
            modified: (it.mtime(), it.mtime_nsec()),
            changed: (it.ctime(), it.ctime_nsec()),
        })
    }
}

/// A file's stamp and what its bytes add up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Cheap to compare.
    pub stamp: Stamp,
    /// What counts.
    pub crc32: u32,
}

/// Reads a file through and seals it.
///
/// # Errors
/// The file can't be read.
pub fn seal(path: &Path) -> io::Result<Sealed> {
    let mut hasher = crc32fast::Hasher::new();
    read_through(path, |bytes| hasher.update(bytes))?;
    Ok(Sealed { stamp: Stamp::of(path)?, crc32: hasher.finalize() })
}

/// Gives a file's bytes in pieces.
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

/// Gives the disk back what the guest never touched.
///
/// # Errors
/// The file system can't.
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

/// Tells one boot of the host from the next: what was written before a crash may not be on the disk.
///
/// # Errors
/// `/proc` can't be read.
pub fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
}
