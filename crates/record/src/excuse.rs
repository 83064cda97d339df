//! Reasons from `splats.toml` and `known.toml` why a failure does not count.

use serde::{Deserialize, Serialize};

/// Why a failure does not count, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excuse {
    /// Reason, as text.
    pub reason: String,
    /// Link to the report of the problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The last day on which the entry is valid, `2027-01-31`; `None` if the excuse is not an entry of a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

impl Excuse {
    /// The excuse in one line.
    pub fn line(&self) -> String {
        let link = self.link.as_ref().map_or_else(String::new, |link| format!(" ({link})"));
        let until = self.expires.as_ref().map_or_else(String::new, |day| format!("until {day}: "));
        format!("{until}{}{link}", self.reason)
    }
}

/// An expired entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// `splats.toml` or `known.toml`.
    pub file: String,
    /// Line of the entry, from 1.
    pub line: usize,
    /// The entry's pattern.
    pub about: String,
    /// The entry's excuse.
    pub excuse: Excuse,
}

impl Expired {
    /// What to do about the entry, in one line.
    pub fn message(&self) -> String {
        format!(
            "the entry for `{}` ended on {} ({}): remove it, or check it and set a later `expires`",
            self.about,
            self.excuse.expires.as_deref().unwrap_or_default(),
            self.excuse.reason
        )
    }
}
