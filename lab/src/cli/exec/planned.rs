//! What a command line of `lab exec` comes to before a guest boots: cells, files, and what the host knows against them.

use super::ExecArgs;
use crate::{
    error::Error,
    exec::ExecRequest,
    foreign::{HostSkips, Requirement, SuitePlan},
    project::{Project, select::Selected},
    world::World,
};
use lab_base::say::{note, say};
use lab_kernel_store::{Kernel, KernelConfig};
use lab_protocol::{CellInfo, shell::Terminal};
use std::{collections::BTreeMap, sync::Arc};

/// A command that is ready to run.
pub(in crate::cli) struct ExecPlan {
    pub world: Option<Arc<World>>,
    pub request: ExecRequest,
    /// The suite that the command is, with its tests.
    pub suite: Option<SuitePlan>,
    pub skips: HostSkips,
}

/// How much is done ahead of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Ahead {
    /// Only what is on this host is looked at.
    Look,
    /// What is not there is fetched and built.
    Prepare,
}

impl ExecPlan {
    /// Lists the tests of a suite, and looks at the kernels.
    pub(in crate::cli) fn new(
        project: &Project,
        kernels: &[&Kernel],
        args: &ExecArgs,
        selected: &Selected,
        ahead: Ahead,
    ) -> Result<Self, Error> {
        let fetches = ahead == Ahead::Prepare;
        let world = args.world(project)?;
        let request = args.request(project, selected, world.as_deref())?;
        let configs = args.configs(project, kernels, fetches)?;
        let sources = args.suite.sources(project, kernels, fetches)?;
        let suite = args.suite.plan(args.cwd.as_deref(), args.name.as_deref(), &request, sources.as_ref())?;
        if let (Some(trees), Some(plan)) = (&sources, &suite) {
            args.tell_needs(project, kernels, (trees, plan), fetches)?;
        }
        let unknown = |kernel: &str| {
            say(&format!("{kernel}: its configuration is not known, and is taken to have what --require names"));
        };
        let skips = HostSkips::of_configs(&args.require, &configs, unknown);
        let skips = match &suite {
            Some(plan) => skips.of_suite(plan.absent.clone()),
            None => skips,
        };
        Ok(Self { world, request, suite, skips })
    }

    /// The cells; of a command that is no suite they may read this process's input.
    pub(in crate::cli) fn cells(&self, reads: bool, terminal: Option<&Terminal>) -> Vec<CellInfo> {
        match &self.suite {
            Some(plan) => plan.cells.clone(),
            None => self.request.cells(reads, terminal),
        }
    }
}

impl ExecArgs {
    /// The configurations of the kernels, if one is asked for.
    fn configs(
        &self,
        project: &Project,
        kernels: &[&Kernel],
        fetches: bool,
    ) -> Result<BTreeMap<String, Option<KernelConfig>>, Error> {
        if !self.require.iter().any(|it| matches!(it, Requirement::Config(_))) {
            return Ok(BTreeMap::new());
        }
        configs(project, kernels, fetches)
    }
}

/// The configurations of kernels; without fetching, of those in the cache.
pub(super) fn configs(
    project: &Project,
    kernels: &[&Kernel],
    fetches: bool,
) -> Result<BTreeMap<String, Option<KernelConfig>>, Error> {
    let mut configs = BTreeMap::new();
    for kernel in kernels {
        let config = if fetches || project.store().is_cached(kernel, &project.lock) {
            project.ready()?;
            project.store().fetch(kernel, &project.lock, &note)?.config
        } else {
            None
        };
        configs.insert(kernel.id.to_string(), config.as_deref().map(KernelConfig::read).transpose()?);
    }
    Ok(configs)
}
