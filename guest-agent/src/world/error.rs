//! Why a world can't be made.

use lab_harness::TopologyError;
use nix::errno::Errno;
use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Why a world can't be made.
#[derive(Debug)]
pub enum MountError {
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
    /// The kernel has no FUSE.
    NoFuse(io::Error),
    /// The kernel has no overlay file system.
    NoOverlay,
    /// A limit of resources can't be set.
    Limit {
        /// The kernel's answer.
        errno: Errno,
    },
    /// The loopback device can't be set up.
    Loopback {
        /// The kernel's answer.
        errno: Errno,
    },
    /// A path in the root can't be made or opened.
    InRoot {
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A service of the host can't be offered.
    Service {
        /// Where in the guest.
        address: SocketAddr,
        /// The system's answer.
        error: io::Error,
    },
    /// The machine's network device has no driver.
    Driver {
        /// The module.
        name: &'static str,
        /// Why it can't be loaded.
        error: io::Error,
    },
    /// The machine has no network device.
    NoUplink,
    /// The machine's network device can't be set up.
    Uplink(TopologyError),
    /// The kernel refuses a module of the user's own.
    Module {
        /// Its file's name.
        name: String,
        /// The kernel's answer; more may be in its log.
        error: io::Error,
    },
    /// A path contains a zero byte.
    Nul {
        /// The path.
        path: PathBuf,
    },
}

impl MountError {
    pub(super) fn mount(what: impl Into<String>, at: &Path) -> impl FnOnce(Errno) -> Self {
        let (what, at) = (what.into(), at.to_owned());
        move |errno| Self::Mount { what, at, errno }
    }

    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }
}

impl std::error::Error for MountError {}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount { what, at, errno } => write!(f, "cannot mount {what} on {}: {errno}", at.display()),
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
            Self::NoFuse(error) => write!(
                f,
                "/dev/fuse: {error}; the files of a root need a kernel with FUSE (CONFIG_FUSE_FS) and overlayfs (CONFIG_OVERLAY_FS)"
            ),
            Self::NoOverlay => {
                write!(f, "the kernel has no overlay file system, which a root needs (CONFIG_OVERLAY_FS)")
            }
            Self::Limit { errno } => write!(f, "limits of resources can't be set: {errno}"),
            Self::Loopback { errno } => write!(f, "the loopback device can't be set up: {errno}"),
            Self::InRoot { path, errno } => write!(f, "{} in the root: {errno}", path.display()),
            Self::Service { address, error } => {
                write!(f, "{address}, where a service of the host is to be in the guest: {error}")
            }
            Self::Driver { name, error } => {
                write!(f, "the network device of --net pasta needs the module {name} (CONFIG_VIRTIO_NET): {error}")
            }
            Self::NoUplink => write!(f, "the machine has no network device that the kernel's driver takes"),
            Self::Uplink(error) => write!(f, "the network device of --net pasta: {error}"),
            Self::Module { name, error } => write!(
                f,
                "the kernel refuses the module {name}: {error} (its log says more; a module is built for one release of one kernel)"
            ),
            Self::Nul { path } => write!(f, "the path `{}` contains a zero byte", path.display()),
        }
    }
}
