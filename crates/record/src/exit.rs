//! Exit status of a run, and of the program.

/// The documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// Everything that was selected passed, or was skipped for a stated reason.
    Passed,
    /// A test or a kernel failed.
    Failed,
    /// The command line or a configuration file is wrong.
    Usage,
    /// No verdict: a failure of the host, the guest or the agent.
    Infra,
    /// No cell was selected.
    Nothing,
    /// A program in a guest exited with this code.
    Program(u8),
    /// This signal ended the run.
    Interrupted(i32),
    /// Result of a step of `git bisect run`: 0, 1, 125, or 128 and above.
    Step(u8),
}

impl Exit {
    /// The exit code: 0 to 4, or 128 + signal number, as shells report it.
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
