//! What a run tested and who started it: the commit, the job of the CI system, the command line.

use serde::{Deserialize, Serialize};

/// Where a run comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Commit of the project that the lab and the guests' programs were built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whether tracked files differed from that commit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changed: bool,
    /// The page of the CI job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci_url: Option<String>,
    /// The directory of results that the run's own directory is in, from the project's root where it is below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<String>,
    /// The command line, word by word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

impl Provenance {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The commit, and whether there was more than it.
    pub fn commit_line(&self) -> Option<String> {
        let commit = self.commit.as_ref()?;
        Some(if self.changed { format!("{commit} with uncommitted changes") } else { commit.clone() })
    }

    /// The command line for a shell.
    pub fn command_line(&self) -> Option<String> {
        let words: Vec<String> = self.command.iter().map(|word| lab_base::text::shell_quote(word)).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// What is known, by names for a report.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let all = [("commit", self.commit_line()), ("ci.url", self.ci_url.clone()), ("command", self.command_line())];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}
