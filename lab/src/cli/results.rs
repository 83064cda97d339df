//! `lab results list|prune`.

use super::args::OutputArgs;
use crate::{error::Error, project};
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use lab_base::text;
use lab_guard::foreign;
use lab_record::exit::Exit;
use lab_report::{
    results::{COUNTS, Decision, Retention, Stored, figures, newest, places, prune},
    run_json,
};
use serde::Serialize;
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Bytes of a `run.json` that are read for a line of a table.
const SUMMARY_LIMIT: u64 = 256 << 20;

#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Number of runs of the suite to keep, and of runs of `lab exec`, instead of the value in lab.toml.
    #[arg(long, value_name = "N", value_parser = super::args::within(1, u32::MAX))]
    keep: Option<u32>,
    /// Days to keep a run, instead of the value in lab.toml.
    #[arg(long, value_name = "N", value_parser = super::args::within(1, u32::MAX))]
    days: Option<u32>,
    /// Only show which runs would be removed.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum ResultsCommand {
    /// List the runs with their result and size.
    List(OutputArgs),
    /// Remove runs beyond the limits of lab.toml. Never removed are the newest run, the run that `latest` points to,
    /// and the newest run that did not pass. Runs of `lab exec` are counted apart.
    Prune(PruneArgs),
}

pub(super) fn results(named: Option<PathBuf>, command: &ResultsCommand) -> Result<Exit, Error> {
    let project = project::root(named)?;
    let results = project.join("results");
    match command {
        ResultsCommand::List(output) => list(&results, output),
        ResultsCommand::Prune(args) => pruned(&project, &results, args),
    }
}

/// A line of the list, read from `run.json`, which is small; a run that did not end has none.
#[derive(Serialize)]
struct Listed {
    id: String,
    exit_code: Option<u64>,
    counts: BTreeMap<&'static str, Option<u64>>,
    bytes: u64,
}

fn list(results: &Path, output: &OutputArgs) -> Result<Exit, Error> {
    let runs: Vec<Listed> = newest(results, usize::MAX)?.iter().map(listed).collect();
    output.show("runs", &runs, || format!("{}\n", table(&runs)))?;
    Ok(Exit::Passed)
}

fn listed(run: &Stored) -> Listed {
    let text = foreign::read(&run.directory.join(run_json::FILE), SUMMARY_LIMIT).unwrap_or_default();
    let (exit_code, counts) = figures(&text);
    Listed { id: run.id.clone(), exit_code, counts: COUNTS.into_iter().zip(counts).collect(), bytes: run.size() }
}

fn table(runs: &[Listed]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["run", "exit", "passed", "failed", "skipped", "errored", "not run", "MiB"]);
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for run in runs {
        let mut row = vec![run.id.clone(), number(run.exit_code)];
        row.extend(COUNTS.map(|key| number(run.counts.get(key).copied().flatten())));
        row.push(format!("{:.1}", run.bytes as f64 / f64::from(1 << 20)));
        table.add_row(row);
    }
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 1));
    });
    table.trim_fmt()
}

fn pruned(project: &Path, results: &Path, args: &PruneArgs) -> Result<Exit, Error> {
    let rule = Retention::load(project)?;
    let rule = Retention { keep: args.keep.unwrap_or(rule.keep), days: args.days.unwrap_or(rule.days) };
    let mut verdicts = Vec::new();
    for place in places(results) {
        verdicts.extend(prune(&place, rule, args.dry_run)?);
    }
    let goes = || verdicts.iter().filter(|verdict| verdict.goes);
    let stay = verdicts.len() - goes().count();
    let run = |verdict: &Decision| json!({ "id": verdict.run.id, "why": verdict.why });
    let told = json!({ "dry_run": args.dry_run, "gone": goes().map(run).collect::<Vec<_>>(), "stay": stay });
    args.output.show("runs", &told, || {
        let word = if args.dry_run { "would go" } else { "removed" };
        let lines = goes().map(|verdict| format!("{word} {}: {}\n", verdict.run.id, verdict.why));
        let (runs, gone) = (text::count(stay, "run"), goes().count());
        lines.collect::<String>() + &format!("{runs} stay, {gone} {word} (keep {}, {} days)\n", rule.keep, rule.days)
    })?;
    Ok(Exit::Passed)
}
