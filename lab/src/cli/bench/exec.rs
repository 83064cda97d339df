//! `lab bench exec`.

use super::{
    call::Caller,
    served::{Ready, nobody_serves, served, were_held},
};
use crate::{
    bench::{
        boot::seconds,
        exec::{AllRound, ExecBench, ManyCommands, OneRound, RootRound},
    },
    cli::exec::built,
    error::Error,
    guests::Guests,
    project::{Project, filter::KernelFilter},
};
use clap::Args;
use lab_base::{
    lock::lock,
    say::{say, show},
};
use lab_record::{
    event::{Event, Start},
    exit::Exit,
    log::EventReader,
};
use lab_report::results::directory;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread::{self, available_parallelism},
    time::{Duration, Instant},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct ExecBenchArgs {
    /// Kernels by id; a stock virtme-ng must be able to boot them, unless --repeat is 0. Default: the generic builds of the
    /// default matrix.
    #[arg(short, long, value_name = "GLOB")]
    kernel: Vec<String>,
    /// Number of rounds of a stock boot and a command on each kernel, and a command on all of them; 0 compares nothing with
    /// virtme-ng.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = crate::cli::args::within(0, 1000))]
    repeat: u32,
    /// Number of commands in a pristine guest each, on the last of the kernels.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::cli::args::within(0, 100_000))]
    commands: u32,
}

/// Kernels that stock vng can boot.
const KERNELS: &str = "*-generic";
/// File name in the project's results directory.
const FILE: &str = "bench-exec.json";

pub(super) fn exec(named: Option<PathBuf>, args: &ExecBenchArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    nobody_serves(project.cache.root())?;
    let patterns = if args.kernel.is_empty() { vec![KERNELS.to_owned()] } else { args.kernel.clone() };
    let kernels = project.kernels_for_programs(&KernelFilter { kernel: patterns, ..KernelFilter::default() })?;
    // What the measured commands use as well: they build nothing.
    let guests = Guests::open(&project, &kernels, &built(&project, false)?)?;
    let scratch = lab_vm::scratch()?;
    let lab = Lab { caller: Caller::new(&project.root)?, results: scratch.path() };
    let ids: Vec<&str> = kernels.iter().map(|kernel| kernel.id.as_str()).collect();
    let last = *ids.last().ok_or(Error::NothingSelected)?;

    for id in &ids {
        // Making snapshots is not part of a command.
        lab.run(&[id], "host", "made")?;
        lab.run(&[id], "image", "made")?;
        if args.repeat > 0 {
            guests.stock(id)?.prove()?;
        }
    }
    let (mut one, mut all, mut roots) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=args.repeat {
        let begin = one.len();
        for id in &ids {
            let stock_s = seconds(guests.stock(id)?.boot()?.took);
            let exec_s = seconds(lab.run(&[id], "host", "one")?);
            say(&format!("round {number}, {id}: stock {stock_s:.2} s, exec {exec_s:.2} s"));
            one.push(OneRound { kernel: (*id).to_owned(), stock_s, exec_s, held_s: 0.0 });
        }
        let stock_s = one[begin..].iter().map(|round| round.stock_s).sum();
        let exec_s = seconds(lab.run(&ids, "host", "all")?);
        say(&format!("round {number}, all kernels: stock {stock_s:.2} s, exec {exec_s:.2} s"));
        all.push(AllRound { stock_s, exec_s, held_s: 0.0 });
    }
    if args.repeat > 0 {
        served(project.cache.root(), |ready| lab.held(&ids, &mut one, &mut all, ready))?;
    }
    for _ in 0..args.repeat.max(1) {
        for id in &ids {
            let measure = |root| {
                lab.run(&[id], root, root)?;
                lab.guest(root)
            };
            let (host, image) = (measure("host")?, measure("image")?);
            let kernel = (*id).to_owned();
            roots.push(RootRound {
                kernel,
                host_s: host.seconds,
                image_s: image.seconds,
                host_kib: host.peak_kib,
                image_kib: image.peak_kib,
            });
        }
    }
    let jobs = available_parallelism().map_or(1, usize::from);
    let commands = lab.many(last, args.commands, jobs)?;

    let bench = ExecBench::new(guests.accelerator(), guests.qemu(), jobs, (one, all), roots, commands);
    let results = project.root.join("results");
    let path = results.join(FILE);
    let text = serde_json::to_string_pretty(&bench).map_err(|error| Error::Host(error.to_string()))?;
    fs::create_dir_all(&results).map_err(Error::file("create", &results))?;
    directory::replace(&path, text.as_bytes())?;
    show(format_args!("{}\n{}\n", bench.table(), path.display()))?;
    Ok(Exit::Passed)
}

/// Starts this program as a person would.
struct Lab<'a> {
    caller: Caller,
    /// Directory for results.
    results: &'a Path,
}

/// A restored guest that ran one command.
struct OneGuest {
    /// From its start to the end of its command.
    seconds: f64,
    peak_kib: Option<u64>,
}

impl Lab<'_> {
    /// Runs `true` on the kernels; gives the time until the program's exit. Results are in the directory `place`.
    fn run(&self, kernels: &[&str], root: &str, place: &str) -> Result<Duration, Error> {
        let results = self.results.join(place);
        let results = results.to_string_lossy();
        let kernels = kernels.iter().flat_map(|id| ["--kernel", *id]);
        let words = ["exec", "--no-build", "--root", root].into_iter().chain(kernels);
        self.caller.timed(words.chain(["--results", &*results, "--", "true"]))
    }

    /// Measures the same commands in guests that are held, and adds what they take.
    fn held(&self, ids: &[&str], one: &mut [OneRound], all: &mut [AllRound], ready: &Ready) -> Result<(), Error> {
        const PLACE: &str = "held";
        let mut runs = 0;
        self.run(ids, "host", PLACE)?;
        let mut measure = |kernels: &[&str]| {
            ready.after(ids.len(), runs)?;
            let held_s = seconds(self.run(kernels, "host", PLACE)?);
            runs += kernels.len();
            were_held(&self.results.join(PLACE)).map(|()| held_s)
        };
        for (number, (each, together)) in one.chunks_mut(ids.len()).zip(all).enumerate() {
            for round in each {
                round.held_s = measure(&[&round.kernel])?;
            }
            together.held_s = measure(ids)?;
            say(&format!("round {}, all kernels, with `lab serve`: {:.2} s", number + 1, together.held_s));
        }
        Ok(())
    }

    /// The only guest of the last run in `place`.
    fn guest(&self, place: &str) -> Result<OneGuest, Error> {
        let (mut begin, mut end, mut peak_kib) = (None, None, None);
        for stamped in EventReader::open(&self.results.join(place).join(directory::LATEST))? {
            let stamped = stamped?;
            match stamped.event {
                Event::GuestStarted { start: Start::Restore, .. } => begin = Some(stamped.at_ms),
                Event::CellFinished { .. } => end = Some(stamped.at_ms),
                Event::KernelFinished { peak_memory_kib, .. } => peak_kib = peak_memory_kib,
                _ => {}
            }
        }
        let took = begin.zip(end).map(|(begin, end)| end.saturating_sub(begin));
        let took = took.ok_or_else(|| Error::Host("the measured guest was not restored from a snapshot".to_owned()))?;
        Ok(OneGuest { seconds: took as f64 / 1000.0, peak_kib })
    }

    /// Runs many commands, `jobs` at a time.
    fn many(&self, kernel: &str, count: u32, jobs: usize) -> Result<Option<ManyCommands>, Error> {
        if count == 0 {
            return Ok(None);
        }
        let left = Mutex::new(0..count);
        let begin = Instant::now();
        let left = &left;
        let ran: Vec<Result<(), Error>> = thread::scope(|scope| {
            let work = move |job: usize| {
                let place = format!("many-{job}");
                while lock(left).next().is_some() {
                    self.run(&[kernel], "host", &place)?;
                }
                Ok(())
            };
            let threads: Vec<_> = (0..jobs).map(|job| scope.spawn(move || work(job))).collect();
            let joined =
                threads.into_iter().map(|it| it.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.collect()
        });
        let total_s = seconds(begin.elapsed());
        ran.into_iter().collect::<Result<Vec<()>, Error>>()?;
        Ok(Some(ManyCommands { kernel: kernel.to_owned(), count, jobs, total_s }))
    }
}
