//! The command line.

mod args_bench;
mod args_past;
mod bench;
mod bench_report;
mod bench_suite;
mod bisect;
mod capabilities;
mod compare;
mod datapath;
mod guests;
mod history;
mod kernels;
mod list;
mod merge;
mod mutants;
mod part;
mod plan;
mod project;
mod report;
mod rerun;
mod results;
mod run;
mod select;
mod setup;
mod shell;
mod topology;
mod watch;

use self::{
    args_bench::{BenchArgs, BenchCommand, BenchSuiteArgs, DatapathArgs, ReportBenchArgs},
    args_past::{CompareArgs, ComplaintsArgs, HistoryArgs, PruneArgs, ResultsCommand, RunsArgs, TrendArgs},
};
use crate::{
    error::{Error, Exit},
    report::{capabilities::Format, kcidb},
};
use clap::{Args, Parser, Subcommand};
use lab_protocol::AttachRequest;
use std::path::PathBuf;

/// Boots a matrix of kernels and proves which eBPF attach type each of them uses.
///
/// Exit codes: 0 all passed, 1 a test or kernel failed, 2 usage or configuration, 3 infrastructure (no verdict),
/// 4 nothing selected, 130/143 interrupted.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
pub struct Cli {
    /// Directory with kernels.toml; by default the nearest one at or above the working directory.
    #[arg(long, global = true, value_name = "DIR")]
    project: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run cases on kernels.
    Run(RunArgs),
    /// Run cells of an earlier run again.
    Rerun(RerunArgs),
    /// Enter a guest: a shell on a kernel, with a topology or a case built, stopped before its first packet.
    Shell(ShellArgs),
    /// Measure boots and restores against a stock virtme-ng, side by side.
    Bench(BenchArgs),
    /// Find the kernel, or the commit, that a failure came with, and say how sure that is.
    Bisect(Box<bisect::args::BisectArgs>),
    /// Test what is checked out in a kernel git tree, for `git bisect run`: 0 good, 1 bad, 125 can't tell, 128 or more stop.
    BisectStep(Box<bisect::args::StepArgs>),
    /// Show cases, their variants, and which kernels run them.
    List(ListArgs),
    /// Boot kernels and show what each can do.
    Capabilities(CapabilitiesArgs),
    /// Build deliberate faults into the programs and into attaching, and show which case notices each.
    Mutants(MutantsArgs),
    /// The network topologies that cases run on.
    #[command(subcommand)]
    Topology(TopologyCommand),
    /// Kernels of the matrix.
    #[command(subcommand)]
    Kernels(KernelsCommand),
    /// Show what this machine has and lacks.
    Doctor {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Also what the project's own tests need.
        #[arg(long)]
        tests: bool,
    },
    /// Bring about whatever is missing, in the cache.
    Setup {
        /// Also what the project's own tests need: a browser, and programs that read the reports.
        #[arg(long)]
        tests: bool,
        /// Also what kernels are built with: flex, bison and others.
        #[arg(long, conflicts_with = "tests")]
        builds: bool,
        /// Install the distribution's packages on this machine, in place of unpacking them into the cache.
        #[arg(long)]
        system: bool,
    },
    /// Split a run into shards, for the system that is to run them.
    Plan(PlanArgs),
    /// Make one run out of the results of its shards; one that is missing is an error.
    Merge(MergeArgs),
    /// Keep how long cells took in a file that splits plans the same way everywhere.
    Durations(DurationsArgs),
    /// Rebuild every report of a run from its events.jsonl, or write it in another format.
    Report {
        /// A run's directory, or its name below results/.
        #[arg(value_name = "RUN", default_value = "latest")]
        run: PathBuf,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Show what changed from one run to another; an attach type that changed is as loud as a failure.
    Compare(CompareArgs),
    /// Show how cells ended over many runs.
    History(HistoryArgs),
    /// Name what kernels complained of over the runs: each complaint once, by its fingerprint.
    Complaints(ComplaintsArgs),
    /// Write a page that shows many runs: what changed in each, and which cells are not steady.
    Trend(TrendArgs),
    /// The runs below results/.
    #[command(subcommand)]
    Results(ResultsCommand),
}

#[derive(Debug, Args)]
struct FormatArgs {
    /// Write the run to standard output in this format, in place of what is meant for people.
    #[arg(long, value_enum)]
    format: Option<crate::report::format::Format>,
    /// What KernelCI's database calls this CI system.
    #[arg(long, value_name = "NAME", default_value = kcidb::ORIGIN, value_parser = kcidb::origin)]
    origin: String,
}

#[derive(Debug, Args)]
struct PlanArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// How many shards. Default: one per kernel.
    #[arg(long, value_name = "N")]
    shards: Option<std::num::NonZeroU32>,
    /// For whom the shards are written.
    #[arg(long, value_enum, default_value = "text")]
    format: crate::shard::layout::Format,
    /// Recorded durations. Default: ci/durations.json of the project; without it all cells count the same.
    #[arg(long, value_name = "FILE")]
    durations: Option<PathBuf>,
    /// Container image of the Kubernetes job.
    #[arg(long, value_name = "IMAGE", default_value = "netkit-lab:latest")]
    image: String,
}

#[derive(Debug, Args)]
struct MergeArgs {
    /// Results of shards: a run's directory each, or one with runs directly below it.
    #[arg(value_name = "DIR", required = true)]
    shards: Vec<PathBuf>,
    /// Directory for results. Default: results/ in the project.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct DurationsArgs {
    /// Runs to learn from: directories, or names below results/.
    #[arg(value_name = "RUN", default_value = "latest")]
    runs: Vec<PathBuf>,
    /// The file. Default: ci/durations.json of the project.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Forget what the file holds first.
    #[arg(long)]
    anew: bool,
}

#[derive(Debug, Default, Args)]
struct KernelArgs {
    /// Kernels by id, `*` and `?` allowed; repeatable. Default: the kernels with `default = true`.
    #[arg(long, value_name = "GLOB")]
    kernel: Vec<String>,
    /// Every kernel of kernels.toml.
    #[arg(long, conflicts_with = "kernel")]
    all: bool,
    /// Also the kernels with `may-fail = true`: their failures are told and don't count.
    #[arg(long)]
    newest: bool,
    /// Kernels of a class: below-6.7, 6.7+ or 25.10; repeatable.
    #[arg(long, value_name = "CLASS")]
    class: Vec<String>,
}

impl KernelArgs {
    /// Those that one pattern means.
    fn of(pattern: &str) -> Self {
        Self { kernel: vec![pattern.to_owned()], ..Self::default() }
    }
}

#[derive(Debug, Args)]
struct SelectArgs {
    #[command(flatten)]
    kernels: KernelArgs,
    /// Cases or cells by name, `*` and `?` allowed; repeatable.
    #[arg(long, value_name = "GLOB")]
    case: Vec<String>,
    /// Cells that ask for this attach type: tc, tcx, netkit or auto; repeatable.
    #[arg(long, value_name = "TYPE")]
    attach: Vec<AttachRequest>,
    /// Use the agent and the eBPF object as they are.
    #[arg(long)]
    no_build: bool,
    /// Instead of the suite, cells that must fail, hang, leak or panic: they test the lab itself.
    #[arg(long)]
    canary: bool,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// Run one shard of the plan: 2/4, or auto, or auto/4, where the CI system's variables say which one. Without the
    /// flag these variables count too, where they name one shard of several.
    #[arg(long, value_name = "M/N")]
    partition: Option<crate::shard::Request>,
    /// Recorded durations by which shards are split. Default: ci/durations.json of the project.
    #[arg(long, value_name = "FILE")]
    durations: Option<PathBuf>,
    #[command(flatten)]
    how: HowArgs,
    /// Run again whenever a source of the agent, the suite or the eBPF programs changes.
    #[arg(long, conflicts_with = "no_build")]
    watch: bool,
}

#[derive(Debug, Args)]
struct HowArgs {
    /// Boot every guest; without it guests are restored from snapshots of booted ones.
    #[arg(long)]
    cold: bool,
    /// Which cells share a guest.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    isolate: crate::run::queue::Isolate,
    /// Guests at the same time. Default: one per processor, as far as there is memory.
    #[arg(long, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// Run a cell that does not pass again, so often, each time in a fresh guest.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=20))]
    retries: u32,
    /// Whether a cell that passes only when it is run again fails the run. A panic, a hang or a complaint of the kernel
    /// stays a failure either way.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    flaky: crate::run::kernel::OnFlaky,
    /// A deadline other than the one that fits the accelerator, for example silence=30s or run=2h. Layers: boot, silence
    /// (no heartbeat), cell, guest, run; repeatable.
    #[arg(long, value_name = "LAYER=TIME")]
    deadline: Vec<crate::run::deadline::Deadline>,
    /// Directory for results. Default: results/ in the project.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Build a deliberate fault into the suite: the run is meant to fail.
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, Args)]
struct MutantsArgs {
    /// The kernel to run them on: one that has every attach type can show them all.
    #[arg(long, value_name = "ID", default_value = "6.17")]
    kernel: String,
    /// These mutants only; repeatable.
    #[arg(long, value_name = "NAME")]
    mutant: Vec<String>,
    /// Guests at the same time. Default: one per processor, as far as there is memory.
    #[arg(long, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// Directory for results. Default: results/ in the project.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Use the agent and the eBPF objects as they are.
    #[arg(long)]
    no_build: bool,
}

#[derive(Debug, Args)]
struct RerunArgs {
    /// Only what did not pass.
    #[arg(long)]
    failed: bool,
    /// A run's directory, or its name below results/.
    #[arg(value_name = "RUN", default_value = "latest")]
    run: PathBuf,
    /// Run them again whenever a source of the agent, the suite or the eBPF programs changes.
    #[arg(long, conflicts_with = "no_build")]
    watch: bool,
    /// Use the agent and the eBPF object as they are.
    #[arg(long)]
    no_build: bool,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Debug, Args)]
struct ShellArgs {
    /// The kernel, by id.
    #[arg(value_name = "KERNEL")]
    kernel: String,
    /// Build this topology; `lab topology list` names them.
    #[arg(long, value_name = "NAME", conflicts_with = "case")]
    topology: Option<String>,
    /// Kind of the workloads' link: veth, nk-l2 or nk-l3.
    #[arg(long, value_name = "KIND", requires = "topology")]
    kind: Option<String>,
    /// Run this cell up to its first packet. It goes on when the shell ends.
    #[arg(long, value_name = "ID")]
    case: Option<String>,
    /// Which files the guest has: `host` shows it this host's root, every file that you may read; it can't write any.
    #[arg(long, value_enum, default_value_t, value_name = "PROFILE")]
    profile: ProfileArg,
    /// Boot the guest; without it the guest is restored from a snapshot of a booted one.
    #[arg(long)]
    cold: bool,
    /// Use the agent and the eBPF object as they are.
    #[arg(long)]
    no_build: bool,
    /// Run this instead of a shell, and end with its exit code.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Which files a guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum ProfileArg {
    /// A shell and network tools.
    #[default]
    Shell,
    /// This host's root, read-only below what the guest writes into its own memory. Takes a kernel with 9p.
    Host,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// Show which numbers of the catalogue are covered, and why the others are not.
    #[arg(long, conflicts_with_all = ["case", "attach", "kernel", "class"])]
    coverage: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CapabilitiesArgs {
    #[command(flatten)]
    kernels: KernelArgs,
    /// How the table is written.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Guests at the same time. Default: one per processor, no more than kernels.
    #[arg(long, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// Use the agent and the eBPF object as they are.
    #[arg(long)]
    no_build: bool,
}

#[derive(Debug, Subcommand)]
enum TopologyCommand {
    /// Name every topology and the kinds of link that its workloads can have.
    List,
    /// Draw one.
    Show {
        /// Its name.
        name: String,
        /// Kind of the workloads' link: veth, nk-l2 or nk-l3.
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// Also write the drawing as SVG.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum KernelsCommand {
    /// Show the matrix, what it is locked to and what is cached.
    List,
    /// Download and unpack kernels exactly as they are locked.
    Fetch(KernelArgs),
    /// Compile the kernels that come as sources; a kernel that is built already is not built again.
    Build {
        /// Kernels by id, `*` and `?` allowed. Default: all that are compiled here.
        #[arg(value_name = "ID")]
        kernel: Vec<String>,
    },
    /// Unpack Debian's packaged sources of a kernel that is compiled here, as they are locked.
    Source {
        /// The kernel's id.
        #[arg(value_name = "ID")]
        kernel: String,
        /// A directory that does not exist yet.
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
    /// Resolve kernels anew and rewrite kernels.lock.
    Update(KernelArgs),
}

impl Cli {
    /// How a wrong command line ends: `git bisect run` takes 2 for a bad commit, so `bisect-step` has another way out.
    pub fn misused(arguments: impl Iterator<Item = std::ffi::OsString>) -> Exit {
        let step = arguments.skip(1).any(|word| word == "bisect-step");
        if step { Exit::Step(bisect::ABORT) } else { Exit::Usage }
    }

    /// Does what was asked for.
    ///
    /// # Errors
    /// [`Error`], which knows its exit code.
    pub fn execute(self) -> Result<Exit, Error> {
        let project = self.project;
        match self.command {
            Command::Run(args) => run::run(project, &args),
            Command::Rerun(args) => rerun::rerun(project, &args),
            Command::Shell(args) => shell::shell(project, &args),
            Command::Bench(BenchArgs { what: Some(BenchCommand::Datapath(args)), .. }) => {
                datapath::datapath(project, &args)
            }
            Command::Bench(BenchArgs { what: Some(BenchCommand::Suite(args)), .. }) => {
                bench_suite::bench_suite(project, &args)
            }
            Command::Bench(BenchArgs { what: Some(BenchCommand::Report(args)), .. }) => {
                bench_report::report(project, &args)
            }
            Command::Bench(args) => bench::bench(project, &args),
            Command::BisectStep(args) => Ok(bisect::step(project, &args)),
            Command::Bisect(args) => bisect::bisect(project, &args),
            Command::List(args) => list::list(project, &args),
            Command::Capabilities(args) => capabilities::capabilities(project, &args),
            Command::Mutants(args) => mutants::mutants(project, &args),
            Command::Topology(command) => topology::topology(project, command),
            Command::Kernels(KernelsCommand::List) => kernels::list(project),
            Command::Kernels(KernelsCommand::Fetch(args)) => kernels::fetch(project, &args),
            Command::Kernels(KernelsCommand::Build { kernel }) => kernels::build(project, &kernel),
            Command::Kernels(KernelsCommand::Source { kernel, to }) => kernels::source(project, &kernel, &to),
            Command::Kernels(KernelsCommand::Update(args)) => kernels::update(project, &args),
            Command::Doctor { json, tests } => setup::doctor(json, tests),
            Command::Setup { tests, builds, system } => setup::setup(tests, builds, system),
            Command::Plan(args) => plan::plan(project, &args),
            Command::Merge(args) => merge::merge(project, &args),
            Command::Durations(args) => plan::durations(project, &args),
            Command::Report { run, format } => report::report(project, &run, &format),
            Command::Compare(args) => compare::compare(project, &args),
            Command::History(args) => history::history(project, &args),
            Command::Complaints(args) => history::complaints(project, &args),
            Command::Trend(args) => history::trend(project, &args),
            Command::Results(command) => results::results(project, &command),
        }
    }
}

/// Progress, on standard error so that standard output stays what was asked for.
fn say(line: &str) {
    eprintln!("{line}");
}

/// Writes what a command is for. A reader that has left (`lab list | head`) ends the output, not the command.
fn show(text: impl std::fmt::Display) -> Result<(), Error> {
    use std::io::Write;
    match write!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::file("write", "stdout")(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_attach_type_names_the_right_ones() {
        let error = Cli::try_parse_from(["lab", "run", "--attach", "xdp"]).unwrap_err().to_string();
        assert!(error.contains("`xdp` is not an attach type (wanted: tc, tcx, netkit or auto)"), "{error}");
    }
}
