//! What an image is for.

use serde::{Deserialize, Serialize};

/// What an image holds beside the agent, the objects and the modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Nothing: cases bring all they need.
    #[default]
    Suite,
    /// A shell and network tools, for a person at the desk.
    Shell,
    /// The same, and the modules by which the guest sees the host's root.
    Host,
}
