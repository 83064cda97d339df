//! `lab bench check`.

use super::call::Caller;
use crate::{
    bench::check::{CheckBench, CheckRound, spread},
    check::corpus,
    cli::exec::built,
    error::Error,
    guests::Guests,
    project::{Project, filter::KernelFilter, home::Home},
};
use clap::Args;
use lab_base::say::{say, show};
use lab_record::exit::Exit;
use lab_report::results::directory;
use procfs::Current;
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    thread::available_parallelism,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct CheckBenchArgs {
    /// The objects. Default: the project's own corpus, which is compiled first; only a checkout has it.
    #[arg(value_name = "OBJECT")]
    objects: Vec<PathBuf>,
    /// Kernels by id that the objects are checked on. Default: the default matrix.
    #[arg(short, long, value_name = "GLOB")]
    kernel: Vec<String>,
    /// Number of checks, after one that is not measured and makes the snapshots; 0 measures predictions alone.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = crate::cli::args::within(0, 1000))]
    repeat: u32,
    /// Number of predictions on every kernel of kernels.toml that is in the cache, after one that is not measured.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = crate::cli::args::within(0, 1000))]
    predictions: u32,
}

/// File name in the project's results directory.
const FILE: &str = "bench-check.json";

pub(super) fn check(named: Option<PathBuf>, args: &CheckBenchArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let kernels =
        project.kernels_for_programs(&KernelFilter { kernel: args.kernel.clone(), ..KernelFilter::default() })?;
    let scratch = lab_vm::scratch()?;
    let objects = if args.objects.is_empty() { own(&project, scratch.path())? } else { args.objects.clone() };
    // What the measured commands use as well: they build nothing.
    project.builder().loader()?;
    let guests = Guests::open(&project, &kernels, &built(&project, false)?)?;
    let lab = Lab { caller: Caller::new(&project.root)?, objects: &objects };
    let ids: Vec<String> = kernels.iter().map(|kernel| kernel.id.to_string()).collect();
    let results = scratch.path().join("results").display().to_string();
    let mut words = vec!["--no-build", "--results", &*results];
    words.extend(ids.iter().flat_map(|id| ["--kernel", id]));
    let predict = ["--predict", "--all"];
    let checks = lab.rounds("check", &words, args.repeat)?;
    let predictions = lab.rounds("prediction", &predict, args.predictions)?;
    let every = project.kernels_for_programs(&KernelFilter { all: true, ..KernelFilter::default() })?;
    let predicted = every.iter().filter(|kernel| project.store().is_cached(kernel, &project.lock)).count();
    let bench = CheckBench {
        accelerator: guests.accelerator(),
        qemu: guests.qemu(),
        processors: available_parallelism().map_or(1, usize::from),
        build: if cfg!(debug_assertions) { "debug" } else { "release" },
        objects: objects.len(),
        kernels: ids,
        predicted,
        not_cached: every.len() - predicted,
        check_s: spread(&checks),
        predict_s: spread(&predictions),
        checks,
        predictions,
    };
    let results = project.root.join("results");
    let path = results.join(FILE);
    let text = serde_json::to_string_pretty(&bench).map_err(|error| Error::Host(error.to_string()))?;
    fs::create_dir_all(&results).map_err(Error::file("create", &results))?;
    directory::replace(&path, text.as_bytes())?;
    show(format_args!("{}\n{}\n", bench.table(), path.display()))?;
    Ok(Exit::Passed)
}

/// The project's own objects.
fn own(project: &Project, scratch: &Path) -> Result<Vec<PathBuf>, Error> {
    let Home::Checkout(root) = &project.home else {
        return Err(Error::Usage("name the objects: only a checkout of the lab has a corpus of its own".to_owned()));
    };
    let objects = scratch.join("corpus");
    fs::create_dir(&objects).map_err(Error::file("create", &objects))?;
    corpus::compile_all(&root.join(corpus::SOURCES), &objects, project.cache.root())
}

/// Starts this program as a person would.
struct Lab<'a> {
    caller: Caller,
    objects: &'a [PathBuf],
}

impl Lab<'_> {
    /// Runs `lab check` several times, after once that is not measured.
    fn rounds(&self, what: &str, words: &[&str], count: u32) -> Result<Vec<CheckRound>, Error> {
        if count == 0 {
            return Ok(Vec::new());
        }
        self.run(words)?;
        let mut rounds = Vec::new();
        for number in 1..=count {
            let round = self.run(words)?;
            say(&format!("{what} {number}: {:.1} s, load {:.1}", round.took_s, round.load));
            rounds.push(round);
        }
        Ok(rounds)
    }

    fn run(&self, words: &[&str]) -> Result<CheckRound, Error> {
        let load = procfs::LoadAverage::current().map_or(0.0, |load| f64::from(load.one));
        let words = ["check"].iter().chain(words).map(OsStr::new).chain(self.objects.iter().map(|it| it.as_os_str()));
        // 1 is a verdict on the objects, which are not what is measured.
        let took = self.caller.timed_until(words, |code| matches!(code, 0 | 1))?;
        Ok(CheckRound { took_s: took.as_secs_f64(), load })
    }
}
