//! One attack: who does what, what is promised, and what must come of it.

use crate::stage::{Seen, Stage};

/// Who attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// An agent in a real guest.
    Guest,
    /// An agent that a script plays, through the real run loop.
    Agent,
    /// Whoever wrote the results that are read back.
    Results,
    /// Another user of the machine, or an open umask.
    User,
    /// A mirror, or whoever is on the way to it.
    Mirror,
    /// Whoever wrote a repository that somebody cloned.
    Project,
}

impl By {
    /// For the table.
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

/// A row of the table.
pub struct Attack {
    /// Its name.
    pub name: &'static str,
    /// Who attacks.
    pub by: By,
    /// What is done, for people.
    pub what: &'static str,
    /// What is promised against it.
    pub promise: &'static str,
    /// What must come of it.
    pub wanted: Wanted,
    /// How it is done.
    pub act: fn(&Stage<'_>) -> Seen,
}

/// What must come of an attack.
pub struct Wanted {
    /// Exit codes that are right.
    pub exit: &'static [i32],
    /// Words that must be told: printed, or in the run's summary.
    pub told: &'static [&'static str],
    /// Words that must be in nothing that was printed.
    pub never: &'static [&'static str],
    /// MiB of memory that the lab may have taken.
    pub memory_mib: u64,
    /// MiB that may be on the disk afterwards.
    pub disk_mib: u64,
    /// Seconds that it may have taken.
    pub seconds: u64,
}

impl Wanted {
    /// An exit code and words, within the usual bounds.
    pub const fn exit(exit: &'static [i32], told: &'static [&'static str]) -> Self {
        Self { exit, told, never: &[], memory_mib: 400, disk_mib: 160, seconds: 60 }
    }

    /// Words that nobody may see.
    pub const fn never(mut self, never: &'static [&'static str]) -> Self {
        self.never = never;
        self
    }
}
