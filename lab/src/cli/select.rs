//! From arguments to the cells that they mean.

use super::{SelectArgs, project::Project, say};
use crate::{
    artifacts::{self, Artifacts, Builder},
    error::Error,
    kernels::Departure,
    plan::{self, KernelFacts},
    selection::{self, NoMatch},
};
use lab_protocol::{CellInfo, KernelVersion, Listing, cell::MutantInfo};

/// The agent, the eBPF object, and the selected cells of the agent's listing.
pub(super) struct Selected {
    pub artifacts: Artifacts,
    pub agent_version: String,
    pub cells: Vec<CellInfo>,
    pub mutants: Vec<MutantInfo>,
    /// Whether the cells are canaries.
    pub canary: bool,
}

impl Selected {
    /// The mutant of a name that the user gave.
    pub fn mutant(&self, name: &str) -> Result<&MutantInfo, Error> {
        self.mutants.iter().find(|mutant| mutant.name == name).ok_or_else(|| {
            let nearest = selection::nearest(name, self.mutants.iter().map(|mutant| &*mutant.name));
            Error::Usage(NoMatch { what: "mutant", pattern: name.to_owned(), nearest }.to_string())
        })
    }
}

/// Builds what is to be built, and selects.
pub(super) fn select(project: &Project, args: &SelectArgs) -> Result<Selected, Error> {
    let all = build(project, args.no_build, args.canary)?;
    Ok(Selected { cells: select_cells(&all.cells, args)?, ..all })
}

/// Builds what is to be built, and selects cases by name alone; without a name none of them.
pub(super) fn named(project: &Project, cases: &[String], no_build: bool) -> Result<Selected, Error> {
    let all = build(project, no_build, false)?;
    let cells = if cases.is_empty() {
        Vec::new()
    } else {
        selection::select("case", &all.cells, cases, names)?.into_iter().cloned().collect()
    };
    Ok(Selected { cells, ..all })
}

/// Builds what is to be built; every cell of the suite, or every canary, is selected.
pub(super) fn build(project: &Project, no_build: bool, canary: bool) -> Result<Selected, Error> {
    let (artifacts, listing) = listing(project, no_build)?;
    Ok(Selected {
        artifacts,
        agent_version: listing.agent,
        cells: if canary { listing.canaries } else { listing.cells },
        mutants: listing.mutants,
        canary,
    })
}

/// Builds what is to be built, and asks the agent what it has.
pub(super) fn listing(project: &Project, no_build: bool) -> Result<(Artifacts, Listing), Error> {
    let builder = Builder { root: &project.root, cache: project.cache.root(), say: &say };
    let artifacts = if no_build { builder.existing()? } else { builder.build()? };
    let listing = artifacts::listing(&artifacts.agent.path)?;
    Ok((artifacts, listing))
}

fn select_cells(cells: &[CellInfo], args: &SelectArgs) -> Result<Vec<CellInfo>, Error> {
    let chosen = selection::select("case", cells, &args.case, names)?;
    let chosen: Vec<CellInfo> = chosen
        .into_iter()
        .filter(|info| args.attach.is_empty() || info.attach.is_some_and(|attach| args.attach.contains(&attach)))
        .cloned()
        .collect();
    if chosen.is_empty() { Err(Error::NothingSelected) } else { Ok(chosen) }
}

/// What a cell goes by on the command line.
pub(super) fn names(info: &CellInfo) -> Vec<&str> {
    vec![info.id.case(), info.id.as_str(), &info.catalogue]
}

/// What the plan must know of a kernel.
pub(super) fn facts(
    id: &str,
    class: &str,
    version: KernelVersion,
    departures: &[Departure],
    may_fail: bool,
) -> KernelFacts {
    KernelFacts {
        id: id.to_owned(),
        class: class.to_owned(),
        version,
        may_fail,
        departures: departures
            .iter()
            .map(|departure| plan::Departure { capability: departure.capability, reason: departure.reason.clone() })
            .collect(),
    }
}
