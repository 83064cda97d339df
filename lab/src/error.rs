//! Errors of the whole program, and the exit code that each belongs to.

use lab_base::{file::FileError, process::ProcessError};
use lab_record::{exit::Exit, log::LogError, shard::PartError};
use lab_report::ReportError;
use std::{io, path::PathBuf};

/// One clear line each, with the mend where there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that the run reads or writes.
    #[error(transparent)]
    File(#[from] FileError),
    /// No `kernels.toml` above the working directory.
    #[error("no kernels.toml in {} or above it; run inside the project or name it with --project", from.display())]
    NoProject {
        /// Where the search began.
        from: PathBuf,
    },
    /// The selection is empty.
    #[error(transparent)]
    Selection(#[from] lab_base::selection::NoMatch),
    /// No cell is left after all filters.
    #[error("no cell matches all of the filters together; `lab list` without filters shows what there is")]
    NothingSelected,
    /// A directory of runs that holds none.
    #[error("{} holds no runs", path.display())]
    NoRuns {
        /// The directory.
        path: PathBuf,
    },
    /// The events of a run.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Results that can't be merged, or a part that can't be run.
    #[error(transparent)]
    Shard(#[from] crate::shard::ShardError),
    /// A shard that there is not.
    #[error(transparent)]
    Part(#[from] PartError),
    /// Building the agent or the eBPF object failed.
    #[error(transparent)]
    Artifact(#[from] crate::project::artifacts::ArtifactError),
    /// Kernels: configuration, lock, download.
    #[error(transparent)]
    Kernels(#[from] lab_kernel_store::KernelsError),
    /// Virtual machines and their tools.
    #[error(transparent)]
    Vm(#[from] lab_vm::VmError),
    /// No place for the cache.
    #[error(transparent)]
    Cache(#[from] lab_base::paths::NoCacheDir),
    /// Setting the host up failed.
    #[error(transparent)]
    Setup(#[from] crate::setup::SetupError),
    /// The host lacks tools.
    #[error("{0}")]
    Host(String),
    /// A wrong value on the command line.
    #[error("{0}")]
    Usage(String),
}

impl From<ReportError> for Error {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::File(error) => Self::File(error),
            ReportError::Log(error) => Self::Log(error),
            ReportError::Config(error) => Self::Kernels(error.into()),
        }
    }
}

impl From<ProcessError> for Error {
    fn from(error: ProcessError) -> Self {
        Self::Kernels(error.into())
    }
}

impl Error {
    /// The signal that ended what failed, and a line that tells both. A failure that a signal brought about elsewhere (an
    /// archive cut off, a program of the same terminal) is none of its own.
    pub fn interruption(&self) -> Option<(Exit, String)> {
        let signal = lab_base::interrupt::Interrupt::raised()?;
        let name = nix::sys::signal::Signal::try_from(signal).map_or("a signal", nix::sys::signal::Signal::as_str);
        let what = match self {
            Self::Artifact(crate::project::artifacts::ArtifactError::Interrupted { .. }) => format!(": {self}"),
            Self::Kernels(error) if error.is_interruption() => format!(": {self}"),
            _ => String::new(),
        };
        Some((Exit::Interrupted(signal), format!("interrupted by {name}{what}")))
    }

    /// The exit code that the error ends the program with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::NoProject { .. }
            | Self::NoRuns { .. }
            | Self::Log(LogError::NotARun { .. } | LogError::Events { .. } | LogError::Format { .. })
            | Self::Shard(_)
            | Self::Part(_)
            | Self::Usage(_) => Exit::Usage,
            Self::Selection(_) | Self::NothingSelected => Exit::Nothing,
            Self::Kernels(error) if error.is_empty_selection() => Exit::Nothing,
            Self::Kernels(error) if error.is_usage() => Exit::Usage,
            Self::Vm(lab_vm::VmError::AccelOverride(_)) => Exit::Usage,
            Self::File(_)
            | Self::Log(LogError::File(_))
            | Self::Artifact(_)
            | Self::Kernels(_)
            | Self::Vm(_)
            | Self::Setup(_)
            | Self::Cache(_)
            | Self::Host(_) => Exit::Infra,
        }
    }

    /// For `map_err` on file operations.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let file = FileError::of(action, path);
        move |source| Self::File(file(source))
    }
}
