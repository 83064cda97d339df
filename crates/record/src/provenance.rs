//! Provenance of a run: the tested commit, the job of the CI system, the command line.

use serde::{Deserialize, Serialize};

/// Provenance of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Commit of the project from which the lab and the programs in guests were built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whether tracked files differed from that commit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changed: bool,
    /// URL of the CI job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci_url: Option<String>,
    /// The results directory that contains the run's directory, relative to the project's root if it is inside of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<String>,
    /// The words of the command line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

impl Provenance {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The commit, with a note if there were uncommitted changes.
    pub fn commit_line(&self) -> Option<String> {
        let commit = self.commit.as_ref()?;
        Some(if self.changed { format!("{commit} with uncommitted changes") } else { commit.clone() })
    }

    /// The command line for a shell.
    pub fn command_line(&self) -> Option<String> {
        let words: Vec<String> = self.command.iter().map(|word| lab_base::text::shell_quote(word)).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// The known values, with names for a report.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let all = [("commit", self.commit_line()), ("ci.url", self.ci_url.clone()), ("command", self.command_line())];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}
