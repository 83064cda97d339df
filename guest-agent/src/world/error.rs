//! Why a world can't be made.

use nix::errno::Errno;
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Why a world can't be made.
#[derive(Debug)]
pub enum WorldError {
    /// Something can't be mounted.
    Mount {
        /// What.
        what: String,
        /// Where.
        at: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A file or directory can't be used.
    Io {
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// A path contains a zero byte.
    Nul {
        /// The path.
        path: PathBuf,
    },
}

impl WorldError {
    pub(super) fn mount(what: impl Into<String>, at: &Path) -> impl FnOnce(Errno) -> Self {
        let (what, at) = (what.into(), at.to_owned());
        move |errno| Self::Mount { what, at, errno }
    }

    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }
}

impl std::error::Error for WorldError {}

impl fmt::Display for WorldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount { what, at, errno } => write!(f, "cannot mount {what} on {}: {errno}", at.display()),
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Nul { path } => write!(f, "the path `{}` contains a zero byte", path.display()),
        }
    }
}
