//! `lab bench datapath`.

use crate::{
    bench::datapath::{DatapathReport, KernelTable, Measurement, setups},
    error::Error,
    guests::{Guests, VisitLog, machine::Shape},
    project::{Project, filter::KernelFilter, select::build},
    run::visit::Visited,
};
use clap::Args;
use lab_base::{
    say::{say, show},
    text,
};
use lab_record::exit::Exit;
use lab_report::results::directory;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(in crate::cli) struct DatapathArgs {
    /// Kernels by id, `*` and `?` allowed; repeatable. Default: the kernels with `default = true`.
    #[arg(short, long, value_name = "GLOB")]
    kernel: Vec<String>,
    /// Number of rounds; the range of a ratio is over the rounds.
    #[arg(long, value_name = "N", default_value = "5", value_parser = crate::cli::args::count::<std::num::NonZeroU32>)]
    repeat: std::num::NonZeroU32,
    /// Measuring time of each figure of a setup in each round, milliseconds.
    #[arg(long, value_name = "MS", default_value = "150", value_parser = crate::cli::args::count::<std::num::NonZeroU32>)]
    window: std::num::NonZeroU32,
    /// Use the existing builds of the agent and the eBPF object.
    #[arg(long)]
    no_build: bool,
}

/// File name in `results/`.
const FILE: &str = "bench-datapath.json";

pub(super) fn datapath(named: Option<PathBuf>, args: &DatapathArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let kernels =
        project.kernels_for_programs(&KernelFilter { kernel: args.kernel.clone(), ..KernelFilter::default() })?;
    let selected = build(&project, args.no_build, false)?;
    let guests = Guests::open(&project, &kernels, &selected)?;
    let (rounds, window_ms) = (args.repeat.get(), args.window.get());
    let mut tables = Vec::new();
    for facts in guests.facts() {
        let id = &facts.id;
        let told = VisitLog::default();
        let round = |line: &str| say(&format!("{id}: {line}"));
        let measurement = Measurement::new(setups(&facts), rounds, window_ms, &round);
        match guests.visit(id, &Shape::default(), false, None, &measurement, &told)? {
            Visited::Interrupted => return Ok(guests.interrupted()),
            Visited::Lost => return Ok(Exit::Infra),
            Visited::Done => {}
        }
        let rows = measurement
            .rows()
            .map_err(|problem| Error::Host(format!("{id}: {}", text::line(&problem.to_string(), 1000))))?;
        tables.push(KernelTable { kernel: id.to_string(), release: told.release(), rows });
    }
    let report = DatapathReport::new(guests.accelerator(), guests.qemu(), rounds, window_ms, tables);
    let results = project.root.join("results");
    let path = results.join(FILE);
    let json = serde_json::to_string_pretty(&report).map_err(|error| Error::Host(error.to_string()))?;
    std::fs::create_dir_all(&results).map_err(Error::file("create", &results))?;
    directory::replace(&path, json.as_bytes())?;
    show(format_args!("{}\n{}\n", report.table(), path.display()))?;
    Ok(Exit::Passed)
}
