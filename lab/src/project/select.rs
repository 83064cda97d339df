//! From arguments to the cells that they mean.

use super::filter::Filter;
use crate::{
    error::Error,
    project::{
        Project,
        artifacts::{self, Artifacts, Builder},
    },
};
use lab_base::{
    nearest::nearest,
    say::say,
    selection::{self, NoMatch},
};
use lab_kernel_store::{Backport, UnsupportedEntry};
use lab_protocol::{CellInfo, KernelVersion, Listing, cell::MutantInfo};
use lab_record::plan::{self, KernelFacts};

/// The agent, the eBPF object, and the selected cells of the agent's listing.
pub struct Selected {
    /// The built programs.
    pub artifacts: Artifacts,
    /// The version that the agent names.
    pub agent_version: String,
    /// The cells.
    pub cells: Vec<CellInfo>,
    /// Every deliberate fault that the agent has.
    pub mutants: Vec<MutantInfo>,
    /// Whether the cells are canaries.
    pub canary: bool,
    /// Whether no filter narrowed the cells of the suite.
    pub every_cell: bool,
}

impl Selected {
    /// The mutant of a name that the user gave.
    pub fn mutant(&self, name: &str) -> Result<&MutantInfo, Error> {
        self.mutants.iter().find(|mutant| mutant.name == name).ok_or_else(|| {
            let nearest = nearest(name, self.mutants.iter().map(|mutant| &*mutant.name));
            Error::Usage(NoMatch { what: "mutant", pattern: name.to_owned(), nearest }.to_string())
        })
    }
}

/// Builds what is to be built, and selects.
pub fn select(project: &Project, filter: &Filter) -> Result<Selected, Error> {
    let all = build(project, filter.no_build, filter.canary)?;
    let every_cell = all.every_cell && filter.case.is_empty() && filter.attach.is_empty();
    Ok(Selected { cells: select_cells(&all.cells, filter)?, every_cell, ..all })
}

/// Builds what is to be built, and selects cases by name alone; without a name none of them.
pub fn named(project: &Project, cases: &[String], no_build: bool) -> Result<Selected, Error> {
    let all = build(project, no_build, false)?;
    let cells = if cases.is_empty() {
        Vec::new()
    } else {
        selection::select("case", &all.cells, cases, names)?.into_iter().cloned().collect()
    };
    Ok(Selected { cells, every_cell: false, ..all })
}

/// Builds what is to be built; every cell of the suite, or every canary, is selected.
pub fn build(project: &Project, no_build: bool, canary: bool) -> Result<Selected, Error> {
    let (artifacts, listing) = listing(project, no_build)?;
    Ok(Selected {
        artifacts,
        agent_version: listing.agent,
        cells: if canary { listing.canaries } else { listing.cells },
        mutants: listing.mutants,
        canary,
        every_cell: !canary,
    })
}

/// Builds what is to be built, and asks the agent what it has.
pub fn listing(project: &Project, no_build: bool) -> Result<(Artifacts, Listing), Error> {
    let builder = Builder { root: &project.root, cache: project.cache.root(), say: &say };
    let artifacts = if no_build { builder.existing()? } else { builder.build()? };
    let listing = artifacts::listing(&artifacts.agent.path)?;
    Ok((artifacts, listing))
}

fn select_cells(cells: &[CellInfo], filter: &Filter) -> Result<Vec<CellInfo>, Error> {
    let chosen = selection::select("case", cells, &filter.case, names)?;
    let chosen: Vec<CellInfo> = chosen
        .into_iter()
        .filter(|info| filter.attach.is_empty() || info.attach.is_some_and(|attach| filter.attach.contains(&attach)))
        .cloned()
        .collect();
    if chosen.is_empty() { Err(Error::NothingSelected) } else { Ok(chosen) }
}

/// What a cell goes by on the command line.
pub fn names(info: &CellInfo) -> Vec<&str> {
    vec![info.id.case(), info.id.as_str(), &info.catalogue]
}

/// The same of a kernel of which `kernels.toml` states more than its version tells.
pub fn stated(facts: KernelFacts, has: &[Backport], believe_probes: Option<&str>) -> KernelFacts {
    let backport = |it: &Backport| plan::Backport { capability: it.capability, reason: it.reason.clone() };
    KernelFacts { has: has.iter().map(backport).collect(), believe_probes: believe_probes.map(str::to_owned), ..facts }
}

/// What the plan must know of a kernel.
pub fn facts(
    id: &str,
    class: &str,
    version: KernelVersion,
    unsupported: &[UnsupportedEntry],
    may_fail: bool,
) -> KernelFacts {
    KernelFacts {
        id: id.to_owned(),
        class: class.to_owned(),
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
