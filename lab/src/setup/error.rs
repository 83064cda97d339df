//! Errors of setup, each with its fix.

use std::io;
use std::path::PathBuf;

/// Setup could not make this machine ready. These are all infrastructure errors, never verdicts on a kernel.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The cache directory cannot be determined.
    #[error(transparent)]
    Cache(#[from] lab_base::paths::NoCacheDir),

    /// A finding that only the user can fix.
    #[error("{name}: {found}; {advice}")]
    ByHand {
        /// The check's name.
        name: &'static str,
        /// What was found.
        found: String,
        /// What to do.
        advice: String,
    },

    /// Packages are missing and this user may not install any.
    #[error("packages are missing and this user can't install them (not root, no usable sudo); run: {command}")]
    NoPrivilege {
        /// The command that installs what is missing.
        command: String,
    },

    /// The updated package lists do not have a package.
    #[error(
        "apt offers no {packages}; enable the release's updates and security suites in the apt sources, \
         then repeat `make setup`"
    )]
    NoCandidate {
        /// The package names, comma separated.
        packages: String,
    },

    /// Packages conflict with installed ones.
    #[error(
        "installing {packages} would remove {removed} from this machine, and setup never removes packages: remove {removed} by \
         hand, or provide {packages} in another way (log: {})",
        log.display()
    )]
    WouldRemove {
        /// The package names, comma separated.
        packages: String,
        /// The installed packages that conflict, comma separated.
        removed: String,
        /// apt-get's output.
        log: PathBuf,
    },

    /// A command ran and failed.
    #[error("{what} failed: {last_line} (log: {})", log.display())]
    Failed {
        /// Label of the command.
        what: String,
        /// The most informative line of the output.
        last_line: String,
        /// The file with the whole output.
        log: PathBuf,
    },

    /// A command could not be started.
    #[error("cannot start {program}: {cause}")]
    Start {
        /// The program's name.
        program: String,
        /// The operating system's reason.
        cause: io::Error,
    },

    /// A file or directory of the cache could not be used.
    #[error("{}: {cause}; NETKIT_LAB_CACHE chooses another cache directory", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        cause: io::Error,
    },

    /// Other users can write to the cache.
    #[error(transparent)]
    Untrusted(#[from] lab_guard::private::Untrusted),

    /// The archive could not be read, or a tool that reads it failed.
    #[error(transparent)]
    Archive(#[from] lab_kernel_store::KernelsError),

    /// A program that reads or unpacks packages failed.
    #[error(transparent)]
    Program(#[from] lab_base::process::ProcessError),

    /// The archive's current index does not have a package of a set.
    #[error(
        "Debian's archive has no compatible versions of {packages} now; repeat `lab setup` later, or try `lab setup --system`"
    )]
    NotOffered {
        /// The package names, comma separated.
        packages: String,
    },

    /// No release of the distribution has the packages.
    #[error("no release of the distribution has the missing packages; `lab setup --system` installs them with apt-get")]
    NoArchive,

    /// A downloaded package does not match the signed index.
    #[error("{file} has the SHA-256 sum {found}, but the archive's signed index has {wanted}; repeat `lab setup`")]
    Checksum {
        /// The file's name.
        file: String,
        /// The sum of the downloaded file.
        found: String,
        /// The sum in the index.
        wanted: String,
    },

    /// A package does not have an expected program.
    #[error("the packages {packages} have no {what}; `lab setup --system` installs them with apt-get")]
    NotInPackages {
        /// The program.
        what: String,
        /// The packages, comma separated.
        packages: String,
    },

    /// Every step succeeded, but a check still fails.
    #[error("{name} is still missing after setup: {found}; `lab doctor` shows all checks")]
    StillMissing {
        /// The check's name.
        name: &'static str,
        /// What was found.
        found: String,
    },
}

impl SetupError {
    /// Wraps an I/O error with the path it concerns; for `map_err`.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self::Io { path, cause }
    }
}
