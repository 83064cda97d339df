//! What is asked about runs that are over: their history, what is kept of them, what changed between two.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct RunsArgs {
    /// Directory of the runs. Default: results/ in the project.
    #[arg(long, value_name = "DIR")]
    pub(super) results: Option<PathBuf>,
    /// The newest runs only.
    #[arg(long, value_name = "N", default_value = "60")]
    pub(super) last: std::num::NonZeroUsize,
}

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// Cases or cells by name or catalogue number, `*` and `?` allowed.
    #[arg(value_name = "CASE", required = true)]
    pub(super) case: Vec<String>,
    /// Kernels by id, `*` and `?` allowed; repeatable.
    #[arg(long, value_name = "GLOB")]
    pub(super) kernel: Vec<String>,
    #[command(flatten)]
    pub(super) runs: RunsArgs,
    /// As JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ComplaintsArgs {
    #[command(flatten)]
    pub(super) runs: RunsArgs,
    /// As JSON, with what the kernel wrote.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct TrendArgs {
    #[command(flatten)]
    pub(super) runs: RunsArgs,
    /// The page. Default: trend.html beside the runs.
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ResultsCommand {
    /// Name the runs, with how they ended and their size.
    List,
    /// Remove runs beyond the bounds of lab.toml. The newest stays, the one that `latest` points to, and the newest that
    /// did not pass.
    Prune(PruneArgs),
}

#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Runs to keep, the newest ones, in place of what lab.toml says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) keep: Option<u32>,
    /// Days to keep a run, in place of what lab.toml says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) days: Option<u32>,
    /// Only tell what would go.
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// The earlier run: a directory, or a name below results/.
    #[arg(value_name = "BEFORE")]
    pub(super) before: PathBuf,
    /// The later run.
    #[arg(value_name = "AFTER", default_value = "latest")]
    pub(super) after: PathBuf,
    /// How the comparison is written.
    #[arg(long, value_enum, default_value = "text")]
    pub(super) format: lab_report::compare::Format,
    /// Exit 1 only for what is new: failures that were there before do not count.
    #[arg(long)]
    pub(super) new_only: bool,
    /// Instead: whether both runs have the same cells with the same outcomes and attach types; exit 1 where not.
    #[arg(long, conflicts_with_all = ["format", "new_only"])]
    pub(super) same: bool,
}
