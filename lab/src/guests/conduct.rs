//! Runs a plan and writes its reports.

use super::{GuestOptions, Guests, progress_with};
use crate::{
    cache,
    error::Error,
    project::{Project, select::Selected},
    run::queue::Isolate,
};
use lab_base::{
    file::FileError,
    say::{note, say},
};
use lab_kernel_store::Kernel;
use lab_record::{event::Stamped, log::EventLog, plan::Plan, reporter::Reporter, run::RunRecord, shard::Shard};
use lab_report::{
    html::HtmlReporter,
    junit::JunitReporter,
    progress::{Detail, of_visit},
    results::{EXEC, directory},
    run_json::RunJson,
};
use std::path::PathBuf;

/// Parameters of a run, and the directory for results.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// How guests are run. Values that depend on the plan (shard, canaries, the project's lists) are set later.
    pub how: GuestOptions,
    /// Directory for results. Default: `results/` in the project, and `results/exec/` for commands.
    pub out: Option<PathBuf>,
    /// What is printed while it runs.
    pub talk: Talk,
}

/// What is printed while a run runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Talk {
    /// Only what goes wrong with guests, and what takes long: the output is that of the guests.
    Guests,
    /// Nothing.
    Nothing,
    /// Failures.
    Failures,
    /// Progress and failures.
    #[default]
    Usual,
    /// Also every cell that ends.
    Cells,
}

impl Talk {
    fn reporter(self) -> Box<dyn Reporter> {
        match self {
            Self::Guests => Box::new(Quiet),
            Self::Nothing => Box::new(Silent),
            Self::Failures => progress_with(Detail::Failures),
            Self::Usual => progress_with(Detail::Usual),
            Self::Cells => progress_with(Detail::Cells),
        }
    }
}

/// Tells nothing.
struct Silent;

impl Reporter for Silent {
    fn event(&mut self, _stamped: &Stamped, _record: &RunRecord) -> Result<(), FileError> {
        Ok(())
    }
}

/// Tells what goes wrong, and what takes long.
struct Quiet;

impl Reporter for Quiet {
    fn event(&mut self, stamped: &Stamped, _record: &RunRecord) -> Result<(), FileError> {
        if let Some(line) = of_visit(&stamped.event) {
            say(&line);
        }
        Ok(())
    }
}

/// A finished run with its reports.
#[derive(Debug)]
pub struct Conducted {
    pub record: RunRecord,
    /// The path to show: `latest`, or the run's own directory if `latest` is another run.
    pub name: PathBuf,
}

impl Guests {
    /// Runs the selected cells, or the part of their plan that `narrow` returns, and writes the reports.
    ///
    /// # Errors
    /// The mutant does not exist, a kernel can't be fetched, or as for [`Self::conduct`].
    pub fn execute(
        project: &Project,
        kernels: &[&Kernel],
        selected: Selected,
        order: Order,
        full_matrix: bool,
        narrow: impl FnOnce(Plan) -> Plan,
    ) -> Result<Conducted, Error> {
        order.how.mutant.as_deref().map(|name| selected.mutant(name)).transpose()?;
        let guests = if order.talk == Talk::Guests {
            Self::open_quietly(project, kernels, &selected)?
        } else {
            Self::open(project, kernels, &selected)?
        };
        let canary = selected.canary;
        let others = project.config.kernels.iter().filter(|kernel| !kernels.contains(kernel));
        // The case that none of a run's kernels can run is of interest in the suite alone.
        let others = others.filter(|_| order.how.exec.is_empty());
        let others = others.filter_map(|kernel| project.facts(kernel).ok()).collect();
        let every_cell = selected.every_cell;
        let plan = narrow(Plan { others, every_cell, ..Plan::new(guests.facts(), selected.cells, full_matrix) });
        guests.conduct(project, plan, None, canary, order)
    }

    /// Runs a plan and writes reports to a directory of its own.
    ///
    /// # Errors
    /// The parameters contradict each other, or the run or its reports failed.
    pub fn conduct(
        &self,
        project: &Project,
        plan: Plan,
        shard: Option<Shard>,
        canary: bool,
        order: Order,
    ) -> Result<Conducted, Error> {
        let Order { how, out, talk } = order;
        if how.retries.count > 0 && how.isolate == Isolate::Both {
            let why = "--retries can't be used with --isolate=both, which compares two attempts at every cell: remove one of them";
            return Err(Error::Usage(why.to_owned()));
        }
        let results = out.clone().unwrap_or_else(|| {
            let usual = project.root.join("results");
            if how.exec.is_empty() { usual } else { usual.join(EXEC) }
        });
        let id = directory::fresh_id();
        let directory = directory::create(&results, &id)?;
        let mut progress = talk.reporter();
        let mut events = EventLog::create(&directory)?;
        let mut junit = JunitReporter { directory: directory.clone() };
        let mut run_json = RunJson { directory: directory.clone() };
        let mut html = HtmlReporter { directory: directory.clone() };
        let mut reporters: [&mut dyn Reporter; 5] = [&mut events, &mut junit, &mut run_json, &mut html, &mut *progress];
        let lists = how.own_lists.clone().unwrap_or_else(|| project.lists.clone());
        let how = GuestOptions { canary, shard, lists, ..how };
        let record = self.run(id.clone(), plan, &directory, &how, &mut reporters)?;
        let (name, problem) = directory::note_latest(&results, &id);
        if let Some(problem) = problem {
            say(&problem);
        }
        if how.exec.is_empty() {
            // A command's time says nothing of the next one's, and there is no end of commands.
            self.remember(&record);
        }
        // Old runs are removed only from the default directory, never from a directory that the user named.
        if out.is_none()
            && let Some(line) = lab_report::results::sweep(&project.root, &results)
            && talk != Talk::Guests
        {
            note(&line);
        }
        if let Some(line) = cache::sweep(&project.cache, &project.root)
            && talk != Talk::Guests
        {
            note(&line);
        }
        Ok(Conducted { record, name })
    }
}
