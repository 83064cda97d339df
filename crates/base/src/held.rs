//! A file whose content stays what it was when the lab opened it, although a build may replace the file meanwhile. The content is
//! read where somebody needs it: of an agent of ten megabytes most runs need the checksum alone, which [`Facts`] keeps.

use crate::{
    facts::{Facts, Stamp},
    hex::hex,
};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// An opened file. Copies share the content.
#[derive(Clone)]
pub struct HeldFile {
    path: PathBuf,
    opened: Option<Arc<(File, Stamp)>>,
    bytes: Arc<OnceLock<Vec<u8>>>,
}

impl HeldFile {
    /// Opens the file.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let file = File::open(&path)?;
        let stamp = Stamp::of_file(&file)?;
        Ok(Self { path, opened: Some(Arc::new((file, stamp))), bytes: Arc::default() })
    }

    /// One with this content, whatever is at the path.
    pub fn of_bytes(path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), opened: None, bytes: Arc::new(OnceLock::from(bytes.into())) }
    }

    /// Its path. Another file may be there now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its content.
    ///
    /// # Errors
    /// It can't be read, or was written to after it had been opened.
    pub fn bytes(&self) -> io::Result<&[u8]> {
        if let Some(bytes) = self.bytes.get() {
            return Ok(bytes);
        }
        let bytes = match self.opened.as_deref() {
            Some((file, stamp)) => read(file, stamp)?,
            None => Vec::new(),
        };
        Ok(self.bytes.get_or_init(|| bytes))
    }

    /// SHA-256 of its content, hexadecimal, as it is kept in a cache.
    ///
    /// # Errors
    /// As [`HeldFile::bytes`].
    pub fn sha256(&self, facts: &Facts) -> io::Result<String> {
        let digest = || Ok(hex(&Sha256::digest(self.bytes()?)));
        let is_there = || {
            let opened = self.opened.as_deref();
            opened.is_some_and(|(_, stamp)| Stamp::of(&self.path).is_ok_and(|it| it.is_same_content(stamp)))
        };
        if is_there() {
            let kept = facts.of_files("SHA-256", &[&self.path], digest)?;
            // A fact is about the file at the path, which is another one after a build.
            if is_there() {
                return Ok(kept);
            }
        }
        digest()
    }
}

/// Reads the whole file by positions: kernels are prepared side by side, and the descriptor's own position is one for all of them.
fn read(file: &File, stamp: &Stamp) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(stamp.length).map_err(io::Error::other)?];
    let whole = file.read_exact_at(&mut bytes, 0);
    if !Stamp::of_file(file)?.is_same_content(stamp) {
        return Err(io::Error::other("it was changed while it was in use; start again"));
    }
    whole.map(|()| bytes)
}

impl fmt::Debug for HeldFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_is_replaced_keeps_its_content_and_its_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let (path, newer) = (dir.path().join("agent"), dir.path().join("newer"));
        let facts = Facts::below(dir.path());
        fs::write(&path, "one").unwrap();
        let held = HeldFile::open(&path).unwrap();
        let sum = held.sha256(&facts).unwrap();
        let again = HeldFile::open(&path).unwrap();
        fs::write(&newer, "two").unwrap();
        fs::hard_link(&path, dir.path().join("link")).unwrap();
        fs::rename(&newer, &path).unwrap();
        assert_eq!(again.sha256(&facts).unwrap(), sum);
        assert_eq!((held.bytes().unwrap(), again.bytes().unwrap()), (&b"one"[..], &b"one"[..]));
        let other = HeldFile::open(&path).unwrap();
        assert_ne!(other.sha256(&facts).unwrap(), sum);
        assert_eq!(HeldFile::of_bytes(&path, "one").sha256(&facts).unwrap(), sum, "nothing is kept of it");
    }

    #[test]
    fn threads_that_read_it_at_the_same_time_all_get_it_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let content: Vec<u8> = (0..1 << 20).map(|number: u32| number.to_le_bytes()[number as usize % 3]).collect();
        fs::write(&path, &content).unwrap();
        for _ in 0..20 {
            let held = HeldFile::open(&path).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| assert!(held.bytes().unwrap() == content));
                }
            });
        }
    }

    #[test]
    fn a_file_that_is_written_to_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        fs::write(&path, "one").unwrap();
        let held = HeldFile::open(&path).unwrap();
        fs::write(&path, "another length").unwrap();
        let error = held.bytes().unwrap_err().to_string();
        assert!(error.contains("changed while it was in use"), "{error}");
        assert!(held.sha256(&Facts::below(dir.path())).is_err());
    }
}
