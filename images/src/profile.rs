//! Purposes of an image.

use serde::{Deserialize, Serialize};

/// Content of an image in addition to the agent, the objects and the modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Nothing else, for the suite.
    #[default]
    Suite,
    /// A shell and network tools, for interactive use.
    Shell,
}
