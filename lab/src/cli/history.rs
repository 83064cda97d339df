//! `lab history`, `lab splats` and `lab trend`.

use super::args::OutputArgs;
use crate::{error::Error, project};
use clap::Args;
use lab_base::{
    say::{say, show},
    selection::{self, Pattern},
    text,
};
use lab_record::exit::Exit;
use lab_report::{
    history::{self, History, splats},
    results::{Stored, directory, newest},
};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    path::{Path, PathBuf},
};

#[derive(Debug, Args)]
pub(super) struct TrendArgs {
    #[command(flatten)]
    runs: RunsArgs,
    /// Output file. Default: trend.html in the directory of the runs.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct SplatsArgs {
    #[command(flatten)]
    runs: RunsArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// Cases or cells by name or catalogue number, `*` and `?` allowed.
    #[arg(value_name = "CASE", required = true)]
    case: Vec<String>,
    /// Kernels by id, `*` and `?` allowed; repeatable, or with commas.
    #[arg(short, long, value_name = "GLOB", value_delimiter = ',')]
    kernel: Vec<String>,
    #[command(flatten)]
    runs: RunsArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct RunsArgs {
    /// Directory of the runs. Default: results/ in the project.
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Use only the newest runs of the suite, and as many of `lab exec`.
    #[arg(long, value_name = "N", default_value = "60", value_parser = crate::cli::args::size)]
    last: std::num::NonZeroUsize,
    /// Also use runs that are not regular: with a deliberate fault, of canaries, of a part of the cells, interrupted.
    #[arg(long)]
    every_run: bool,
}

/// The selected runs, and their directory.
fn runs(named: Option<PathBuf>, args: &RunsArgs) -> Result<(PathBuf, Vec<Stored>), Error> {
    let results = match &args.results {
        Some(results) => results.clone(),
        None => project::root(named)?.join("results"),
    };
    let runs = newest(&results, args.last.get())?;
    if runs.is_empty() {
        return Err(Error::NoRuns { path: results });
    }
    Ok((results, runs))
}

pub(super) fn history(named: Option<PathBuf>, args: &HistoryArgs) -> Result<Exit, Error> {
    let (_, runs) = runs(named, &args.runs)?;
    let kernels: Vec<Pattern> = args.kernel.iter().map(|text| Pattern::of_names(text)).collect();
    let known = RefCell::new(BTreeSet::new());
    let wanted = |kernel: &str| {
        if !known.borrow().contains(kernel) {
            known.borrow_mut().insert(kernel.to_owned());
        }
        kernels.is_empty() || kernels.iter().any(|pattern| pattern.matches(kernel))
    };
    let history = History::read(&runs, |kernel, _| wanted(kernel), args.runs.every_run, &say)?;
    let known: Vec<String> = known.into_inner().into_iter().collect();
    selection::select("kernel", &known, &args.kernel, |kernel| vec![kernel])?;
    let history = history.narrow(&args.case)?;
    args.output.show("history", &history, || history::text(&history))?;
    Ok(Exit::Passed)
}

pub(super) fn splats(named: Option<PathBuf>, args: &SplatsArgs) -> Result<Exit, Error> {
    let (_, runs) = runs(named, &args.runs)?;
    let found = splats::recurring(&runs, &say)?;
    args.output.show("splats", &found, || splats::render(&found))?;
    Ok(Exit::Passed)
}

pub(super) fn trend(named: Option<PathBuf>, args: &TrendArgs) -> Result<Exit, Error> {
    let (results, runs) = runs(named, &args.runs)?;
    let history = History::read(&runs, |_, _| true, args.runs.every_run, &say)?;
    let path = args.out.clone().unwrap_or_else(|| results.join(history::FILE));
    let path = if path.parent() == Some(Path::new("")) { Path::new(".").join(path) } else { path };
    directory::replace_with(&path, |out| history::page(&history, out))?;
    let [runs, cells] =
        [(history.runs.len(), "run"), (history.series.len(), "cell")].map(|(count, what)| text::count(count, what));
    show(format_args!("{runs}, {cells}: {}\n", path.display()))?;
    Ok(Exit::Passed)
}
