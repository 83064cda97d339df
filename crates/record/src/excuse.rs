//! Why something that went wrong does not count: what an entry of `splats.toml` or `known.toml` says.

use serde::{Deserialize, Serialize};

/// Why something that went wrong does not count, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excuse {
    /// For people.
    pub reason: String,
    /// Where it is being dealt with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The last day on which it counts, `2027-01-31`; none where it is no entry of a list but a fact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

impl Excuse {
    /// One line for people.
    pub fn line(&self) -> String {
        let link = self.link.as_ref().map_or_else(String::new, |link| format!(" ({link})"));
        let until = self.expires.as_ref().map_or_else(String::new, |day| format!("until {day}: "));
        format!("{until}{}{link}", self.reason)
    }
}

/// An entry whose day has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// `splats.toml` or `known.toml`.
    pub file: String,
    /// Line of the entry, from 1.
    pub line: usize,
    /// What it is about: its pattern.
    pub about: String,
    /// What it excused.
    pub excuse: Excuse,
}

impl Expired {
    /// One line: what to do.
    pub fn message(&self) -> String {
        format!(
            "the entry for `{}` ended on {} ({}): remove it, or look at it again and give it a later `expires`",
            self.about,
            self.excuse.expires.as_deref().unwrap_or_default(),
            self.excuse.reason
        )
    }
}
