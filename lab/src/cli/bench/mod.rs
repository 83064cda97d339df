//! `lab bench` and its subcommands.

mod boot;
mod datapath;
mod report;
mod suite;

use self::{datapath::DatapathArgs, report::ReportBenchArgs, suite::BenchSuiteArgs};
use crate::error::Error;
use clap::{Args, Subcommand};
use lab_record::exit::Exit;
use std::path::PathBuf;

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

pub(super) fn bench(named: Option<PathBuf>, args: &BenchArgs) -> Result<Exit, Error> {
    match &args.what {
        Some(BenchCommand::Datapath(args)) => datapath::datapath(named, args),
        Some(BenchCommand::Suite(args)) => suite::bench_suite(named, args),
        Some(BenchCommand::Report(args)) => report::report(named, args),
        None => boot::bench(named, args),
    }
}
