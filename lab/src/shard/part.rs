//! From arguments to a plan that is split among machines.

use super::Request;
use crate::{
    error::Error,
    project::{Project, select::Selected},
    shard::{
        self, Split,
        durations::{self, Durations},
    },
};
use lab_base::say::say;
use lab_kernel_store::Kernel;
use lab_record::{
    plan::Plan,
    shard::{Part, Shard},
};
use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

/// The part that the flag or the environment asks for.
pub fn requested(flag: Option<Request>) -> Result<Option<Part>, Error> {
    let Some((part, from)) = shard::resolve(flag, &|name| env::var(name).ok())? else { return Ok(None) };
    if let Some(variable) = from {
        say(&format!("shard {part}, by {variable}; --partition chooses another"));
    }
    Ok(Some(part))
}

/// A whole plan, of which no kernel has been fetched, and what splits it.
pub struct Whole {
    /// The plan.
    pub plan: Plan,
    /// Hashes of what all shards must agree on, by its name for people.
    pub identity: BTreeMap<String, String>,
    durations: Durations,
}

/// The plan of these kernels and cells, as every machine with the same checkout makes it.
pub fn whole(
    project: &Project,
    kernels: &[&Kernel],
    selected: &Selected,
    full_matrix: bool,
    durations: Option<&Path>,
) -> Result<Whole, Error> {
    let durations = read_durations(project, durations)?;
    let known = kernels.iter().map(|kernel| project.facts(kernel)).collect::<Result<_, _>>()?;
    let others = project.config.kernels.iter().filter(|kernel| !kernels.contains(kernel));
    let others = others.filter_map(|kernel| project.facts(kernel).ok()).collect();
    let every_cell = selected.every_cell;
    let plan = Plan { others, every_cell, ..Plan::new(known, selected.cells.clone(), full_matrix) };
    let identity = |kernel: &&Kernel| {
        project.store().identity(kernel, &project.lock).map(|identity| (kernel.id.clone(), identity))
    };
    let kernels: BTreeMap<String, String> = kernels.iter().map(identity).collect::<Result<_, _>>()?;
    let identity = shard::identity(&project.root, &plan, &kernels, &durations)?;
    Ok(Whole { plan, identity, durations })
}

impl Whole {
    /// Splits the plan.
    pub fn split(&self, count: u32) -> Result<Split, Error> {
        Ok(shard::split(&self.plan, count, &|kernel, cell| self.durations.estimate(kernel, cell))?)
    }

    /// What one shard runs, and what its events say of the whole.
    pub fn part(self, part: Part) -> Result<(Plan, Shard), Error> {
        let split = self.split(part.count)?;
        let shard = Shard {
            part,
            kernels: split.kernels(&self.plan),
            full_matrix: self.plan.full_matrix,
            identity: self.identity,
        };
        Ok((split.narrow(&self.plan, part), shard))
    }
}

/// Where the project keeps the durations that shards are split by.
pub fn durations_path(project: &Project) -> PathBuf {
    project.root.join("ci").join(durations::FILE)
}

/// The durations that were named, which must be there, or those of the project, where it has some. What this machine
/// remembers does not count: other machines remember something else.
fn read_durations(project: &Project, named: Option<&Path>) -> Result<Durations, Error> {
    match named {
        Some(path) if !path.is_file() => {
            Err(Error::Usage(format!("{} is no file; `lab durations --out` writes one", path.display())))
        }
        Some(path) => Durations::load(path),
        None => Durations::load(&durations_path(project)),
    }
}
