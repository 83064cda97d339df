//! Limits of what a guest may write to a directory of the host.

use nix::errno::Errno;

/// What a guest may add to a writable directory. Exceeding it is `ENOSPC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteBudget {
    /// Bytes by which files may grow.
    pub bytes: u64,
    /// OpenFiles, directories and links that may be made.
    pub files: u64,
}

impl WriteBudget {
    /// 8 GiB and 200 000 files.
    pub const USUAL: Self = Self { bytes: 8 << 30, files: 200_000 };

    /// Takes the growth of a file from `old` to `new` bytes, and gives back what is cut off.
    pub(crate) fn resize(&mut self, old: u64, new: u64) -> Result<(), Errno> {
        if new >= old {
            self.bytes = self.bytes.checked_sub(new - old).ok_or(Errno::ENOSPC)?;
        } else {
            self.bytes = self.bytes.saturating_add(old - new);
        }
        Ok(())
    }

    /// Takes a file.
    pub(crate) fn make(&mut self) -> Result<(), Errno> {
        self.files = self.files.checked_sub(1).ok_or(Errno::ENOSPC)?;
        Ok(())
    }

    /// Gives back a file of this size.
    pub(crate) fn remove(&mut self, size: u64) {
        self.files = self.files.saturating_add(1);
        self.bytes = self.bytes.saturating_add(size);
    }
}

impl Default for WriteBudget {
    fn default() -> Self {
        Self::USUAL
    }
}
