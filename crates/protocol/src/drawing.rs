//! Topologies as the agent describes them to the host, which cannot build them.

use crate::attach::LinkKind;
use serde::{Deserialize, Serialize};

/// One topology of the library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyInfo {
    /// Its name.
    pub name: String,
    /// One sentence.
    pub title: String,
    /// Drawings, one per kind of the workload's link; a single one without a kind if the kind does not vary.
    pub drawings: Vec<Drawing>,
}

/// A topology with one kind of workload link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drawing {
    /// The kind.
    pub kind: Option<LinkKind>,
    /// Text drawing, at most 100 columns.
    pub text: String,
    /// An SVG document.
    pub svg: String,
}
