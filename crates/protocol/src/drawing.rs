//! Topologies as the agent describes them to the host, which can't build any.

use crate::attach::LinkKind;
use serde::{Deserialize, Serialize};

/// One topology of the library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyInfo {
    /// Its name.
    pub name: String,
    /// One sentence.
    pub title: String,
    /// Drawings, one for each kind of the workload's link; a single one without a kind where that does not vary.
    pub drawings: Vec<Drawing>,
}

/// A topology with one kind of workload link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drawing {
    /// The kind.
    pub kind: Option<LinkKind>,
    /// For a terminal, at most 100 columns.
    pub text: String,
    /// An SVG document.
    pub svg: String,
}
