//! What can go wrong between `kernels.toml` and a kernel on disk, each with the way to mend it.

use super::class::Class;
use lab_base::{file::FileError, process::ProcessError, strict_toml::ConfigError};
use lab_protocol::KernelVersion;
use std::{io, path::PathBuf};

/// Result of this module.
pub type Result<T> = std::result::Result<T, KernelsError>;

/// One line for a person: file, key or kernel, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum KernelsError {
    /// `kernels.toml` or `kernels.lock` does not say what it must.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A pattern of the command line is not a glob.
    #[error("`{pattern}` is not a pattern for kernel ids: {reason}")]
    BadPattern {
        /// As typed.
        pattern: String,
        /// What the glob parser said.
        reason: String,
    },
    /// A pattern of the command line matches no kernel.
    #[error("no kernel matches `{pattern}`{hint}")]
    NoMatch {
        /// As typed.
        pattern: String,
        /// The nearest id, or all of them.
        hint: String,
    },
    /// Patterns and classes each match something, together nothing.
    #[error("no kernel is left after --kernel and --class: {hint}")]
    NothingSelected {
        /// What would widen the selection.
        hint: String,
    },
    /// An error that belongs to one kernel of the matrix.
    #[error("kernel {id}: {error}")]
    Kernel {
        /// The kernel's id.
        id: String,
        /// What went wrong; part of the message, hence not a `source`.
        error: Box<KernelsError>,
    },
    /// The kernel was never resolved.
    #[error("not in kernels.lock: run `lab kernels update`")]
    Unlocked,
    /// `kernels.toml` was edited after the lock was written.
    #[error("kernels.lock holds {locked}, kernels.toml wants {wanted}: run `lab kernels update`")]
    StaleLock {
        /// The lock's idea.
        locked: String,
        /// The configuration's idea.
        wanted: String,
    },
    /// The archive no longer carries the locked version.
    #[error("{package} {version} is gone from {suite}; it now has {available}: run `lab kernels update`")]
    Vanished {
        /// Locked package.
        package: String,
        /// Locked version.
        version: String,
        /// Suite that was searched.
        suite: String,
        /// The versions that match the configuration's pattern today.
        available: String,
    },
    /// A package whose files are in others, one of which the archive has dropped.
    #[error("{package} needs {part}, which {suite} has no more: name another version in kernels.toml")]
    Incomplete {
        /// The package that was resolved.
        package: String,
        /// What it needs.
        part: String,
        /// Suite that was searched.
        suite: String,
    },
    /// No package of the suite matches the pattern.
    #[error("no package matches `{pattern}` in {suite}{nearest}: mend `package` or `suite` in kernels.toml")]
    NoPackage {
        /// The configuration's pattern.
        pattern: String,
        /// Suite that was searched.
        suite: String,
        /// Some packages that come near.
        nearest: String,
    },
    /// A suite's index is past its `Valid-Until`: the mirror has stopped following it, or replays an old one.
    #[error(
        "the index of {suite} is too old ({detail}): use another mirror, or accept it by `stale.{suite} = \"reason\"` under [debian] in kernels.toml"
    )]
    Expired {
        /// The suite.
        suite: String,
        /// What apt said.
        detail: String,
    },
    /// The version belongs to another class.
    #[error("version {version} is not of class {class} ({})", .class.rule())]
    WrongClass {
        /// What was found.
        version: KernelVersion,
        /// What `kernels.toml` says.
        class: Class,
    },
    /// Neither configuration nor host names a mirror.
    #[error("this host's apt names no {archive} mirror: set `{key}` under [debian] in kernels.toml, or {variable}")]
    NoMirror {
        /// "Debian" or "Debian security".
        archive: &'static str,
        /// Key of `kernels.toml`.
        key: &'static str,
        /// Environment variable that overrides it.
        variable: &'static str,
    },
    /// A mirror's address that cannot stand in a sources file.
    #[error("`{mirror}` (from {origin}) is not a mirror's address: wanted scheme://host/path without spaces")]
    BadMirror {
        /// As given.
        mirror: String,
        /// Key or variable that gave it.
        origin: &'static str,
    },
    /// A program that this step needs is not installed.
    #[error("{program} is not installed: install the package {package}")]
    MissingProgram {
        /// Program that was looked for.
        program: String,
        /// Debian package (or PyPI project) that brings it.
        package: &'static str,
    },
    /// Programs or headers that a build needs are not installed.
    #[error("building a kernel needs {tools}: run `lab setup --builds`, or `apt-get install {packages}`")]
    MissingTools {
        /// What is missing.
        tools: String,
        /// Debian packages that bring it.
        packages: String,
    },
    /// A kernel that is not built, but fetched.
    #[error("kernel {id} is fetched, not built: run `lab kernels fetch --kernel {id}`")]
    NotBuilt {
        /// The kernel's id.
        id: String,
    },
    /// A kernel that comes as a binary.
    #[error("kernel {id} does not come as sources: name one with `source.linux-source` in kernels.toml")]
    NotSources {
        /// The kernel's id.
        id: String,
    },
    /// A program ran and failed.
    #[error("{what} failed: {detail}")]
    Program {
        /// The step, with the program's name.
        what: String,
        /// Exit status and the tail of what the program said.
        detail: String,
    },
    /// A signal ended a build or a download.
    #[error("{what} was stopped")]
    Interrupted {
        /// The step.
        what: String,
    },
    /// What was downloaded is not what was locked.
    #[error("{what} has sha256 {found}, kernels.lock says {locked}: fetch again, or run `lab kernels update`")]
    Checksum {
        /// The file.
        what: String,
        /// Its sum.
        found: String,
        /// The locked sum.
        locked: String,
    },
    /// A package's archive is damaged or tries to leave its directory.
    #[error("{archive}: {reason}: nothing was unpacked")]
    Archive {
        /// The file.
        archive: String,
        /// Why it was refused.
        reason: String,
    },
    /// A kernel image or tree that does not have what is needed.
    #[error("{}: {reason}", .path.display())]
    BadKernel {
        /// File or directory.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The cache's file system is full.
    #[error("{} has too little space{need}: free some, or set NETKIT_LAB_CACHE to a larger disk", .path.display())]
    NoSpace {
        /// Directory that was written to.
        path: PathBuf,
        /// " (N MiB free, M MiB needed)" where known.
        need: String,
    },
    /// No place for the cache.
    #[error(transparent)]
    NoCache(#[from] lab_base::paths::NoCacheDir),
    /// The cache's path has characters that apt's configuration or vng's command line cannot hold.
    #[error("{} cannot be the cache: set NETKIT_LAB_CACHE to an absolute path without blanks, quotes or semicolons", .path.display())]
    BadCache {
        /// The path.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("{}: {error}", .path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The system's words; part of the message, hence not a `source`.
        error: io::Error,
    },
}

impl From<FileError> for KernelsError {
    fn from(FileError { path, source, .. }: FileError) -> Self {
        Self::io(path)(source)
    }
}

impl From<ProcessError> for KernelsError {
    fn from(error: ProcessError) -> Self {
        match error {
            ProcessError::Missing { program, package } => Self::MissingProgram { program, package },
            ProcessError::Failed { what, detail } => Self::Program { what, detail },
            ProcessError::Interrupted { what } => Self::Interrupted { what },
        }
    }
}

impl KernelsError {
    /// Whether the archive no longer has what is asked for, though everything else is well.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Kernel { error, .. } => error.is_gone(),
            Self::NoPackage { .. } | Self::Incomplete { .. } => true,
            _ => false,
        }
    }

    /// Whether a signal ended it.
    pub fn is_interruption(&self) -> bool {
        match self {
            Self::Kernel { error, .. } => error.is_interruption(),
            Self::Interrupted { .. } => true,
            _ => false,
        }
    }

    /// True where usage or configuration is to be mended (exit code 2); false where no verdict was
    /// possible for reasons of the host, the network or the archive (exit code 3).
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Kernel { error, .. } => error.is_usage(),
            Self::Config(_)
            | Self::BadPattern { .. }
            | Self::Unlocked
            | Self::StaleLock { .. }
            | Self::NoPackage { .. }
            | Self::Incomplete { .. }
            | Self::WrongClass { .. }
            | Self::NoMirror { .. }
            | Self::BadMirror { .. }
            | Self::BadKernel { .. }
            | Self::NoCache(_)
            | Self::BadCache { .. }
            | Self::NotBuilt { .. }
            | Self::NotSources { .. } => true,
            Self::NoMatch { .. }
            | Self::NothingSelected { .. }
            | Self::Expired { .. }
            | Self::Vanished { .. }
            | Self::MissingProgram { .. }
            | Self::MissingTools { .. }
            | Self::Program { .. }
            | Self::Interrupted { .. }
            | Self::Checksum { .. }
            | Self::Archive { .. }
            | Self::NoSpace { .. }
            | Self::Io { .. } => false,
        }
    }

    /// True where the selection is empty (exit code 4).
    pub fn is_empty_selection(&self) -> bool {
        matches!(self, Self::NoMatch { .. } | Self::NothingSelected { .. })
    }

    /// Names the kernel that the error belongs to.
    pub(super) fn of(self, id: &str) -> Self {
        Self::Kernel { id: id.to_owned(), error: Box::new(self) }
    }

    /// An I/O error at a path; a full disk gets its own words.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path, need: String::new() },
            _ => Self::Io { path, error },
        }
    }
}
