//! Errors of the whole program, and the exit code that each belongs to.

use std::{io, path::PathBuf};

/// The documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// Everything that was selected passed or was skipped for a reason.
    Passed,
    /// A test or a kernel failed.
    Failed,
    /// The command line or a configuration file is wrong.
    Usage,
    /// No verdict: the host, the guest or the agent broke.
    Infra,
    /// The selection is empty.
    Nothing,
    /// A program in a guest ended with this code.
    Program(u8),
    /// This signal ended the run.
    Interrupted(i32),
    /// What `git bisect run` wants to hear of a step: 0, 1, 125, or 128 and above.
    Step(u8),
}

impl Exit {
    /// 0, 1, 2, 3, 4, or 128 + signal as shells count it.
    pub const fn code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Infra => 3,
            Self::Nothing => 4,
            Self::Program(code) => code,
            Self::Interrupted(signal) => 128 + (signal & 0x7f) as u8,
            Self::Step(status) => status,
        }
    }
}

/// One clear line each, with the mend where there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that the run reads or writes.
    #[error("can't {action} {}: {source}", path.display())]
    File {
        /// `read`, `write`, `create`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No `kernels.toml` above the working directory.
    #[error("no kernels.toml in {} or above it; run inside the project or name it with --project", from.display())]
    NoProject {
        /// Where the search began.
        from: PathBuf,
    },
    /// The selection is empty.
    #[error(transparent)]
    Selection(#[from] crate::selection::NoMatch),
    /// No cell is left after all filters.
    #[error("no cell matches all of the filters together; `lab list` without filters shows what there is")]
    NothingSelected,
    /// A directory of runs that holds none.
    #[error("{} holds no runs", path.display())]
    NoRuns {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is no run.
    #[error("{} is not a run: it holds no events.jsonl", path.display())]
    NotARun {
        /// The directory.
        path: PathBuf,
    },
    /// A line of events.jsonl is not an event.
    #[error("{}:{line}: not an event of this version of lab: {problem}", path.display())]
    Events {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// What the parser said.
        problem: String,
    },
    /// Another version of the lab wrote the run.
    #[error(
        "{} has format {found}, and this lab reads only {}: run the cells again, or use the lab that wrote it",
        path.display(),
        crate::event::FORMAT
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format; 0 for runs from before formats had numbers.
        found: u32,
    },
    /// Results that can't be merged, or a part that can't be run.
    #[error(transparent)]
    Shard(#[from] crate::shard::ShardError),
    /// Building the agent or the eBPF object failed.
    #[error(transparent)]
    Artifact(#[from] crate::artifacts::ArtifactError),
    /// Kernels: configuration, lock, download.
    #[error(transparent)]
    Kernels(#[from] crate::kernels::KernelsError),
    /// Virtual machines and their tools.
    #[error(transparent)]
    Vm(#[from] crate::vm::VmError),
    /// Others could change what the lab trusts.
    #[error(transparent)]
    Untrusted(#[from] lab_guard::private::Untrusted),
    /// No place for the cache.
    #[error(transparent)]
    Cache(#[from] crate::paths::NoCacheDir),
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

impl Error {
    /// The signal that ended what failed, and a line that tells both. A failure that a signal brought about elsewhere (an
    /// archive cut off, a program of the same terminal) is none of its own.
    pub fn interruption(&self) -> Option<(Exit, String)> {
        let signal = crate::interrupt::Interrupt::raised()?;
        let name = nix::sys::signal::Signal::try_from(signal).map_or("a signal", nix::sys::signal::Signal::as_str);
        let what = match self {
            Self::Artifact(crate::artifacts::ArtifactError::Interrupted { .. }) => format!(": {self}"),
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
            | Self::NotARun { .. }
            | Self::Events { .. }
            | Self::Format { .. }
            | Self::Shard(_)
            | Self::Usage(_) => Exit::Usage,
            Self::Selection(_) | Self::NothingSelected => Exit::Nothing,
            Self::Kernels(error) if error.is_empty_selection() => Exit::Nothing,
            Self::Kernels(error) if error.is_usage() => Exit::Usage,
            Self::Vm(crate::vm::VmError::AccelOverride(_)) => Exit::Usage,
            Self::File { .. }
            | Self::Artifact(_)
            | Self::Kernels(_)
            | Self::Vm(_)
            | Self::Setup(_)
            | Self::Untrusted(_)
            | Self::Cache(_)
            | Self::Host(_) => Exit::Infra,
        }
    }

    /// For `map_err` on file operations.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
