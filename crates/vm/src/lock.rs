//! Lock files that are removed when the lock is released.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Holds the lock until it is dropped, which removes the file.
#[derive(Debug)]
pub struct SnapshotLock {
    path: PathBuf,
    _file: File,
}

impl SnapshotLock {
    /// Takes the lock; returns `None` if another process holds it.
    ///
    /// # Errors
    /// The file can't be created.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = File::options().create(true).append(true).open(path)?;
            match file.try_lock() {
                // The previous holder may have removed the file after it was opened: a lock on a removed file excludes
                // nobody.
                Ok(()) if is_at(&file, path)? => return Ok(Some(Self { path: path.to_owned(), _file: file })),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

impl Drop for SnapshotLock {
    fn drop(&mut self) {
        // Removed while the lock is held, so that no other process can hold it.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        thread,
    };

    #[test]
    fn the_lock_is_exclusive_although_its_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let (inside, had) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        if let Some(lock) = SnapshotLock::try_take(&path).unwrap() {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            had.fetch_add(1, Ordering::SeqCst);
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(lock);
                        }
                    }
                });
            }
        });
        assert!(had.into_inner() > 0 && !path.exists());
    }
}
