//! The files of a kernel, and its identity: a hash of them.

use super::{
    cache::{hex, sha256_of},
    error::{KernelsError, Result},
};
use sha2::{Digest, Sha256};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Links in a modules directory to whole kernel trees, created by `make modules_install` and headers packages.
const TREES: [&str; 2] = ["build", "source"];

/// The files of a modules directory, sorted by their path in it. Links are followed, because some distributions
/// only install links; `build` and `source` are left out.
///
/// # Errors
/// The directory can't be read, or it contains a broken or circular link.
pub(super) fn of_modules(dir: &Path) -> Result<Vec<PathBuf>> {
    let inside = |path: &Path| path.strip_prefix(dir).map(Path::to_owned).unwrap_or_default();
    let tree = |path: &Path| TREES.iter().any(|name| inside(path) == Path::new(name));
    let walk = walkdir::WalkDir::new(dir).follow_links(true).sort_by_file_name().into_iter();
    let mut files = Vec::new();
    for entry in walk.filter_entry(|entry| !tree(entry.path())) {
        match entry {
            Ok(entry) if entry.file_type().is_file() => files.push(inside(entry.path())),
            Ok(_) => {}
            // A link to a tree that is not installed on this host.
            Err(error) if error.path().is_some_and(tree) => {}
            Err(error) => {
                let path = error.path().unwrap_or(dir).to_owned();
                if path.is_symlink() {
                    let reason = "is a broken or circular link: install the modules again".to_owned();
                    return Err(KernelsError::BadKernel { path, reason });
                }
                return Err(KernelsError::io(path)(io::Error::from(error)));
            }
        }
    }
    Ok(files)
}

/// Computes an identity. The length of every part is hashed before the part, so that different lists of parts have
/// different hashes.
#[derive(Default)]
pub(super) struct Identity(Sha256);

impl Identity {
    /// Adds bytes.
    pub fn add(&mut self, part: impl AsRef<[u8]>) -> &mut Self {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    /// Adds a file's bytes.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn content(&mut self, path: &Path) -> Result<&mut Self> {
        Ok(self.add(sha256_of(path)?))
    }

    /// Adds every file of a modules directory by its path in it and its bytes.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn modules(&mut self, dir: &Path) -> Result<&mut Self> {
        for file in of_modules(dir)? {
            self.add(file.as_os_str().as_encoded_bytes()).content(&dir.join(file))?;
        }
        Ok(self)
    }

    /// Adds data that changes whenever a file does, without reading the file: path, size, and both times. A program
    /// that sets the modification time (`cp -p`, rsync, a package manager) can't set the change time.
    ///
    /// # Errors
    /// The file does not exist.
    pub fn stamp(&mut self, path: &Path) -> Result<&mut Self> {
        let real = path.canonicalize().map_err(KernelsError::io(path))?;
        let meta = fs::metadata(&real).map_err(KernelsError::io(path))?;
        self.add(path.as_os_str().as_encoded_bytes()).add(real.as_os_str().as_encoded_bytes());
        for number in [meta.dev().cast_signed(), meta.ino().cast_signed(), meta.len().cast_signed()] {
            self.add(number.to_le_bytes());
        }
        for time in [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()] {
            self.add(time.to_le_bytes());
        }
        Ok(self)
    }

    /// The identity, hexadecimal.
    pub fn finish(self) -> String {
        hex(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::symlink, time::SystemTime};

    fn identity(dir: &Path) -> String {
        let mut identity = Identity::default();
        identity.modules(dir).unwrap();
        identity.finish()
    }

    #[test]
    fn compressed_and_linked_modules_are_hashed_by_content() {
        let dir = tempfile::tempdir().unwrap();
        let (modules, elsewhere) = (dir.path().join("m"), dir.path().join("elsewhere"));
        fs::create_dir_all(modules.join("kernel")).unwrap();
        fs::create_dir_all(elsewhere.join("net")).unwrap();
        symlink(&elsewhere, modules.join("linked")).unwrap();
        symlink("/", modules.join("source")).unwrap();
        symlink("/nonexistent", modules.join("build")).unwrap();
        let mut seen = vec![identity(&modules)];
        for suffix in ["ko", "ko.gz", "ko.xz", "ko.zst"] {
            for place in [modules.join("kernel"), elsewhere.join("net")] {
                for content in ["one", "two"] {
                    fs::write(place.join(format!("veth.{suffix}")), content).unwrap();
                    let now = identity(&modules);
                    assert!(!seen.contains(&now), "{suffix} {}", place.display());
                    seen.push(now);
                }
            }
        }
        assert!(of_modules(&modules).unwrap().contains(&"linked/net/veth.ko.xz".into()));
        symlink("/nonexistent", modules.join("kernel/lost.ko")).unwrap();
        let error = of_modules(&modules).unwrap_err().to_string();
        assert!(error.contains("m/kernel/lost.ko: is a broken or circular link"), "{error}");
    }

    #[test]
    fn a_changed_file_of_the_same_size_and_time_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("veth.ko");
        let write = |content: &str| {
            fs::write(&path, content).unwrap();
            fs::File::options().append(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
            let mut identity = Identity::default();
            identity.stamp(&path).unwrap();
            identity.finish()
        };
        assert_ne!(write("one"), write("two"));
    }
}
