//! `lab bench` and its subcommands.

mod boot;
mod call;
mod check;
mod datapath;
mod desk;
mod exec;
mod report;
mod served;
mod suite;

use self::{
    check::CheckBenchArgs, datapath::DatapathArgs, desk::DeskArgs, exec::ExecBenchArgs, report::ReportBenchArgs,
    suite::BenchSuiteArgs,
};
use crate::error::Error;
use clap::{Args, Subcommand};
use lab_record::exit::Exit;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    pub(super) what: Option<BenchCommand>,
    /// Kernels by id; a stock virtme-ng must be able to boot them. Default: the generic builds of the default matrix.
    #[arg(short, long, value_name = "GLOB")]
    pub(super) kernel: Vec<String>,
    /// Number of rounds of stock boot, cold boot and restore per kernel.
    #[arg(long, value_name = "N", default_value = "3", value_parser = crate::cli::args::count::<std::num::NonZeroU32>)]
    pub(super) repeat: std::num::NonZeroU32,
    /// Number of rounds of the whole suite on all kernels, cold and warm; each takes minutes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = crate::cli::args::within(0, u32::MAX))]
    pub(super) matrix: u32,
    /// Number of runs of one case on one kernel, each in a new process.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = crate::cli::args::within(0, u32::MAX))]
    pub(super) reruns: u32,
    /// Use the existing builds of the agent and the eBPF object.
    #[arg(long)]
    pub(super) no_build: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Compare tc, tcx and netkit on veth and netkit inside one guest.
    Datapath(DatapathArgs),
    /// Measure `lab check`: the project's corpus on the default matrix, and predicted on every kernel.
    Check(CheckBenchArgs),
    /// Measure what a person waits for: one cell again, and one cell after an edit.
    Desk(DeskArgs),
    /// Measure commands in guests beside `vng --exec true`: on one kernel, on all, and many of them.
    Exec(ExecBenchArgs),
    /// Measure the suite: time per case, and the ten slowest cells.
    Suite(BenchSuiteArgs),
    /// Measure merging many shards and writing their reports.
    Report(ReportBenchArgs),
}

pub(super) fn bench(named: Option<PathBuf>, args: &BenchArgs) -> Result<Exit, Error> {
    match &args.what {
        Some(BenchCommand::Datapath(args)) => datapath::datapath(named, args),
        Some(BenchCommand::Check(args)) => check::check(named, args),
        Some(BenchCommand::Desk(args)) => desk::desk(named, args),
        Some(BenchCommand::Exec(args)) => exec::exec(named, args),
        Some(BenchCommand::Suite(args)) => suite::bench_suite(named, args),
        Some(BenchCommand::Report(args)) => report::report(named, args),
        None => boot::bench(named, args),
    }
}
