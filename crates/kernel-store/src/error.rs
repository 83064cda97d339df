//! Errors of resolving and fetching kernels, with their fixes.

use super::class::KernelClass;
use lab_base::{file::FileError, process::ProcessError, strict_toml::ConfigError};
use lab_protocol::KernelVersion;
use std::{io, path::PathBuf};

pub type Result<T> = std::result::Result<T, KernelsError>;

/// Each error is one line with file, key or kernel, and the fix.
#[derive(Debug, thiserror::Error)]
pub enum KernelsError {
    /// `kernels.toml` or `kernels.lock` is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A pattern of the command line is not a glob.
    #[error("`{pattern}` is not a pattern for kernel ids: {reason}")]
    BadPattern {
        pattern: String,
        /// Error of the glob parser.
        reason: String,
    },
    /// A pattern of the command line matches no kernel.
    #[error("no kernel matches `{pattern}`{hint}")]
    NoMatch {
        pattern: String,
        /// The most similar id, or all ids.
        hint: String,
    },
    /// Patterns and classes together select nothing.
    #[error("no kernel is left after --kernel and --class: {hint}")]
    NothingSelected {
        /// Advice how to select a kernel.
        hint: String,
    },
    /// An error of one kernel of the matrix.
    #[error("kernel {id}: {error}")]
    Kernel {
        id: String,
        /// The error; part of the message, therefore not a `source`.
        error: Box<KernelsError>,
    },
    /// The kernel has never been resolved.
    #[error("not in kernels.lock: run `lab kernels update`")]
    Unlocked,
    /// `kernels.toml` was changed after the lock was written.
    #[error("kernels.lock has {locked}, but kernels.toml has {wanted}: run `lab kernels update`")]
    StaleLock {
        /// The source in the lock.
        locked: String,
        /// The source in the configuration.
        wanted: String,
    },
    /// The archive no longer contains the locked version.
    #[error("{suite} no longer has {package} {version}; it now has {available}: run `lab kernels update`")]
    Vanished {
        package: String,
        version: String,
        /// Suite that was searched.
        suite: String,
        /// The versions that match the configuration's pattern now.
        available: String,
    },
    /// The package depends on another one, which the archive no longer contains.
    #[error("{package} needs {part}, which {suite} no longer has: use another version in kernels.toml")]
    Incomplete {
        /// The package that was resolved.
        package: String,
        /// The missing package.
        part: String,
        /// Suite that was searched.
        suite: String,
    },
    /// No package of the suite matches the pattern.
    #[error("no package matches `{pattern}` in {suite}{nearest}: fix `package` or `suite` in kernels.toml")]
    NoPackage {
        pattern: String,
        /// Suite that was searched.
        suite: String,
        /// Similar package names.
        nearest: String,
    },
    /// No package of an RPM repository has the name and the version.
    #[error(
        "no build of `{package}` is of version `{version}` in {repository}{nearest}: fix `package` or `version` in kernels.toml"
    )]
    NoBuild {
        package: String,
        /// Pattern.
        version: String,
        /// Its address.
        repository: String,
        /// What there is.
        nearest: String,
    },
    /// A suite's index is older than its `Valid-Until`: the mirror is no longer updated, or an attacker replays an old
    /// index.
    #[error("the index of {suite} is too old ({detail}): use another mirror, or allow it by {waiver} in kernels.toml")]
    Expired {
        suite: String,
        /// Message of apt.
        detail: String,
        /// The key that accepts it.
        waiver: String,
    },
    /// The version does not belong to the class.
    #[error("version {version} is not of class {class} ({})", .class.rule())]
    WrongClass {
        /// The version found.
        version: KernelVersion,
        /// The class in `kernels.toml`.
        class: KernelClass,
    },
    /// Neither the configuration nor the host names a mirror.
    #[error("this host's apt has no {archive} mirror: set `{key}` under [debian] in kernels.toml, or {variable}")]
    NoMirror {
        /// "Debian" or "Debian security".
        archive: &'static str,
        /// Key of `kernels.toml`.
        key: &'static str,
        /// Environment variable that overrides it.
        variable: &'static str,
    },
    /// The address of a mirror is invalid.
    #[error("`{mirror}` (from {origin}) is not a mirror's address: expected scheme://host/path without spaces")]
    BadMirror {
        mirror: String,
        /// Key or variable with the address.
        origin: &'static str,
    },
    /// A required program is not installed.
    #[error("{program} is not installed: install the package {package}")]
    MissingProgram {
        program: String,
        /// Debian package or PyPI project that contains it.
        package: &'static str,
    },
    /// Programs or headers that a build needs are not installed.
    #[error("building a kernel needs {tools}: run `lab setup --builds`, or `apt-get install {packages}`")]
    MissingTools {
        tools: String,
        /// Debian packages that contain them.
        packages: String,
    },
    /// The kernel is not built by the lab.
    #[error("kernel {id} is fetched, not built: run `lab kernels fetch --kernel {id}`")]
    NotBuilt { id: String },
    /// The kernel is not built from packaged sources.
    #[error(
        "kernel {id} is not built from packaged sources: select a kernel with `source.linux-source` in kernels.toml"
    )]
    NotSources { id: String },
    /// Neither a tree nor a package has the kernel's selftests.
    #[error("{origin} has no packaged sources: name a kernel tree with --tree, or another kernel with --source-of")]
    NoSelftests { origin: String },
    /// The archive no longer has the sources of a kernel's version.
    #[error(
        "{suite} has no {package} {version}; it has {available}: name a kernel tree with --tree, or another kernel with --source-of"
    )]
    NoSources {
        package: String,
        version: String,
        /// Suite that was searched.
        suite: String,
        /// What it has instead.
        available: String,
    },
    /// A program failed.
    #[error("{what} failed: {detail}")]
    Program {
        /// The step, with the program's name.
        what: String,
        /// Exit status and the last lines of the program's output.
        detail: String,
    },
    /// The mirror, or what is between it and this machine, fails.
    #[error("{what} failed: {why} ({detail})")]
    Mirror {
        /// The step, with the program's name.
        what: String,
        /// What is wrong, and what to do.
        why: &'static str,
        /// The last lines of the program's output.
        detail: String,
    },
    /// The cache can't be written to.
    #[error("{} can't be written to ({error}): change that, or set NETKIT_LAB_CACHE to another directory", .path.display())]
    Unwritable {
        /// Its directory.
        path: PathBuf,
        /// The system error; part of the message, therefore not a `source`.
        error: io::Error,
    },
    /// A signal ended a build or a download.
    #[error("{what} was stopped")]
    Interrupted { what: String },
    /// A downloaded file differs from the locked one.
    #[error("{what} has sha256 {found}, but kernels.lock has {locked}: fetch again, or run `lab kernels update`")]
    Checksum {
        what: String,
        /// Its hash.
        found: String,
        /// The locked hash.
        locked: String,
    },
    /// A downloaded or stored file differs from what names it.
    #[error(
        "{what} is {found}, but {wanted} was expected: it has changed or is damaged; fetch again, or run `lab kernels update`"
    )]
    Digest {
        what: String,
        /// Its checksum.
        found: String,
        /// That of the lock, or of the index that names the file.
        wanted: String,
    },
    /// The index of a repository is damaged or hostile.
    #[error("{index}: {reason}: use another mirror, or correct the source in kernels.toml")]
    BadIndex {
        /// The file and its repository.
        index: String,
        reason: String,
    },
    /// The index has an older package than the lock.
    #[error(
        "kernel {kernel}: the mirror has {found}, which is older than {known}: it lags, or replays an old index; choose \
         another mirror, or remove the entry from kernels.lock to take it"
    )]
    Replayed { kernel: String, known: String, found: String },
    /// A package's archive is damaged, or contains a path outside of its directory.
    #[error("{archive}: {reason}: nothing was unpacked")]
    Archive {
        archive: String,
        /// The reason.
        reason: String,
    },
    /// A list of what an archive offers lacks something.
    #[error("{archive}: {what}")]
    NoLadder {
        archive: String,
        /// What is missing, and how to name it.
        what: &'static str,
    },
    /// A kernel image or tree is unusable.
    #[error("{}: {reason}", .path.display())]
    BadKernel {
        path: PathBuf,
        /// The problem and the fix.
        reason: String,
    },
    /// The file system of the cache is full.
    #[error("{} has too little space{need}: free some, or set NETKIT_LAB_CACHE to a larger disk", .path.display())]
    NoSpace {
        /// Directory that was written to.
        path: PathBuf,
        /// " (N MiB free, M MiB needed)" if known.
        need: String,
    },
    /// There is no cache directory.
    #[error(transparent)]
    NoCache(#[from] lab_base::paths::NoCacheDir),
    /// The cache's path depends on the working directory.
    #[error("{} cannot be the cache: set NETKIT_LAB_CACHE to an absolute path", .path.display())]
    BadCache {
        /// The path.
        path: PathBuf,
    },
    /// Other users can write to the cache.
    #[error(transparent)]
    Untrusted(#[from] lab_guard::private::Untrusted),
    /// A file operation failed.
    #[error("{}: {error}", .path.display())]
    Io {
        path: PathBuf,
        /// The system error; part of the message, therefore not a `source`.
        error: io::Error,
    },
}

impl From<FileError> for KernelsError {
    fn from(FileError { path, cause, .. }: FileError) -> Self {
        Self::io(path)(cause)
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
    /// Whether the archive no longer contains the kernel; other kernels are not affected.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Kernel { error, .. } => error.is_gone(),
            Self::NoPackage { .. } | Self::NoBuild { .. } | Self::Incomplete { .. } => true,
            _ => false,
        }
    }

    /// Whether a signal ended the operation.
    pub fn is_interruption(&self) -> bool {
        match self {
            Self::Kernel { error, .. } => error.is_interruption(),
            Self::Interrupted { .. } => true,
            _ => false,
        }
    }

    /// Whether the command line or the configuration is wrong (exit code 2), and not the host, the network or the
    /// archive (exit code 3).
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Kernel { error, .. } => error.is_usage(),
            Self::Config(_)
            | Self::BadPattern { .. }
            | Self::Unlocked
            | Self::StaleLock { .. }
            | Self::NoPackage { .. }
            | Self::NoBuild { .. }
            | Self::Incomplete { .. }
            | Self::WrongClass { .. }
            | Self::NoMirror { .. }
            | Self::BadMirror { .. }
            | Self::BadKernel { .. }
            | Self::NoCache(_)
            | Self::BadCache { .. }
            | Self::NotBuilt { .. }
            | Self::NotSources { .. }
            | Self::NoLadder { .. }
            | Self::NoSelftests { .. } => true,
            Self::NoMatch { .. }
            | Self::NothingSelected { .. }
            | Self::Expired { .. }
            | Self::Vanished { .. }
            | Self::NoSources { .. }
            | Self::MissingProgram { .. }
            | Self::MissingTools { .. }
            | Self::Program { .. }
            | Self::Mirror { .. }
            | Self::Unwritable { .. }
            | Self::Interrupted { .. }
            | Self::Checksum { .. }
            | Self::Digest { .. }
            | Self::BadIndex { .. }
            | Self::Archive { .. }
            | Self::Replayed { .. }
            | Self::NoSpace { .. }
            | Self::Untrusted(_)
            | Self::Io { .. } => false,
        }
    }

    /// Whether the selection is empty (exit code 4).
    pub fn is_empty_selection(&self) -> bool {
        matches!(self, Self::NoMatch { .. } | Self::NothingSelected { .. })
    }

    /// Adds the kernel to the error.
    pub(super) fn of(self, id: &str) -> Self {
        Self::Kernel { id: id.to_owned(), error: Box::new(self) }
    }

    /// An I/O error at a path; a full disk is a separate error.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path, need: String::new() },
            _ => Self::Io { path, error },
        }
    }
}
