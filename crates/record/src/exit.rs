//! How a run, and with it the program, ends.

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
