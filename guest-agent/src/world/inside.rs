//! Paths inside of a root that is mounted: symbolic links, also absolute ones, stay in it.

use super::MountError;
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{Mode, mkdirat},
};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

/// A root, for paths in it.
#[derive(Debug)]
pub struct InRoot {
    root: OwnedFd,
    at: PathBuf,
}

impl InRoot {
    /// The root that is mounted here.
    pub fn of(at: &Path) -> Result<Self, MountError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = nix::fcntl::open(at, flags, Mode::empty()).map_err(|errno| MountError::io(at)(errno.into()))?;
        Ok(Self { root, at: at.to_owned() })
    }

    pub(super) fn open(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        openat2(&self.root, path, how)
    }

    fn failed(&self, path: &Path) -> impl FnOnce(Errno) -> MountError {
        let path = path.to_owned();
        move |errno| MountError::InRoot { path, errno }
    }

    /// Whether a path exists.
    pub fn has(&self, path: &Path) -> bool {
        self.open(path, OFlag::O_PATH).is_ok()
    }

    /// A directory, made where it does not exist.
    pub fn directory(&self, path: &Path) -> Result<OwnedFd, MountError> {
        let mut at = PathBuf::from("/");
        let place = OFlag::O_PATH | OFlag::O_DIRECTORY;
        // Most are there.
        if let Ok(found) = self.open(path, place) {
            return Ok(found);
        }
        let mut opened = self.open(&at, place).map_err(self.failed(&at))?;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            at.push(name);
            opened = match self.open(&at, place) {
                Ok(opened) => opened,
                Err(Errno::ENOENT) => {
                    mkdirat(&opened, name, Mode::from_bits_truncate(0o755)).map_err(self.failed(&at))?;
                    self.open(&at, place).map_err(self.failed(&at))?
                }
                Err(errno) => return Err(self.failed(&at)(errno)),
            };
        }
        Ok(opened)
    }

    /// A directory as a path at which something can be mounted.
    pub fn mount_point(&self, path: &Path) -> Result<MountPoint, MountError> {
        self.directory(path).map(MountPoint)
    }

    /// A file as a path at which another can be mounted; an empty one is made where there is none.
    pub fn file_point(&self, path: &Path) -> Result<MountPoint, MountError> {
        if let Ok(found) = self.open(path, OFlag::O_PATH) {
            return Ok(MountPoint(found));
        }
        self.write(path, b"")?;
        self.open(path, OFlag::O_PATH).map(MountPoint).map_err(self.failed(path))
    }

    /// The content of a small file, if there is one.
    pub fn read(&self, path: &str) -> Option<String> {
        let file = self.open(Path::new(path), OFlag::O_RDONLY).ok()?;
        std::io::read_to_string(File::from(file)).ok()
    }

    /// Writes a file in place of what is there; a link is not followed.
    pub fn write(&self, path: &Path, content: &[u8]) -> Result<(), MountError> {
        // It must stay open as long as its path is used.
        let dir = self.mount_point(path.parent().unwrap_or(Path::new("/")))?;
        let name: &OsStr = path.file_name().unwrap_or_default();
        let place = dir.path().join(name);
        match fs::remove_file(&place) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(MountError::io(&self.shown(path))(error));
            }
            _ => {}
        }
        let written = File::create_new(&place).and_then(|mut file| file.write_all(content));
        written.map_err(MountError::io(&self.shown(path)))
    }

    fn shown(&self, path: &Path) -> PathBuf {
        self.at.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Something that was found in a root.
#[derive(Debug)]
pub struct MountPoint(OwnedFd);

impl MountPoint {
    /// A path that leads to it, whatever lies on the way, as long as this value lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_fd().as_raw_fd()))
    }
}
