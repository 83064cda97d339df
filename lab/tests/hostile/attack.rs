//! One attack: the attacker, the attack, the promise against it, and the expected result.

use crate::stage::{Seen, Stage};

/// The attacker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// An agent in a real guest.
    Guest,
    /// A scripted agent, through the real run loop.
    Agent,
    /// The author of results that are read back.
    Results,
    /// Another user of the machine, or an open umask.
    User,
    /// A mirror, or an attacker in the network.
    Mirror,
    /// The author of a repository that a user cloned.
    Project,
}

impl By {
    /// Name in the table.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Guest => "real guest",
            Self::Agent => "scripted agent",
            Self::Results => "results",
            Self::User => "another user",
            Self::Mirror => "mirror",
            Self::Project => "repository",
        }
    }
}

/// Runs an attack, and returns what was seen.
type Act = fn(&Stage<'_>) -> Seen;
type Text = &'static str;

/// A row of the table.
pub struct Attack {
    /// Its name.
    pub name: &'static str,
    /// The attacker.
    pub by: By,
    /// Description of the attack.
    pub what: &'static str,
    /// The promise against it.
    pub promise: &'static str,
    /// The expected result.
    pub wanted: Wanted,
    /// The code that runs it.
    pub act: Act,
}

impl Attack {
    /// Makes the rows of one attacker: name, attack, promise, expected result and code.
    pub fn by(by: By) -> impl Fn(Text, Text, Text, Wanted, Act) -> Self {
        move |name, what, promise, wanted, act| Self { name, by, what, promise, wanted, act }
    }
}

/// The expected result of an attack.
pub struct Wanted {
    /// Accepted exit codes.
    pub exit: &'static [i32],
    /// Texts that must be printed or be in the run's summary.
    pub told: &'static [&'static str],
    /// Texts that must not be printed.
    pub never: &'static [&'static str],
    /// Maximum memory of the lab, MiB.
    pub memory_mib: u64,
    /// Maximum size on the disk afterwards, MiB.
    pub disk_mib: u64,
    /// Maximum duration, seconds.
    pub seconds: u64,
}

impl Wanted {
    /// An exit code and texts, with the usual limits.
    pub const fn exit(exit: &'static [i32], told: &'static [&'static str]) -> Self {
        Self { exit, told, never: &[], memory_mib: 400, disk_mib: 160, seconds: 60 }
    }

    /// Adds texts that must not be printed.
    pub const fn never(mut self, never: &'static [&'static str]) -> Self {
        self.never = never;
        self
    }
}
