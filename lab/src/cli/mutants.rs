//! `lab mutants`.

use crate::{
    bench::mutants::{MutantRound, MutantVerdict, exit, summary},
    error::Error,
    guests::{GuestOptions, Guests, machine::Shape},
    pace::Pace,
    project::{
        Project,
        filter::KernelFilter,
        select::{Selected, build},
    },
};
use clap::Args;
use lab_base::{
    lock::lock,
    say::{say, show},
};
use lab_guard::Id;
use lab_protocol::cell::MutantInfo;
use lab_record::{
    exit::Exit,
    log::EventLog,
    plan::{Expectation, Plan},
};
use lab_report::results::directory;
use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    thread::{self, available_parallelism},
    time::{SystemTime, UNIX_EPOCH},
};

#[derive(Debug, Args)]
pub(super) struct MutantsArgs {
    /// The kernel to run them on: only one that supports every attach type can detect all mutants.
    #[arg(short, long, value_name = "ID", default_value = "6.17")]
    kernel: String,
    /// Only these mutants; repeatable.
    #[arg(long, value_name = "NAME")]
    mutant: Vec<String>,
    /// Only N of them, the next N each day.
    #[arg(long, value_name = "N", conflicts_with = "mutant", value_parser = crate::cli::args::size)]
    sample: Option<NonZeroUsize>,
    /// Those of the witness instead: it watches the cells, and its account is held against their own readings.
    #[arg(long)]
    witness: bool,
    /// Maximum number of parallel guests. Default: one per processor, limited by memory.
    #[arg(short, long, value_name = "N", value_parser = crate::cli::args::size)]
    jobs: Option<std::num::NonZeroUsize>,
    /// Directory for results. Default: results/ in the project.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Use the existing builds of the agent and the eBPF objects.
    #[arg(long)]
    no_build: bool,
}

pub(super) fn mutants(named: Option<PathBuf>, args: &MutantsArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let kernels = project.kernels(&KernelFilter::of(&args.kernel))?;
    let selected = build(&project, args.no_build, false)?;
    let rounds = rounds(&selected, args)?;
    let guests = Guests::open(&project, &kernels[..1], &selected)?;
    let results = args.out.clone().unwrap_or_else(|| project.root.join("results"));
    let directory = directory::create(&results, &Id::new(&format!("mutants-{}", directory::fresh_id()))?)?;

    let queue: Mutex<VecDeque<&MutantRound>> = Mutex::new(rounds.iter().collect());
    let jobs = args.jobs.map_or_else(|| available_parallelism().map_or(1, NonZeroUsize::get), NonZeroUsize::get);
    let (sender, receiver) = mpsc::channel();
    let mut verdicts = Vec::new();
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, queue, guests, selected, directory) = (sender.clone(), &queue, &guests, &selected, &directory);
            scope.spawn(move || {
                let shape = if args.witness { Shape::watched() } else { Shape::default() };
                let next = || lock(queue).pop_front();
                while let Some(round) = next() {
                    // The receiver exists until all senders are dropped, so sending can't fail.
                    drop(sender.send(one(guests, selected, round, directory, &shape)));
                }
            });
        }
        drop(sender);
        for verdict in receiver {
            let verdict: MutantVerdict = verdict?;
            say(&verdict.line());
            verdicts.push(verdict);
        }
        Ok::<_, Error>(())
    })?;
    // In the order of the listing, independent of the guests' speed.
    verdicts.sort_by_key(|verdict| rounds.iter().position(|round| round.name == verdict.name));
    show(format_args!("{}\n", summary(&verdicts)))?;
    Ok(exit(&verdicts))
}

/// The control round comes first, with the cells of all other rounds.
fn rounds(selected: &Selected, args: &MutantsArgs) -> Result<Vec<MutantRound>, Error> {
    let fitting: Vec<&MutantInfo> =
        selected.mutants.iter().filter(|mutant| mutant.of_witness == args.witness).collect();
    let mutants = match (&args.mutant[..], args.sample) {
        ([], None) => fitting,
        ([], Some(count)) => of_day(&fitting, count, today()),
        (names, _) => names.iter().map(|name| selected.mutant(name)).collect::<Result<Vec<_>, _>>()?,
    };
    Ok(std::iter::once(MutantRound::control(&mutants))
        .chain(mutants.iter().map(|mutant| MutantRound::of(mutant)))
        .collect())
}

/// Days since 1970.
fn today() -> usize {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    usize::try_from(now.as_secs() / 86_400).unwrap_or_default()
}

/// The mutants of a day: the next `count` of them each day, from the beginning again after the last.
fn of_day<'a>(mutants: &[&'a MutantInfo], count: NonZeroUsize, day: usize) -> Vec<&'a MutantInfo> {
    let first = day.wrapping_mul(count.get()) % mutants.len().max(1);
    mutants.iter().copied().cycle().skip(first).take(count.get().min(mutants.len())).collect()
}

/// Runs the cells of one round in a separate guest.
fn one(
    guests: &Guests,
    selected: &Selected,
    round: &MutantRound,
    directory: &Path,
    shape: &Shape,
) -> Result<MutantVerdict, Error> {
    let cells = selected.cells.iter().filter(|info| round.cells.contains(&info.id)).cloned().map(|mut info| {
        info.requires.extend(&round.needs);
        info
    });
    let mut plan = Plan::new(guests.facts(), cells.collect(), false);
    let mut lacks = None;
    for kernel in &mut plan.kernels {
        kernel.cells.retain(|cell| match &cell.expectation {
            Expectation::Run => true,
            Expectation::Skip { capability, why } => {
                lacks.get_or_insert_with(|| format!("{} does not support {capability}: {why}", kernel.facts.id));
                false
            }
            Expectation::HostSkip { why } => {
                lacks.get_or_insert_with(|| format!("{}: {why}", kernel.facts.id));
                false
            }
        });
    }
    if plan.kernels.iter().all(|kernel| kernel.cells.is_empty()) {
        return Ok(round.not_applicable(lacks.unwrap_or_else(|| "the agent lists none of its cells".to_owned())));
    }
    let run = |name: &str, mutant: Option<String>, pace: Option<Arc<Pace>>| {
        let place = directory::create(directory, &Id::new(name)?)?;
        let mut events = EventLog::create(&place)?;
        let jobs = Some(NonZeroUsize::MIN);
        let how = GuestOptions { jobs, mutant, pace, shape: shape.clone(), ..GuestOptions::default() };
        guests.run(directory::fresh_id(), plan.clone(), &place, &how, &mut [&mut events])
    };
    let pace = match round.slows {
        true => Some(Pace::of(&run(&format!("{}-without", round.name), None, None)?, "the run without it")),
        false => None,
    };
    let record = run(&round.name, Some(round.name.clone()), pace.map(Arc::new))?;
    Ok(round.judge(&record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn consecutive_days_have_every_mutant() {
        let named = |number: usize| MutantInfo {
            name: format!("m{number}"),
            breaks: String::new(),
            noticed_by: Vec::new(),
            needs: Vec::new(),
            of_witness: false,
            slows: false,
        };
        let all: Vec<MutantInfo> = (0..10).map(named).collect();
        let all: Vec<&MutantInfo> = all.iter().collect();
        let count = NonZeroUsize::new(4).unwrap();
        let of = |day| of_day(&all, count, day).iter().map(|mutant| mutant.name.clone()).collect::<Vec<_>>();
        assert_eq!(of(0), ["m0", "m1", "m2", "m3"]);
        assert_eq!(of(2), ["m8", "m9", "m0", "m1"]);
        let seen: BTreeSet<String> = (20_000..20_003).flat_map(of).collect();
        assert_eq!(seen.len(), 10);
        assert_eq!(of_day(&all, NonZeroUsize::new(99).unwrap(), 3).len(), 10);
    }
}
