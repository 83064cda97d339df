//! Errors of the whole program, with their exit codes.

use crate::setup::SetupError;
use lab_base::{file::FileError, paths::NoCacheDir, process::ProcessError};
use lab_record::{exit::Exit, log::LogError, shard::PartError};
use lab_report::ReportError;
use std::{io, path::PathBuf};

/// Each error is one line, with the fix if there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the run can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no `kernels.toml` in or above the working directory.
    #[error("no kernels.toml in {} or above it; run inside the project, name it with --project, or begin one with `lab init`", from.display())]
    NoProject {
        /// Directory in which the search started.
        from: PathBuf,
    },
    /// A pattern matches nothing.
    #[error(transparent)]
    Selection(#[from] lab_base::selection::NoMatch),
    /// No cell matches all filters.
    #[error("no cell matches all filters; `lab list` without filters shows all cells")]
    NothingSelected,
    /// A directory of runs is empty.
    #[error("{} contains no runs", path.display())]
    NoRuns { path: PathBuf },
    /// The events of a run can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Results can't be merged, or a shard can't be run.
    #[error(transparent)]
    Shard(#[from] crate::shard::ShardError),
    /// Invalid shard number.
    #[error(transparent)]
    Part(#[from] PartError),
    /// Building the agent or the eBPF object failed.
    #[error(transparent)]
    Artifact(#[from] crate::project::artifacts::ArtifactError),
    /// A kernel can't be used: configuration, lock, download.
    #[error(transparent)]
    Kernels(#[from] lab_kernel_store::KernelsError),
    /// A virtual machine or its tools failed.
    #[error(transparent)]
    Vm(#[from] lab_vm::VmError),
    /// Other users could change files that the lab trusts.
    #[error(transparent)]
    Untrusted(#[from] lab_guard::private::Untrusted),
    /// An invalid name of a kernel or run.
    #[error(transparent)]
    Name(#[from] lab_guard::NotAnId),
    /// There is no cache directory.
    #[error(transparent)]
    Cache(#[from] lab_base::paths::NoCacheDir),
    /// What a program is to see of files can't be served.
    #[error(transparent)]
    World(#[from] crate::world::WorldError),
    /// The tests of a suite can't be listed.
    #[error(transparent)]
    Suite(#[from] crate::foreign::ListError),
    /// A queue can't be asked, or a job can't be run.
    #[error(transparent)]
    Pull(#[from] crate::pull::PullError),
    /// Setting up the host failed.
    #[error(transparent)]
    Setup(#[from] crate::setup::SetupError),
    /// The host lacks tools.
    #[error("{0}")]
    Host(String),
    /// Invalid value on the command line.
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
    /// The signal that caused the error, with a line that names both. Errors that a signal caused elsewhere (a
    /// truncated archive, a program of the same terminal) are included.
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

    /// The exit code of the program for this error.
    pub fn exit(&self) -> Exit {
        match self {
            Self::NoProject { .. }
            | Self::NoRuns { .. }
            | Self::Log(LogError::NotARun { .. } | LogError::Events { .. } | LogError::Format { .. })
            | Self::Shard(_)
            | Self::Part(_)
            | Self::Name(_)
            | Self::World(_)
            | Self::Suite(_)
            | Self::Cache(NoCacheDir::Unusable { .. })
            | Self::Setup(SetupError::Cache(NoCacheDir::Unusable { .. }))
            | Self::Usage(_) => Exit::Usage,
            Self::Selection(_) | Self::NothingSelected => Exit::Nothing,
            Self::Kernels(error) if error.is_empty_selection() => Exit::Nothing,
            Self::Kernels(error) if error.is_usage() => Exit::Usage,
            Self::Vm(lab_vm::VmError::AccelOverride(_)) => Exit::Usage,
            Self::Pull(crate::pull::PullError::Address(_) | crate::pull::PullError::Token(_)) => Exit::Usage,
            Self::File(_)
            | Self::Pull(_)
            | Self::Log(LogError::File(_))
            | Self::Artifact(_)
            | Self::Kernels(_)
            | Self::Vm(_)
            | Self::Setup(_)
            | Self::Untrusted(_)
            | Self::Cache(_)
            | Self::Host(_) => Exit::Infra,
        }
    }

    /// Returns a converter for `map_err` on file operations.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let file = FileError::of(action, path);
        move |source| Self::File(file(source))
    }
}
