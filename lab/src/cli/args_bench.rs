//! What the benchmarks are asked on the command line.

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(super) struct BenchSuiteArgs {
    /// Kernels by id. Default: the default matrix.
    #[arg(long, value_name = "GLOB")]
    pub(super) kernel: Vec<String>,
    /// Cases, cells or numbers of the catalogue. Default: all.
    #[arg(long, value_name = "GLOB")]
    pub(super) case: Vec<String>,
    /// Rounds.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(super) repeat: std::num::NonZeroU32,
    /// Use the agent and the eBPF object as they are.
    #[arg(long)]
    pub(super) no_build: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    pub(super) what: Option<BenchCommand>,
    /// Kernels by id; a stock virtme-ng must be able to boot them. Default: the default matrix in its generic build.
    #[arg(long, value_name = "GLOB")]
    pub(super) kernel: Vec<String>,
    /// Rounds of stock boot, cold boot and restore per kernel.
    #[arg(long, value_name = "N", default_value = "3")]
    pub(super) repeat: std::num::NonZeroU32,
    /// Rounds of the whole suite on all kernels, cold and warm: minutes each.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) matrix: u32,
    /// How often one case is run again on one kernel, by a process each time.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) reruns: u32,
    /// Use the agent and the eBPF object as they are.
    #[arg(long)]
    pub(super) no_build: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Measure tc, tcx and netkit against each other, on veth and netkit, inside one guest.
    Datapath(DatapathArgs),
    /// Measure the suite itself: time per case, and the slowest ten cells.
    Suite(BenchSuiteArgs),
    /// Measure what merging many shards and rendering their reports costs.
    Report(ReportBenchArgs),
}

#[derive(Debug, Args)]
pub(super) struct DatapathArgs {
    /// Kernels by id, `*` and `?` allowed; repeatable. Default: the kernels with `default = true`.
    #[arg(long, value_name = "GLOB")]
    pub(super) kernel: Vec<String>,
    /// Rounds of all setups; a ratio's spread is over them.
    #[arg(long, value_name = "N", default_value = "5")]
    pub(super) repeat: std::num::NonZeroU32,
    /// How long each figure of a setup is measured in each round, milliseconds.
    #[arg(long, value_name = "MS", default_value = "150")]
    pub(super) window: std::num::NonZeroU32,
    /// Use the agent and the eBPF object as they are.
    #[arg(long)]
    pub(super) no_build: bool,
}

#[derive(Debug, Args)]
pub(super) struct ReportBenchArgs {
    /// Shards to merge.
    #[arg(long, value_name = "N", default_value = "50")]
    pub(super) shards: std::num::NonZeroU32,
    /// Cells of each.
    #[arg(long, value_name = "N", default_value = "5000")]
    pub(super) cells: std::num::NonZeroU32,
}
