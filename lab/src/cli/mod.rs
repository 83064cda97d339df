//! The command line.

mod args;
mod bench;
mod bisect;
mod cache;
mod capabilities;
mod check;
mod compare;
mod exec;
mod help;
mod history;
mod kernels;
mod kselftest;
mod list;
mod mark;
mod merge;
mod mutants;
mod plan;
mod plants;
mod project;
mod pull;
mod report;
mod rerun;
mod results;
mod run;
mod serve;
mod setup;
mod shell;
mod topology;
mod watch_attach;
mod witness;
mod workload;

use crate::error::Error;
use clap::{FromArgMatches, Parser, Subcommand};
use lab_base::say::{self, Colour, say};
use lab_record::exit::Exit;
use std::path::PathBuf;

/// Boots a matrix of kernels and verifies which eBPF attach type each of them uses.
///
/// Exit codes: 0 all passed, 1 a test or kernel failed, 2 usage or configuration, 3 infrastructure (no verdict),
/// 4 nothing selected, 130/143 interrupted.
#[derive(Debug, Parser)]
#[command(name = "lab", version = crate::VERSION)]
pub struct Cli {
    /// Directory with kernels.toml. Default: the nearest one at or above the working directory.
    #[arg(long, global = true, value_name = "DIR")]
    project: Option<PathBuf>,
    /// Whether output has colours. auto: on a terminal, and as NO_COLOR and CLICOLOR_FORCE say.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: ColourArg,
    #[command(subcommand)]
    command: Command,
}

/// The value of --color.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum ColourArg {
    #[default]
    Auto,
    Always,
    Never,
}

impl ColourArg {
    const fn clap(self) -> clap::ColorChoice {
        match self {
            Self::Auto => clap::ColorChoice::Auto,
            Self::Always => clap::ColorChoice::Always,
            Self::Never => clap::ColorChoice::Never,
        }
    }

    /// The value on a command line that may be wrong elsewhere: help and errors have colours too.
    fn sought(arguments: impl Iterator<Item = std::ffi::OsString>) -> Self {
        let words = arguments.take_while(|word| word != "--").map(|word| word.to_string_lossy().into_owned());
        let words: Vec<String> = words.collect();
        let mut beside = words.windows(2).filter(|pair| pair[0] == "--color").map(|pair| &*pair[1]);
        let value = words.iter().find_map(|word| word.strip_prefix("--color=")).or_else(|| beside.next_back());
        value.and_then(|value| <Self as clap::ValueEnum>::from_str(value, false).ok()).unwrap_or_default()
    }
}

impl From<ColourArg> for Colour {
    fn from(arg: ColourArg) -> Self {
        match arg {
            ColourArg::Auto => Self::Auto,
            ColourArg::Always => Self::Always,
            ColourArg::Never => Self::Never,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run cases on kernels.
    Run(run::RunArgs),
    /// Run cells of an earlier run again.
    Rerun(rerun::RerunArgs),
    /// Run a command in guests: its output and its exit code on one kernel, a table of several.
    Exec(Box<exec::ExecCommand>),
    /// Run the kernel's own selftests, each kernel's from its sources: every test and subtest is a cell.
    Kselftest(Box<kselftest::KselftestArgs>),
    /// Check eBPF objects: whether they load and attach on each kernel, and what becomes of a packet at each hook.
    Check(Box<check::CheckArgs>),
    /// In a command of `lab exec`: mark a place, for the account to tell what changed in the kernel since the last mark.
    Mark(mark::MarkArgs),
    /// Show what is attached on this machine while it happens: by which mechanism, where, and by which process. Needs root.
    WatchAttach(watch_attach::WatchAttachArgs),
    /// Open a shell in a guest, with a topology or a case that is stopped before its first packet.
    Shell(shell::ShellArgs),
    /// Hold guests ready, so that `lab run` of a few cases and `lab exec` wait for no restore. Ends with Ctrl-C.
    Serve(serve::ServeArgs),
    /// Compare boots and restores with a stock virtme-ng.
    Bench(bench::BenchArgs),
    /// Find the kernel or the commit that introduced a failure, with a confidence.
    Bisect(Box<bisect::args::BisectArgs>),
    /// Test the checked-out commit of a kernel tree, for `git bisect run`: 0 good, 1 bad, 125 untestable, 128 or more
    /// stop.
    BisectStep(Box<bisect::args::StepArgs>),
    /// Show cases, their variants, and which kernels run them.
    List(list::ListArgs),
    /// Boot kernels and show the capabilities of each.
    Capabilities(capabilities::CapabilitiesArgs),
    /// Run the suite with deliberate faults, and show which case detects each of them.
    Mutants(mutants::MutantsArgs),
    /// Show the network topologies of the cases.
    #[command(subcommand)]
    Topology(topology::TopologyCommand),
    /// Manage the kernels of the matrix.
    #[command(subcommand)]
    Kernels(kernels::KernelsCommand),
    /// Begin a project in this directory: kernels.toml, its lock, lab.toml, and lines of .gitignore.
    Init(project::InitArgs),
    /// Build what guests run where it is out of date, and print where it is.
    Build {
        /// Also build the loader of `lab check`, which is otherwise built when that runs first.
        #[arg(long)]
        all: bool,
    },
    /// Show the content of the cache, or remove entries beyond its limits.
    Cache(cache::CacheArgs),
    /// Check whether this machine has everything that the lab needs.
    Doctor {
        #[command(flatten)]
        output: args::OutputArgs,
        /// Also check the tools that the project's own tests need.
        #[arg(long)]
        tests: bool,
    },
    /// Install missing tools into the cache.
    Setup {
        /// Also install the tools that the project's own tests need: a browser, and programs that read the reports.
        #[arg(long)]
        tests: bool,
        /// Also install the tools that build kernels: flex, bison and others.
        #[arg(long, conflicts_with = "tests")]
        builds: bool,
        /// Also install what guests of arm64 need: an emulator, and what their agent is built with.
        #[arg(long, conflicts_with_all = ["tests", "builds"])]
        arm64: bool,
        /// Install the distribution's packages on this machine instead of unpacking them into the cache.
        #[arg(long)]
        system: bool,
    },
    /// Write completions of the command line for a shell: bash, zsh, fish and others.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages.
    Man {
        /// The directory for the pages.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Split a run into shards for a CI system.
    Plan(plan::PlanArgs),
    /// Merge the results of shards into one run; a missing shard is an error.
    Merge(merge::MergeArgs),
    /// Be a lab of KernelCI: poll a queue of jobs, run each on its kernel, and submit the results.
    Pull(pull::PullArgs),
    /// Record the durations of cells in a file, which is used to split plans.
    Durations(plan::DurationsArgs),
    /// Rebuild every report of a run from its events.jsonl, or write it in another format. The exit code is that of the
    /// run: 1 for a run that failed, although its reports were written.
    Report {
        /// A run's directory, or its name below results/.
        #[arg(value_name = "RUN", default_value = "latest")]
        run: PathBuf,
        #[command(flatten)]
        format: args::FormatArgs,
        /// Then open report.html with this desktop's program for it. Without one, its path is printed.
        #[arg(long, conflicts_with = "format")]
        open: bool,
    },
    /// Show what changed between two runs; a changed attach type counts like a failure.
    Compare(compare::CompareArgs),
    /// Show the results of cells in many runs.
    History(history::HistoryArgs),
    /// List the splats of many runs, merged by fingerprint.
    Splats(history::SplatsArgs),
    /// Former name of `lab splats`.
    #[command(hide = true)]
    Complaints(history::SplatsArgs),
    /// Write a page about many runs: what changed in each, and which cells are unstable.
    Trend(history::TrendArgs),
    /// List or remove runs in results/.
    #[command(subcommand)]
    Results(results::ResultsCommand),
}

/// Prints the error of a failed command, and returns the exit code.
pub fn ended(done: Result<Exit, Error>) -> Exit {
    done.unwrap_or_else(|error| match error.interruption() {
        Some((exit, line)) => {
            say(&line);
            exit
        }
        None => {
            say(&format!("error: {error}"));
            error.exit()
        }
    })
}

impl Cli {
    /// Reads the command line of this process.
    ///
    /// # Errors
    /// It is wrong, or requests help or the version: clap's error prints the text.
    pub fn read() -> Result<Self, clap::Error> {
        let colour = ColourArg::sought(std::env::args_os());
        Self::from_arg_matches(&help::command().color(colour.clap()).try_get_matches()?)
    }

    /// How a wrong command line ends: `git bisect run` takes 2 for a bad commit, so `bisect-step` has another way out, and
    /// `exec` must not be taken for the command that it runs.
    pub fn misused(arguments: impl Iterator<Item = std::ffi::OsString>) -> Exit {
        let words: Vec<_> = arguments.skip(1).take_while(|word| word != "--").collect();
        if words.iter().any(|word| word == "bisect-step") {
            Exit::Step(bisect::ABORT)
        } else if words.iter().any(|word| word == "exec") {
            Exit::Program(crate::exec::end::FAILED)
        } else {
            Exit::Usage
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// [`Error`], with an exit code.
    pub fn execute(self) -> Result<Exit, Error> {
        let project = self.project;
        say::choose(self.color.into());
        match self.command {
            Command::Run(args) => run::run(project, &args),
            Command::Rerun(args) => rerun::rerun(project, &args),
            Command::Exec(command) => exec::exec(project, *command),
            Command::Kselftest(args) => kselftest::kselftest(project, *args),
            Command::Check(args) => check::check(project, &args),
            Command::Shell(args) => shell::shell(project, &args),
            Command::Bench(args) => bench::bench(project, &args),
            Command::BisectStep(args) => Ok(bisect::step(project, &args)),
            Command::Bisect(args) => bisect::bisect(project, &args),
            Command::List(args) => list::list(project, &args),
            Command::Capabilities(args) => capabilities::capabilities(project, &args),
            Command::Mark(args) => mark::run(&args),
            Command::WatchAttach(args) => watch_attach::watch(project, &args),
            Command::Mutants(args) => mutants::mutants(project, &args),
            Command::Topology(command) => topology::topology(project, command),
            Command::Kernels(command) => kernels::kernels(project, &command),
            Command::Cache(args) => cache::cache(project, &args),
            Command::Doctor { output, tests } => setup::doctor(&output, tests),
            Command::Setup { tests, builds, arm64, system } => setup::setup(tests, builds, arm64, system),
            Command::Init(args) => project::init(project, &args),
            Command::Build { all } => project::build(project, all),
            Command::Completions { shell } => project::completions(shell),
            Command::Man { directory } => project::man(&directory),
            Command::Plan(args) => plan::plan(project, &args),
            Command::Merge(args) => merge::merge(project, &args),
            Command::Serve(args) => serve::serve(project, &args),
            Command::Pull(args) => pull::pull(project, &args),
            Command::Durations(args) => plan::durations(project, &args),
            Command::Report { run, format, open } => report::report(project, &run, &format, open),
            Command::Compare(args) => compare::compare(project, &args),
            Command::History(args) => history::history(project, &args),
            Command::Splats(args) => history::splats(project, &args),
            Command::Complaints(args) => {
                say("hint: `lab complaints` is deprecated: use `lab splats`");
                history::splats(project, &args)
            }
            Command::Trend(args) => history::trend(project, &args),
            Command::Results(command) => results::results(project, &command),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_error_about_an_attach_type_names_the_valid_ones() {
        let error = Cli::try_parse_from(["lab", "run", "--attach", "xdp"]).unwrap_err().to_string();
        assert!(error.contains("`xdp` is not an attach type (expected: tc, tcx, netkit or auto)"), "{error}");
    }
}
