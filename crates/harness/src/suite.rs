//! Suites of cells, which the agent runs.

use crate::{case::Area, ctx::Ctx, fault::Mutant};
use lab_protocol::{
    CatalogueRow, CellId, CellInfo, CellReport, LinkKind, Listing, PROTOCOL_VERSION, drawing::TopologyInfo,
};
use lab_topology::{Template, Topology, library};
use std::collections::HashSet;

/// A set of cells that an agent can run. An agent takes any number of suites; [`Cases`] is the one for cases that are
/// written as Rust functions.
pub trait Suite: Sync {
    /// Its cells, in the order in which they run.
    fn cells(&self) -> Vec<Cell>;

    /// Cells that must not pass, with controls between them: they test the lab and run only on request.
    fn canaries(&self) -> Vec<Cell> {
        Vec::new()
    }

    /// Deliberate faults that its cells must detect.
    fn mutants(&self) -> &'static [Mutant] {
        &[]
    }

    /// Its catalogue of features to test, with the cells that cover them.
    fn coverage(&self) -> Vec<CatalogueRow> {
        Vec::new()
    }
}

type Body = Box<dyn Fn(Ctx) -> CellReport + Send + Sync>;

/// A cell that can be run.
pub struct Cell {
    /// Information for the host.
    pub info: CellInfo,
    /// The topology that it builds; `None` if it creates its own devices or needs none.
    pub topology: Option<Template>,
    body: Body,
}

impl Cell {
    /// A cell with its function, which runs on a thread of its own under the cell's deadline, and ends with
    /// [`Ctx::finish`].
    pub fn new(
        info: CellInfo,
        topology: Option<Template>,
        body: impl Fn(Ctx) -> CellReport + Send + Sync + 'static,
    ) -> Self {
        Self { info, topology, body: Box::new(body) }
    }

    /// What it builds.
    pub(crate) fn topology(&self) -> Option<Topology> {
        self.topology.map(|template| template.of(self.info.device.unwrap_or(LinkKind::Veth)))
    }

    pub(crate) fn run(&self, ctx: Ctx) -> CellReport {
        (self.body)(ctx.with_topology(self.topology()))
    }
}

/// A suite of cases that are written as Rust functions, by area.
#[derive(Debug, Clone, Copy)]
pub struct Cases {
    areas: &'static [&'static Area],
}

impl Cases {
    /// The suite of these areas, in the order in which they run.
    pub const fn new(areas: &'static [&'static Area]) -> Self {
        Self { areas }
    }
}

impl Suite for Cases {
    fn cells(&self) -> Vec<Cell> {
        self.areas.iter().flat_map(|area| area.cells()).collect()
    }
}

/// Two cells have the same id, or two different topologies have the same name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuiteError {
    /// Two cells with the same id.
    #[error("two cells have the id {0}: rename one of the cases")]
    Cell(CellId),
    /// Two topologies with the same name.
    #[error("two different topologies have the name {0}: rename one of the templates")]
    Topology(&'static str),
}

/// Lists everything that an agent with these suites can run.
///
/// # Errors
/// An id that occurs twice.
pub fn listing(suites: &[&'static dyn Suite], agent: &str) -> Result<Listing, SuiteError> {
    let infos = |cells: fn(&dyn Suite) -> Vec<Cell>| -> Vec<CellInfo> {
        suites.iter().flat_map(|suite| cells(*suite)).map(|cell| cell.info).collect()
    };
    let (cells, canaries) = (infos(|suite| suite.cells()), infos(|suite| suite.canaries()));
    let mut seen = HashSet::new();
    if let Some(twice) = cells.iter().chain(&canaries).find(|info| !seen.insert(&info.id)) {
        return Err(SuiteError::Cell(twice.id.clone()));
    }
    Ok(Listing {
        protocol: PROTOCOL_VERSION,
        agent: agent.to_owned(),
        cells,
        canaries,
        mutants: suites.iter().flat_map(|suite| suite.mutants()).map(Mutant::info).collect(),
        coverage: suites.iter().flat_map(|suite| suite.coverage()).collect(),
    })
}

/// Every topology of the library, and those that only these suites' cells have.
///
/// # Errors
/// Two different topologies have the same name, which would be ambiguous for `lab shell --topology NAME`.
pub fn templates(suites: &[&'static dyn Suite]) -> Result<Vec<Template>, SuiteError> {
    let mut templates = library::ALL.to_vec();
    let cells = suites.iter().flat_map(|suite| suite.cells().into_iter().chain(suite.canaries()));
    for template in cells.filter_map(|cell| cell.topology) {
        match templates.iter().find(|known| known.name == template.name) {
            None => templates.push(template),
            Some(known) if known.variants() == template.variants() => {}
            Some(_) => return Err(SuiteError::Topology(template.name)),
        }
    }
    Ok(templates)
}

/// [`templates`], drawn.
///
/// # Errors
/// Like [`templates`].
pub fn topologies(suites: &[&'static dyn Suite]) -> Result<Vec<TopologyInfo>, SuiteError> {
    Ok(templates(suites)?.iter().map(Template::info).collect())
}
