//! Cells: a case in one variant, the unit that is planned, run and reported.

use crate::{
    attach::{AttachRequest, LinkKind},
    capability::Capability,
    work::Work,
};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// `case[attach,variant,…]`, unique in a suite: `A02-tcx-link[tcx,veth,ingress]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CellId(pub Arc<str>);

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

/// Information about a cell that the host needs before it boots a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellInfo {
    /// Unique id.
    pub id: CellId,
    /// The catalogue's number: `A02`.
    pub catalogue: String,
    /// The area it belongs to: `attach-api`.
    pub area: String,
    /// One sentence that is true if the cell passes.
    pub title: String,
    /// Name of the topology that it builds, or [`NO_TOPOLOGY`].
    pub topology: String,
    /// The requested attach type; `None` if the case does not attach by a variant.
    pub attach: Option<AttachRequest>,
    /// The kind of the workload's link; `None` if the topology has none or several.
    pub device: Option<LinkKind>,
    /// Required capabilities; a kernel without one skips the cell with a reason.
    pub requires: Vec<Capability>,
    /// Time that the cell may take on a fast guest, milliseconds; [`NO_DEADLINE`] for one that may take any.
    pub deadline_ms: u32,
    /// What it does. Sent to the agent as it is here, but for what [`crate::CellProgram::env`] leaves out.
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
    /// The catalogue, with the cells that cover its rows.
    #[serde(default)]
    pub coverage: Vec<CatalogueRow>,
    /// The deliberate faults that can be built into the suite.
    #[serde(default)]
    pub mutants: Vec<MutantInfo>,
    /// Cells that must not pass: they test the lab, and run only on request.
    #[serde(default)]
    pub canaries: Vec<CellInfo>,
}

/// The mutant without a fault: its cells run with the same settings as those of other mutants, and must pass.
pub const NO_MUTANT: &str = "no-mutant";

/// Information about a mutant that the host needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MutantInfo {
    /// Its name in [`crate::HostMessage::Run`].
    pub name: String,
    /// Description of the fault.
    pub breaks: String,
    /// Cells of which at least one must fail.
    pub noticed_by: Vec<CellId>,
    /// Capabilities that a kernel must have; on other kernels the changed program is correct.
    #[serde(default)]
    pub needs: Vec<Capability>,
    /// It is a fault of the witness, which has to watch the cells for it.
    #[serde(default)]
    pub of_witness: bool,
    /// No cell fails, and all take several times as long: the host compares them with a run without the fault.
    #[serde(default)]
    pub slows: bool,
}

/// One row of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueRow {
    /// Its number: `A02`.
    pub id: String,
    /// What is to be tested.
    pub title: String,
    /// Cells that test it.
    pub cells: u32,
    /// Why no cell tests it.
    pub missing: Option<String>,
}
