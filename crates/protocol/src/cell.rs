//! Cells: a case in one variant, the unit that is planned, run and reported.

use crate::{
    attach::{AttachRequest, LinkKind},
    capability::Capability,
    work::Work,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `case[attach,variant,…]`, unique in a suite: `A02-tcx-link[tcx,veth,ingress]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CellId(pub String);

impl CellId {
    /// The case's part: everything before the bracket.
    pub fn case(&self) -> &str {
        self.0.split_once('[').map_or(&*self.0, |(case, _)| case)
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What the host must know of a cell before any guest boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellInfo {
    /// Unique id.
    pub id: CellId,
    /// The catalogue's number: `A02`.
    pub catalogue: String,
    /// The area it belongs to: `attach-api`.
    pub area: String,
    /// One sentence: what holds when the cell passes.
    pub title: String,
    /// Name of the topology that it builds, or [`NO_TOPOLOGY`].
    pub topology: String,
    /// The attach type it asks for; `None` where the case is about something else.
    pub attach: Option<AttachRequest>,
    /// The kind of the workload's link; `None` where the topology has none or several.
    pub device: Option<LinkKind>,
    /// What the kernel must have; a kernel without it gives a skip with reason.
    pub requires: Vec<Capability>,
    /// Time that the cell may take on a fast guest, milliseconds; [`NO_DEADLINE`] for one that may take any.
    pub deadline_ms: u32,
    /// What it does. Sent to the agent as it is here, but for what [`crate::Program::env`] leaves out.
    #[serde(default, skip_serializing_if = "Work::is_case")]
    pub work: Work,
    /// Source file of the case, from the root of its repository; empty where nobody knows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// Line of the case in it; 0 without a file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub line: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// [`CellInfo::topology`] of a cell that makes its own devices or needs no network.
pub const NO_TOPOLOGY: &str = "none";

/// [`CellInfo::deadline_ms`] of a program without a timeout: only its guest's heartbeat is watched.
pub const NO_DEADLINE: u32 = u32::MAX;

/// Everything an agent can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// [`crate::PROTOCOL_VERSION`] of the agent.
    pub protocol: u32,
    /// The agent's own version.
    pub agent: String,
    /// The cells, in the order in which they run.
    pub cells: Vec<CellInfo>,
    /// The catalogue, with what of it the cells cover.
    #[serde(default)]
    pub coverage: Vec<CatalogueRow>,
    /// The deliberate faults that can be built into the suite.
    #[serde(default)]
    pub mutants: Vec<MutantInfo>,
    /// Cells that must not pass: they test the lab, and run only when asked for.
    #[serde(default)]
    pub canaries: Vec<CellInfo>,
}

/// The mutant without a fault: its cells run in the same haste as every mutant's, and must pass.
pub const NO_MUTANT: &str = "no-mutant";

/// What the host must know of a deliberate fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MutantInfo {
    /// What [`crate::HostMessage::Run`] calls it.
    pub name: String,
    /// What it breaks, for people.
    pub breaks: String,
    /// Cells of which at least one must fail.
    pub noticed_by: Vec<CellId>,
    /// What a kernel must have for the fault to be one: on others the same program is right.
    #[serde(default)]
    pub needs: Vec<Capability>,
}

/// One row of the catalogue of what there is to test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueRow {
    /// Its number: `A02`.
    pub id: String,
    /// What there is to test.
    pub title: String,
    /// Cells that do.
    pub cells: u32,
    /// Why there is none.
    pub missing: Option<String>,
}
