//! Why setup stopped, each with the way to mend it.

use std::io;
use std::path::PathBuf;

/// Setup could not make this machine ready. All of these are infrastructure: no verdict on any kernel.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No cache directory is known.
    #[error(transparent)]
    Cache(#[from] lab_base::paths::NoCacheDir),

    /// Something that only a person can change.
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
    #[error("missing packages, and neither root nor a usable sudo to install them; run: {command}")]
    NoPrivilege {
        /// The command that installs what is missing.
        command: String,
    },

    /// The package lists, freshly updated, do not offer a package.
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
        "installing {packages} would remove {removed} from this machine, which setup never does: remove {removed} by \
         hand, or provide {packages} in another way (log: {})",
        log.display()
    )]
    WouldRemove {
        /// The package names, comma separated.
        packages: String,
        /// The installed packages that are in the way, comma separated.
        removed: String,
        /// apt-get's output.
        log: PathBuf,
    },

    /// A command ran and failed.
    #[error("{what} failed: {last_line} (log: {})", log.display())]
    Failed {
        /// What was being done.
        what: String,
        /// The line of the output that says most.
        last_line: String,
        /// The whole output.
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

    /// Others can write to the cache.
    #[error(transparent)]
    Untrusted(#[from] lab_guard::private::Untrusted),

    /// The archive could not be read, or a program of its tools failed.
    #[error(transparent)]
    Archive(#[from] lab_kernel_store::KernelsError),

    /// A program that reads or unpacks packages failed.
    #[error(transparent)]
    Program(#[from] lab_base::process::ProcessError),

    /// The archive, freshly read, does not offer a package of a set.
    #[error("Debian's archive offers no {packages} that would go together; repeat `lab setup` later, or try --system")]
    NotOffered {
        /// The package names, comma separated.
        packages: String,
    },

    /// No release of the distribution serves.
    #[error("no release of the distribution offers what is missing; `lab setup --system` installs it with apt-get")]
    NoArchive,

    /// A downloaded package is not the one that the signed index names.
    #[error("{file} has the SHA-256 sum {found}, and the archive's signed index says {wanted}; repeat `lab setup`")]
    Checksum {
        /// The file's name.
        file: String,
        /// The sum of what is there.
        found: String,
        /// The sum of what should be.
        wanted: String,
    },

    /// A program is not where its package is expected to have it.
    #[error("no {what} in the packages {packages}; `lab setup --system` installs them with apt-get")]
    NotInPackages {
        /// The program.
        what: String,
        /// The packages, comma separated.
        packages: String,
    },

    /// Every step succeeded and yet a check fails.
    #[error("{name} is still missing after setup: {found}; `lab doctor` shows the whole picture")]
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
