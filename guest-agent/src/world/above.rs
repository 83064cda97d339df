//! The layer above a root, before both are mounted as one. What is made through the mount takes the kernel copies, whiteouts and
//! renames of every directory on the way.

use super::{MountError, inside::InRoot};
use nix::{errno::Errno, fcntl::OFlag};
use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

/// A root, and the empty directory that becomes the layer above it.
#[derive(Debug)]
pub struct LayerAbove {
    lower: PathBuf,
    root: InRoot,
    upper: PathBuf,
}

impl LayerAbove {
    /// The layer `upper` above the root at `lower`.
    ///
    /// # Errors
    /// There is no such root.
    pub fn of(lower: &Path, upper: &Path) -> Result<Self, MountError> {
        Ok(Self { lower: lower.to_owned(), root: InRoot::of(lower)?, upper: upper.to_owned() })
    }

    /// The root.
    pub fn root(&self) -> &InRoot {
        &self.root
    }

    /// The directory at a path of the root, made in the layer with those above it; symbolic links of the root are followed in it. What
    /// the root has is merged with it, and has the same owner and mode.
    ///
    /// # Errors
    /// Something on the way is not a directory, or can't be made.
    pub fn directory(&self, path: &Path) -> Result<PathBuf, MountError> {
        let failed = |errno: Errno| MountError::InRoot { path: path.to_owned(), errno };
        let place = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let mut known = path;
        let found = loop {
            match self.root.open(known, place) {
                Ok(found) => break found,
                Err(Errno::ENOENT) => known = known.parent().ok_or_else(|| failed(Errno::ENOENT))?,
                Err(errno) => return Err(failed(errno)),
            }
        };
        let real = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(MountError::io(path))?;
        let inside = real.strip_prefix(&self.lower).map_err(|_| failed(Errno::EXDEV))?;
        let (mut like, mut at) = (self.lower.clone(), self.upper.clone());
        for name in inside {
            like.push(name);
            at.push(name);
            if made(&at)? {
                let alike = fs::symlink_metadata(&like).and_then(|found| {
                    chown(&at, Some(found.uid()), Some(found.gid()))?;
                    fs::set_permissions(&at, Permissions::from_mode(found.mode() & 0o7777))
                });
                alike.map_err(MountError::io(&at))?;
            }
        }
        for name in path.strip_prefix(known).unwrap_or(Path::new("")) {
            at.push(name);
            made(&at)?;
        }
        Ok(at)
    }

    /// A file of the root, in place of what it has there.
    ///
    /// # Errors
    /// As of [`Self::directory`].
    pub fn write(&self, path: &Path, content: &[u8]) -> Result<(), MountError> {
        let directory = self.directory(path.parent().unwrap_or(Path::new("/")))?;
        let at = directory.join(path.file_name().unwrap_or_default());
        File::create(&at).and_then(|mut file| file.write_all(content)).map_err(MountError::io(&at))
    }
}

/// Makes a directory; false if it was there.
fn made(at: &Path) -> Result<bool, MountError> {
    match DirBuilder::new().mode(0o755).create(at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(MountError::io(at)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn directories_are_made_where_the_links_of_the_root_lead() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (lower, upper) = (dir.join("lower"), dir.join("upper"));
        fs::create_dir_all(lower.join("usr/lib")).unwrap();
        fs::create_dir_all(lower.join("etc")).unwrap();
        fs::create_dir(&upper).unwrap();
        fs::set_permissions(lower.join("etc"), Permissions::from_mode(0o750)).unwrap();
        symlink("usr/lib", lower.join("lib")).unwrap();
        symlink("/usr", lower.join("absolute")).unwrap();
        fs::write(lower.join("file"), "").unwrap();
        let layer = LayerAbove::of(&lower, &upper).unwrap();
        assert_eq!(layer.directory(Path::new("/lib/modules/6.12")).unwrap(), upper.join("usr/lib/modules/6.12"));
        assert_eq!(layer.directory(Path::new("/absolute/lib")).unwrap(), upper.join("usr/lib"));
        assert_eq!(layer.directory(Path::new("/")).unwrap(), upper);
        layer.write(Path::new("/etc/hosts"), b"one").unwrap();
        layer.write(Path::new("/etc/hosts"), b"two").unwrap();
        assert_eq!(fs::read(upper.join("etc/hosts")).unwrap(), b"two");
        assert_eq!(fs::metadata(upper.join("etc")).unwrap().mode() & 0o777, 0o750, "as in the root");
        assert!(!upper.join("lib").exists() && !lower.join("usr/lib/modules").exists());
        assert!(layer.directory(Path::new("/file/x")).is_err() && layer.directory(Path::new("/file")).is_err());
    }
}
