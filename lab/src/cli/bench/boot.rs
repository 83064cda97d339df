//! `lab bench`.

use super::call::Caller;
use crate::{
    bench::boot::{Bench, BootRound, MatrixRound, Rerun, Spread, seconds},
    cli::bench::BenchArgs,
    error::Error,
    guests::{GuestOptions, Guests, progress},
    project::{Project, filter::KernelFilter, select::build},
};
use lab_base::{
    file::FileError,
    say::{say, show},
};
use lab_protocol::CellId;
use lab_record::{
    event::{Event, Stamped},
    exit::Exit,
    plan::{Expectation, Plan},
    reporter::Reporter,
    run::RunRecord,
};
use lab_report::results::directory;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Kernels that stock vng can boot.
const KERNELS: &str = "*-generic";

pub(super) fn bench(named: Option<PathBuf>, args: &BenchArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let patterns = if args.kernel.is_empty() { vec![KERNELS.to_owned()] } else { args.kernel.clone() };
    let kernels = project.kernels_for_programs(&KernelFilter { kernel: patterns, ..KernelFilter::default() })?;
    let selected = build(&project, args.no_build, false)?;
    let guests = Guests::open(&project, &kernels, &selected)?;
    let scratch = lab_vm::scratch()?;

    let all = Plan::new(guests.facts(), selected.cells, false);
    let runs =
        |id: &_| all.kernels.iter().all(|it| it.cell(id).is_some_and(|cell| cell.expectation == Expectation::Run));
    let first = all.cells.iter().find(|info| runs(&info.id)).ok_or(Error::NothingSelected)?.clone();
    let mut rounds = Vec::new();
    let mut matrix = Vec::new();
    let how = |cold| GuestOptions { cold, ..GuestOptions::default() };
    let measure = |plan: Plan, cold: bool| -> Result<(FirstCase, RunRecord), Error> {
        let mut first = FirstCase::default();
        let record = guests.run(directory::fresh_id(), plan, scratch.path(), &how(cold), &mut [&mut first])?;
        match record.exit() {
            Exit::Passed => Ok((first, record)),
            exit => Err(Error::Host(format!("the measured cells did not pass (exit code {})", exit.code()))),
        }
    };
    for number in 1..=args.repeat.get() {
        for facts in guests.facts() {
            let id = facts.id.clone();
            let plan = || Plan::new(vec![facts.clone()], vec![first.clone()], false);
            if number == 1 {
                // Creating the snapshot is not part of a restore.
                measure(plan(), false)?;
                guests.stock(&id)?.prove()?;
            }
            let stock = guests.stock(&id)?.boot()?;
            let peak = |record: &RunRecord| record.kernels.get(&id)?.finished?.1;
            let (cold, booted) = measure(plan(), true)?;
            let (warm, restored) = measure(plan(), false)?;
            let (cold_kib, warm_kib) = (peak(&booted), peak(&restored));
            let round = BootRound {
                kernel: id.to_string(),
                stock_s: seconds(stock.took),
                cold_s: cold.seconds()?,
                warm_s: warm.seconds()?,
                stock_kib: stock.peak_memory_kib,
                cold_kib,
                warm_kib,
            };
            say(&format!(
                "round {number}, {}: stock {:.2} s, cold {:.2} s, warm {:.2} s",
                round.kernel, round.stock_s, round.cold_s, round.warm_s
            ));
            rounds.push(round);
        }
    }
    let rerun = again(&project, &kernels.last().ok_or(Error::NothingSelected)?.id, &first.id, args, scratch.path())?;
    for _ in 0..args.matrix {
        let wall = |cold| -> Result<f64, Error> {
            let begin = Instant::now();
            guests.run(directory::fresh_id(), all.clone(), scratch.path(), &how(cold), &mut [&mut *progress()])?;
            Ok(seconds(begin.elapsed()))
        };
        matrix.push(MatrixRound { cold_s: wall(true)?, warm_s: wall(false)? });
    }
    let bench = Bench::new(guests.accelerator(), guests.qemu(), rounds, matrix, rerun);
    let results = project.root.join("results");
    let path = results.join("bench.json");
    let text = serde_json::to_string_pretty(&bench).map_err(|error| Error::Host(error.to_string()))?;
    fs::create_dir_all(&results).and_then(|()| fs::write(&path, text)).map_err(Error::file("write", &path))?;
    show(format_args!("{}\n{}\n", bench.table(), path.display()))?;
    Ok(Exit::Passed)
}

/// Runs one cell on one kernel repeatedly, each time as a new process with all its checks.
fn again(
    project: &Project,
    kernel: &str,
    cell: &CellId,
    args: &BenchArgs,
    scratch: &Path,
) -> Result<Option<Rerun>, Error> {
    let lab = Caller::new(&project.root)?;
    let out = scratch.to_string_lossy();
    let mut took = Vec::new();
    for _ in 0..args.reruns {
        let words = ["run", "--kernel", kernel, "--case", cell.as_str(), "--out", &out];
        took.push(seconds(lab.timed(words.into_iter().chain(args.no_build.then_some("--no-build")))?));
    }
    Ok((!took.is_empty()).then(|| Rerun {
        kernel: kernel.to_owned(),
        cell: cell.to_string(),
        count: args.reruns,
        total_s: took.iter().sum(),
        each_s: Spread::of(took),
    }))
}

/// Measures the time from the start of a kernel's part of the run, with its image built, to its first case.
#[derive(Debug, Default)]
struct FirstCase {
    begin: Option<Instant>,
    took: Option<Duration>,
}

impl FirstCase {
    fn seconds(&self) -> Result<f64, Error> {
        let took = self.took.ok_or_else(|| Error::Host("no case started".to_owned()))?;
        Ok(seconds(took))
    }
}

impl Reporter for FirstCase {
    fn event(&mut self, stamped: &Stamped, _record: &RunRecord) -> Result<(), FileError> {
        match &stamped.event {
            Event::KernelStarted { .. } => self.begin = Some(Instant::now()),
            Event::CellStarted { .. } if self.took.is_none() => self.took = self.begin.map(|begin| begin.elapsed()),
            _ => {}
        }
        Ok(())
    }
}
