//! Selects the shard of a plan from command line arguments.

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

/// The shard that the option or the environment selects.
pub fn requested(flag: Option<Request>) -> Result<Option<Part>, Error> {
    let Some((part, from)) = shard::resolve(flag, &|name| env::var(name).ok())? else { return Ok(None) };
    if let Some(variable) = from {
        say(&format!("running shard {part}, selected by {variable}; --partition overrides it"));
    }
    Ok(Some(part))
}

/// A whole plan, before any kernel is fetched, and the durations by which it is split.
pub struct Whole {
    /// The plan.
    pub plan: Plan,
    /// Hashes of everything that all shards must agree on, by a readable name.
    pub identity: BTreeMap<String, String>,
    durations: Durations,
}

/// The plan of these kernels and cells, which is the same on every machine with the same checkout. `adapt` changes it in a way that
/// is the same there, too.
pub fn whole(
    project: &Project,
    kernels: &[&Kernel],
    selected: &Selected,
    full_matrix: bool,
    durations: Option<&Path>,
    adapt: impl FnOnce(Plan) -> Plan,
) -> Result<Whole, Error> {
    let durations = read_durations(project, durations)?;
    let known = kernels.iter().map(|kernel| project.facts(kernel)).collect::<Result<_, _>>()?;
    let others = project.config.kernels.iter().filter(|kernel| !kernels.contains(kernel));
    let others = others.filter_map(|kernel| project.facts(kernel).ok()).collect();
    let every_cell = selected.every_cell;
    let plan = adapt(Plan { others, every_cell, ..Plan::new(known, selected.cells.clone(), full_matrix) });
    let identity = |kernel: &&Kernel| {
        project.store().identity(kernel, &project.lock).map(|identity| (kernel.id.to_string(), identity))
    };
    let kernels: BTreeMap<String, String> = kernels.iter().map(identity).collect::<Result<_, _>>()?;
    let identity = shard::identity(&project.root, &project.home, &selected.artifacts, &plan, &kernels, &durations)?;
    Ok(Whole { plan, identity, durations })
}

impl Whole {
    /// Splits the plan.
    pub fn split(&self, count: u32) -> Result<Split, Error> {
        Ok(shard::split(&self.plan, count, &|kernel, cell| self.durations.estimate(kernel, cell))?)
    }

    /// The plan of one shard, and the information on the whole plan for its events.
    pub fn part(self, part: Part) -> Result<(Plan, Shard), Error> {
        let split = self.split(part.count)?;
        let shard = Shard {
            part,
            kernels: split.kernels(&self.plan),
            full_matrix: self.plan.full_matrix,
            identity: self.identity,
            estimate_ms: split.loads.get(part.number as usize - 1).map(|load| load.estimate_ms),
        };
        Ok((split.narrow(&self.plan, part), shard))
    }
}

/// Path of the durations by which the project's plans are split.
pub fn durations_path(project: &Project) -> PathBuf {
    project.root.join("ci").join(durations::FILE)
}

/// Reads the given durations file, which must exist, or else the project's file, if it exists. Durations in this
/// machine's cache are not used, because they differ between machines.
fn read_durations(project: &Project, named: Option<&Path>) -> Result<Durations, Error> {
    match named {
        Some(path) if !path.is_file() => {
            Err(Error::Usage(format!("{} is not a file; `lab durations --out` writes one", path.display())))
        }
        Some(path) => Durations::load(path),
        None => Durations::load(&durations_path(project)),
    }
}
