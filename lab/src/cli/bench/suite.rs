//! `lab bench suite`.

use crate::{
    bench::suite::Rounds,
    error::Error,
    guests::{GuestOptions, Guests, progress},
    project::{
        Project,
        filter::KernelFilter,
        select::{build, names},
    },
};
use clap::Args;
use lab_base::{
    say::{say, show},
    selection,
};
use lab_record::{exit::Exit, plan::Plan};
use lab_report::results::directory;
use std::{fs, num::NonZeroUsize, path::PathBuf};

#[derive(Debug, Args)]
pub(in crate::cli) struct BenchSuiteArgs {
    /// Kernels by id. Default: the default matrix.
    #[arg(short, long, value_name = "GLOB")]
    kernel: Vec<String>,
    /// Cases, cells or numbers of the catalogue. Default: all.
    #[arg(short, long, value_name = "GLOB")]
    case: Vec<String>,
    /// Number of rounds.
    #[arg(long, value_name = "N", default_value = "1", value_parser = crate::cli::args::count::<std::num::NonZeroU32>)]
    repeat: std::num::NonZeroU32,
    /// Use the existing builds of the agent and the eBPF object.
    #[arg(long)]
    no_build: bool,
}

pub(super) fn bench_suite(named: Option<PathBuf>, args: &BenchSuiteArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let kernels = project.kernels(&KernelFilter { kernel: args.kernel.clone(), ..KernelFilter::default() })?;
    let selected = build(&project, args.no_build, false)?;
    let guests = Guests::open(&project, &kernels, &selected)?;
    let scratch = lab_vm::scratch()?;
    let cells = selection::select("case", &selected.cells, &args.case, names)?.into_iter().cloned().collect();
    let plan = Plan::new(guests.facts(), cells, false);
    let mut rounds = Rounds::default();
    // One guest at a time: parallel guests would slow each other down.
    let how = GuestOptions { jobs: Some(NonZeroUsize::MIN), ..GuestOptions::default() };
    for number in 1..=args.repeat.get() {
        say(&format!("round {number} of {}", args.repeat));
        let record = guests.run(directory::fresh_id(), plan.clone(), scratch.path(), &how, &mut [&mut *progress()])?;
        if record.exit() != Exit::Passed {
            return Err(Error::Host(format!(
                "the measured cells did not pass (exit code {}); `lab run` shows the reason",
                record.exit().code()
            )));
        }
        rounds.add(&record);
    }
    let bench = rounds.result(guests.accelerator(), guests.qemu());
    let results = project.root.join("results");
    let path = results.join("bench-suite.json");
    let text = serde_json::to_string_pretty(&bench).map_err(|error| Error::Host(error.to_string()))?;
    fs::create_dir_all(&results).and_then(|()| fs::write(&path, text)).map_err(Error::file("write", &path))?;
    show(format_args!("{}\n\n{}\n", bench.table(), path.display()))?;
    Ok(Exit::Passed)
}
