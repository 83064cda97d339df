//! From arguments to a plan that is split among machines.

use super::{RunArgs, SelectArgs, project::Project, say, select::Selected};
use crate::{
    durations::{self, Durations},
    error::Error,
    kernels::Kernel,
    plan::Plan,
    shard::{self, Part, Shard, Split},
};
use lab_protocol::AttachRequest;
use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

/// The part that the flag or the environment asks for.
pub(super) fn requested(args: &RunArgs) -> Result<Option<Part>, Error> {
    let Some((part, from)) = shard::resolve(args.partition, &|name| env::var(name).ok())? else { return Ok(None) };
    if let Some(variable) = from {
        say(&format!("shard {part}, by {variable}; --partition chooses another"));
    }
    Ok(Some(part))
}

/// A whole plan, of which no kernel has been fetched, and what splits it.
pub(super) struct Whole {
    pub plan: Plan,
    pub identity: BTreeMap<String, String>,
    durations: Durations,
}

/// The plan of these kernels and cells, as every machine with the same checkout makes it.
pub(super) fn whole(
    project: &Project,
    kernels: &[&Kernel],
    selected: &Selected,
    args: &SelectArgs,
    durations: Option<&Path>,
) -> Result<Whole, Error> {
    let durations = read_durations(project, durations)?;
    let known = kernels.iter().map(|kernel| project.facts(kernel)).collect::<Result<_, _>>()?;
    let others = project.config.kernels.iter().filter(|kernel| !kernels.contains(kernel));
    let others = others.filter_map(|kernel| project.facts(kernel).ok()).collect();
    let plan = Plan { others, ..Plan::new(known, selected.cells.clone(), args.is_full_matrix()) };
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
pub(super) fn durations_path(project: &Project) -> PathBuf {
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

impl SelectArgs {
    /// Whether no filter narrows the kernels.
    pub(super) fn is_full_matrix(&self) -> bool {
        self.kernels.kernel.is_empty() && self.kernels.class.is_empty()
    }

    /// The arguments that select the same cells in another process.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut option = |name: &str, values: &[String]| {
            words.extend(values.iter().flat_map(|value| [name.to_owned(), value.clone()]));
        };
        let attach: Vec<String> = self.attach.iter().map(AttachRequest::to_string).collect();
        option("--kernel", &self.kernels.kernel);
        option("--class", &self.kernels.class);
        option("--case", &self.case);
        option("--attach", &attach);
        let flags = [("--all", self.kernels.all), ("--newest", self.kernels.newest), ("--canary", self.canary)];
        words.extend(flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned()));
        words
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use clap::Parser;

    #[test]
    fn a_shard_selects_what_its_plan_selected() {
        let given = "--kernel 6.12* --class 6.7+ --case A01* --case N0?-*[netkit,nk-l3] --attach tcx --newest --canary";
        let words = |words: &[String]| {
            let args = ["lab", "run"].map(str::to_owned).into_iter().chain(words.iter().cloned());
            match Cli::try_parse_from(args).unwrap().command {
                Command::Run(args) => args.select.words(),
                _ => Vec::new(),
            }
        };
        let given: Vec<String> = given.split(' ').map(str::to_owned).collect();
        assert_eq!(words(&given), given);
        assert_eq!(words(&["--all".to_owned()]), ["--all"]);
    }
}
