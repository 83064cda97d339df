//! `lab kernels plant`.

use crate::{
    bench::plants::{Plant, PlantEnd, exit, summary},
    error::Error,
    guests::{self, GuestOptions, Guests},
    pace::Pace,
    project::{
        Project,
        filter::{CellFilter, KernelFilter},
        select::{Selected, build, select_cells},
    },
};
use clap::Args;
use lab_base::{
    lock::lock,
    say::{say, show},
    selection::Pattern,
};
use lab_guard::Id;
use lab_kernel_store::BootableKernel;
use lab_protocol::{CellId, CellInfo, Outcome};
use lab_record::{exit::Exit, log::EventLog, plan::Plan, run::RunRecord};
use lab_report::results::directory;
use std::{
    collections::{BTreeSet, VecDeque},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    thread::{self, available_parallelism},
};

/// The kernel of `kernels.toml` that is built with the plants.
const KERNEL: &str = "plants";
/// Their list, relative to the project.
const LIST: &str = "kernels/plants/plants.toml";

#[derive(Debug, Args)]
pub(super) struct PlantArgs {
    /// Only these plants, by number; repeatable, or with commas.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    plant: Vec<u32>,
    /// Only these cases, for all plants; repeatable, or with commas.
    #[arg(short, long, value_name = "GLOB", value_delimiter = ',')]
    case: Vec<String>,
    /// Only the cases that are listed for a plant, which are likely to notice it.
    #[arg(long)]
    likely: bool,
    /// Maximum number of parallel guests. Default: one per processor.
    #[arg(short, long, value_name = "N", value_parser = crate::cli::args::size)]
    jobs: Option<NonZeroUsize>,
    /// Directory for results. Default: results/ in the project.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Use the existing builds of the agent and the eBPF objects.
    #[arg(long)]
    no_build: bool,
}

pub(super) fn plant(named: Option<PathBuf>, args: &PlantArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let all = Plant::load(&project.root.join(LIST))?;
    let plants = wanted(&all, &args.plant)?;
    let every = build(&project, args.no_build, false)?;
    let cells = select_cells(&every.cells, &CellFilter { case: args.case.clone(), ..CellFilter::default() })?;
    let selected = Selected { cells, every_cell: false, ..every };
    let results = args.out.clone().unwrap_or_else(|| project.root.join("results"));
    let directory = directory::create(&results, &Id::new(&format!("plants-{}", directory::fresh_id()))?)?;
    // Once: after an edit of the patch, the plants that are left would otherwise run on another build than those before.
    let kernel = guests::fetch(&project, &project.kernels(&KernelFilter::of(KERNEL))?)?.remove(0);
    let jobs = args.jobs.map_or_else(|| available_parallelism().map_or(1, NonZeroUsize::get), NonZeroUsize::get);
    let nursery =
        Nursery { project: &project, kernel: &kernel, selected: &selected, directory: &directory, likely: args.likely };

    let (healthy, pace) = nursery.healthy(NonZeroUsize::new(jobs))?;
    let pace = Arc::new(pace);
    let left: Mutex<VecDeque<&Plant>> = Mutex::new(plants.iter().copied().collect());
    let (sender, receiver) = mpsc::channel();
    let mut ends = Vec::new();
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, left, nursery, healthy, pace) = (sender.clone(), &left, &nursery, &healthy, &pace);
            scope.spawn(move || {
                let next = || lock(left).pop_front();
                while let Some(plant) = next() {
                    // The receiver exists until all senders are dropped, so sending can't fail.
                    drop(sender.send(nursery.one(plant, healthy, pace).map(|end| (plant, end))));
                }
            });
        }
        drop(sender);
        for end in receiver {
            let (plant, end): (&Plant, PlantEnd) = end?;
            say(&end.line(plant));
            ends.push((plant, end));
        }
        Ok::<_, Error>(())
    })?;
    ends.sort_by_key(|(plant, _)| plant.number);
    show(format_args!("{}\n", summary(&ends)))?;
    Ok(exit(&ends))
}

fn wanted<'p>(all: &'p [Plant], numbers: &[u32]) -> Result<Vec<&'p Plant>, Error> {
    if numbers.is_empty() {
        return Ok(all.iter().collect());
    }
    let find = |number: &u32| {
        let found = all.iter().find(|plant| plant.number == *number);
        found.ok_or_else(|| Error::Usage(format!("no plant {number} in {LIST}, which has {}", all.len())))
    };
    numbers.iter().map(find).collect()
}

/// Runs cells on the kernel with one of its faults.
struct Nursery<'p> {
    project: &'p Project,
    kernel: &'p BootableKernel,
    selected: &'p Selected,
    directory: &'p Path,
    likely: bool,
}

impl Nursery<'_> {
    /// The cells that pass without a fault, with their times: only they can detect one.
    fn healthy(&self, jobs: Option<NonZeroUsize>) -> Result<(BTreeSet<CellId>, Pace), Error> {
        let how = GuestOptions { jobs, ..GuestOptions::default() };
        let record = self.run("plant=0", "healthy", self.selected.cells.clone(), &how)?;
        let (mut passed, mut failed) = (BTreeSet::new(), 0);
        for (_, cell, verdict) in record.verdicts() {
            match &verdict.outcome {
                Outcome::Passed => drop(passed.insert(cell.id.clone())),
                Outcome::Skipped { .. } => {}
                outcome => {
                    failed += 1;
                    say(&format!("without a plant, {} {}: left out", cell.id, outcome.word()));
                }
            }
        }
        say(&format!("without a plant: {} cells pass, {failed} do not", passed.len()));
        let pace = Pace::of(&record, "the run without a plant");
        if passed.is_empty() { Err(Error::NothingSelected) } else { Ok((passed, pace)) }
    }

    /// Runs the likely cells, and all others unless one of these has failed.
    fn one(&self, plant: &Plant, healthy: &BTreeSet<CellId>, pace: &Arc<Pace>) -> Result<PlantEnd, Error> {
        let cells: Vec<CellInfo> =
            self.selected.cells.iter().filter(|info| healthy.contains(&info.id)).cloned().collect();
        let is_likely = |info: &CellInfo| {
            let names = [info.id.case(), info.id.as_str(), &*info.catalogue];
            plant.cases.iter().any(|pattern| names.iter().any(|name| Pattern::new(pattern).matches(name)))
        };
        let (first, others): (Vec<_>, Vec<_>) = cells.into_iter().partition(is_likely);
        let how = GuestOptions {
            jobs: Some(NonZeroUsize::MIN),
            fail_fast: true,
            cold: true,
            pace: Some(Arc::clone(pace)),
            ..GuestOptions::default()
        };
        let mut end = PlantEnd::Missed;
        for (stage, cells) in [("likely", first), ("others", others)] {
            if cells.is_empty() || stage == "others" && self.likely {
                continue;
            }
            let record = self.run(&plant.word(), &format!("{}-{stage}", plant.number), cells, &how)?;
            match PlantEnd::of(&record) {
                caught @ PlantEnd::Caught { .. } => return Ok(caught),
                unclear @ PlantEnd::Unclear(_) => end = unclear,
                PlantEnd::Missed => {}
            }
        }
        Ok(end)
    }

    fn run(&self, word: &str, name: &str, cells: Vec<CellInfo>, how: &GuestOptions) -> Result<RunRecord, Error> {
        let mut kernel = self.kernel.clone();
        kernel.cmdline.push(word.to_owned());
        let guests = Guests::of_quietly(self.project, vec![kernel], self.selected)?;
        let place = directory::create(self.directory, &Id::new(name)?)?;
        let mut events = EventLog::create(&place)?;
        let plan = Plan::new(guests.facts(), cells, false);
        guests.run(directory::fresh_id(), plan, &place, how, &mut [&mut events])
    }
}
