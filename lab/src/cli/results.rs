//! `lab results list|prune`.

use crate::{error::Error, project};
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use lab_base::say::show;
use lab_record::exit::Exit;
use lab_report::{
    results::{Retention, Stored, prune, stored},
    run_json,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Runs to keep, the newest ones, in place of what lab.toml says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Days to keep a run, in place of what lab.toml says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    days: Option<u32>,
    /// Only tell what would go.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ResultsCommand {
    /// Name the runs, with how they ended and their size.
    List,
    /// Remove runs beyond the bounds of lab.toml. The newest stays, the one that `latest` points to, and the newest that
    /// did not pass.
    Prune(PruneArgs),
}

pub(super) fn results(named: Option<PathBuf>, command: &ResultsCommand) -> Result<Exit, Error> {
    let project = project::root(named)?;
    let results = project.join("results");
    match command {
        ResultsCommand::List => list(&results),
        ResultsCommand::Prune(args) => pruned(&project, &results, args),
    }
}

fn list(results: &Path) -> Result<Exit, Error> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["run", "exit", "passed", "failed", "skipped", "errored", "not run", "MiB"]);
    for run in stored(results)? {
        table.add_row(row(&run));
    }
    show(format_args!("{table}\n"))?;
    Ok(Exit::Passed)
}

/// From `run.json`, which is small, and which a run that did not end lacks.
fn row(run: &Stored) -> Vec<String> {
    let text = fs::read(run.directory.join(run_json::FILE)).unwrap_or_default();
    let summary: Value = serde_json::from_slice(&text).unwrap_or_default();
    let number = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
    let counts = ["passed", "failed", "skipped", "errored", "not-run"].map(|key| number(&summary["counts"][key]));
    let mut row = vec![run.id.clone(), number(&summary["exit_code"])];
    row.extend(counts);
    row.push(format!("{:.1}", run.size() as f64 / f64::from(1 << 20)));
    row
}

fn pruned(project: &Path, results: &Path, args: &PruneArgs) -> Result<Exit, Error> {
    let rule = Retention::load(project)?;
    let rule = Retention { keep: args.keep.unwrap_or(rule.keep), days: args.days.unwrap_or(rule.days) };
    let verdicts = prune(results, rule, args.dry_run)?;
    let word = if args.dry_run { "would go" } else { "removed" };
    for verdict in verdicts.iter().filter(|verdict| verdict.goes) {
        show(format_args!("{word} {}: {}\n", verdict.run.id, verdict.why))?;
    }
    let gone = verdicts.iter().filter(|verdict| verdict.goes).count();
    let stay = verdicts.len() - gone;
    show(format_args!("{stay} runs stay, {gone} {word} (keep {}, {} days)\n", rule.keep, rule.days))?;
    Ok(Exit::Passed)
}
