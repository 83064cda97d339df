//! Selects cells by a filter.

use super::filter::CellFilter;
use crate::{
    error::Error,
    project::{Project, agent_listing, artifacts::Artifacts},
};
use lab_base::{
    arch::Architecture,
    selection::{self, NoMatch},
};
use lab_guard::Id;
use lab_kernel_store::{BackportEntry, UnsupportedEntry};
use lab_protocol::{CellInfo, KernelVersion, Listing, cell::MutantInfo, drawing::TopologyInfo};
use lab_record::plan::{self, KernelFacts};
use std::{panic::resume_unwind, thread};

/// The built artifacts, and the selected cells of the agent's listing.
pub struct Selected {
    pub artifacts: Artifacts,
    /// The agent's version.
    pub agent_version: String,
    pub cells: Vec<CellInfo>,
    /// All deliberate faults of the agent.
    pub mutants: Vec<MutantInfo>,
    /// The agent's library of topologies.
    pub topologies: Vec<TopologyInfo>,
    /// Whether the cells are canaries.
    pub canary: bool,
    /// Whether existing builds are used.
    pub no_build: bool,
    /// Whether the plan includes all cells of the suite.
    pub every_cell: bool,
}

impl Selected {
    /// The mutant with a name from the user.
    pub fn mutant(&self, name: &str) -> Result<&MutantInfo, Error> {
        self.mutants.iter().find(|mutant| mutant.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.mutants.iter().map(|mutant| &*mutant.name).collect();
            Error::Usage(NoMatch::of_few("mutant", name, &names).to_string())
        })
    }
}

/// Builds the artifacts unless the filter excludes it, and selects cells.
pub fn select(project: &Project, filter: &CellFilter) -> Result<Selected, Error> {
    let all = build(project, filter.no_build, filter.canary)?;
    let every_cell = all.every_cell && filter.is_every_cell();
    Ok(Selected { cells: select_cells(&all.cells, filter)?, every_cell, ..all })
}

/// Builds the artifacts, and selects cases by name only; without names, no cases.
pub fn named(project: &Project, cases: &[String], no_build: bool) -> Result<Selected, Error> {
    let all = build(project, no_build, false)?;
    let cells = if cases.is_empty() {
        Vec::new()
    } else {
        selection::select("case", &all.cells, cases, names)?.into_iter().cloned().collect()
    };
    Ok(Selected { cells, every_cell: false, ..all })
}

/// Builds the artifacts, and selects every cell of the suite, or every canary.
pub fn build(project: &Project, no_build: bool, canary: bool) -> Result<Selected, Error> {
    let artifacts = artifacts(project, no_build)?;
    let (agent, facts) = (artifacts.agent.path(), project.facts_kept());
    let facts = &facts;
    // Two starts of the agent at the same time: a command in a restored guest takes little longer than them.
    let (listing, topologies) = thread::scope(|scope| {
        let topologies = scope.spawn(|| agent_listing::topologies(agent, facts));
        let listing = agent_listing::listing(agent, facts);
        (listing, topologies.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let (listing, topologies) = (listing?, topologies?);
    Ok(Selected {
        artifacts,
        agent_version: listing.agent,
        cells: if canary { listing.canaries } else { listing.cells },
        mutants: listing.mutants,
        topologies,
        canary,
        no_build,
        every_cell: !canary,
    })
}

/// Builds the artifacts, and asks the agent for its listing.
pub fn listing(project: &Project, no_build: bool) -> Result<(Artifacts, Listing), Error> {
    let artifacts = artifacts(project, no_build)?;
    let listing = agent_listing::listing(artifacts.agent.path(), &project.facts_kept())?;
    Ok((artifacts, listing))
}

fn artifacts(project: &Project, no_build: bool) -> Result<Artifacts, Error> {
    let builder = project.builder();
    Ok(if no_build { builder.existing()? } else { builder.build()? })
}

/// Reads the listing of the latest built agent, so that commands that only read it do not wait for a compiler.
pub fn last_listing(project: &Project, no_build: bool) -> Result<Listing, Error> {
    let builder = project.builder();
    let artifacts = if no_build { builder.existing()? } else { builder.existing_or_build()? };
    Ok(agent_listing::listing(artifacts.agent.path(), &project.facts_kept())?)
}

/// The cells of a listing that a filter selects.
pub fn select_cells(cells: &[CellInfo], filter: &CellFilter) -> Result<Vec<CellInfo>, Error> {
    let chosen = selection::select("case", cells, &filter.case, names)?;
    // No pattern would select all of them.
    let left_out = match &filter.exclude[..] {
        [] => Vec::new(),
        patterns => selection::select("case", cells, patterns, names)?,
    };
    let chosen: Vec<CellInfo> = chosen
        .into_iter()
        .filter(|info| !left_out.iter().any(|out| out.id == info.id))
        .filter(|info| filter.attach.is_empty() || info.attach.is_some_and(|attach| filter.attach.contains(&attach)))
        .cloned()
        .collect();
    if chosen.is_empty() { Err(Error::NothingSelected) } else { Ok(chosen) }
}

/// The names of a cell on the command line.
pub fn names(info: &CellInfo) -> Vec<&str> {
    vec![info.id.case(), info.id.as_str(), &info.catalogue]
}

/// The names of a kernel for which `kernels.toml` corrects what its version implies.
pub fn stated(facts: KernelFacts, has: &[BackportEntry], believe_probes: Option<&str>) -> KernelFacts {
    let backport = |it: &BackportEntry| plan::Backport { capability: it.capability, reason: it.reason.clone() };
    KernelFacts { has: has.iter().map(backport).collect(), believe_probes: believe_probes.map(str::to_owned), ..facts }
}

/// The kernel's data for a plan.
pub fn facts(
    id: &Id,
    class: &str,
    architecture: Architecture,
    version: KernelVersion,
    unsupported: &[UnsupportedEntry],
    may_fail: bool,
) -> KernelFacts {
    KernelFacts {
        id: id.clone(),
        class: class.to_owned(),
        architecture,
        version,
        may_fail,
        has: Vec::new(),
        believe_probes: None,
        unsupported: unsupported
            .iter()
            .map(|it| plan::Unsupported { capability: it.capability, reason: it.reason.clone() })
            .collect(),
    }
}
