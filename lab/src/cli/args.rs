//! Arguments that several commands share.

use crate::{
    error::Error,
    guests::{GuestOptions, Order, Selection, Talk, machine::Shape},
    project::{
        Project,
        filter::{CellFilter, KernelFilter},
        unlisted::Unlisted,
    },
    run::{common::Retries, queue::Isolate},
};
use clap::{Args, ValueEnum};
use lab_base::say;
use lab_protocol::AttachRequest;
use lab_report::kcidb;
use std::{path::PathBuf, time::Duration};

/// Version of the commands' JSON; it is increased when a key is removed or changes its meaning.
pub(super) const JSON_VERSION: u32 = 1;

/// Output format of a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// Text to read.
    #[default]
    Text,
    /// JSON for programs: an object with `version` and the command's data.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Output format.
    #[arg(long = "format", value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    /// The same as --format json.
    #[arg(long, conflicts_with = "output", hide = true)]
    json: bool,
}

impl OutputArgs {
    /// Whether JSON is asked for.
    pub(super) fn is_json(&self) -> bool {
        self.json || self.output == Output::Json
    }

    /// Writes a command's output: `what` below a key in JSON, or the text.
    pub(super) fn show(
        &self,
        key: &'static str,
        what: &impl serde::Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        if !self.is_json() {
            return Ok(say::show(text())?);
        }
        show_json(key, what)
    }
}

/// Writes JSON for programs: an object with a version. A value that is not an object is stored under the key.
pub(super) fn show_json(key: &'static str, what: &impl serde::Serialize) -> Result<(), Error> {
    let value = serde_json::to_value(what).map_err(|error| Error::Host(error.to_string()))?;
    let mut told = match value {
        serde_json::Value::Object(object) => object,
        other => [(key.to_owned(), other)].into_iter().collect(),
    };
    told.insert("version".to_owned(), JSON_VERSION.into());
    let text = serde_json::to_string_pretty(&told).map_err(|error| Error::Host(error.to_string()))?;
    Ok(say::show(format_args!("{text}\n"))?)
}

/// An invalid number on the command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WrongNumber {
    #[error("expected a whole number from {least} to {most}")]
    OutOfBounds { least: u32, most: u32 },
    #[error("{0} is too large for this machine")]
    TooMuch(String),
}

/// Parses a number that is not zero; the error of clap's own parser for these types is hard to understand.
pub(super) fn count<T: TryFrom<u32>>(text: &str) -> Result<T, WrongNumber> {
    let number = text.parse::<u32>().ok().and_then(|number| T::try_from(number).ok());
    number.ok_or(WrongNumber::OutOfBounds { least: 1, most: u32::MAX })
}

/// Parses a number between two others, both included.
pub(super) fn within(
    least: u32,
    most: u32,
) -> impl Fn(&str) -> Result<u32, WrongNumber> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse::<u32>().ok().filter(|number| (least..=most).contains(number));
        number.ok_or(WrongNumber::OutOfBounds { least, most })
    }
}

/// As [`count`], for processors and other resources of this machine.
pub(super) fn size(text: &str) -> Result<std::num::NonZeroUsize, WrongNumber> {
    count::<std::num::NonZeroU32>(text)?.try_into().map_err(|_| WrongNumber::TooMuch(text.to_owned()))
}

/// A text that is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time; write 90, 500ms, 5m or 2h")]
pub(super) struct WrongTime(String);

/// A number is seconds, as of timeout(1).
pub(super) fn time(text: &str) -> Result<Duration, WrongTime> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let limit = seconds.or_else(|| humantime::parse_duration(text).ok());
    limit.filter(|limit| !limit.is_zero()).ok_or_else(|| WrongTime(text.to_owned()))
}

/// A text that is no size of a guest's memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no size from 128M to 1024G")]
pub(super) struct WrongMemory(String);

/// A size in MiB: 64M, 2G, 512.
pub(super) fn mib(text: &str) -> Option<u32> {
    let plain = text.trim_end_matches(['i', 'B']);
    let (number, factor) = match plain.strip_suffix(['G', 'g']) {
        Some(number) => (number, 1024),
        None => (plain.strip_suffix(['M', 'm']).unwrap_or(plain), 1),
    };
    number.parse::<u32>().ok().and_then(|number| number.checked_mul(factor))
}

/// Memory in MiB.
pub(super) fn memory(text: &str) -> Result<u32, WrongMemory> {
    mib(text).filter(|mib| (128..=1 << 20).contains(mib)).ok_or_else(|| WrongMemory(text.to_owned()))
}

#[derive(Debug, Args)]
pub(super) struct FormatArgs {
    /// Write the run to standard output in this format instead of the summary.
    #[arg(long, value_enum)]
    pub(super) format: Option<lab_report::format::ReportFormat>,
    /// Name of this CI system in KernelCI's database.
    #[arg(long, value_name = "NAME", default_value = kcidb::ORIGIN, value_parser = kcidb::origin)]
    pub(super) origin: String,
}

#[derive(Debug, Default, Args)]
pub(super) struct KernelArgs {
    /// Kernels by id, `*` and `?` allowed; repeatable, or with commas. Default: the kernels with `default = true`.
    #[arg(short, long, value_name = "GLOB", value_delimiter = ',')]
    pub(super) kernel: Vec<String>,
    /// Select every kernel of kernels.toml.
    #[arg(long, conflicts_with = "kernel")]
    pub(super) all: bool,
    /// Also select the kernels with `may-fail = true`, whose failures are reported but don't count.
    #[arg(long)]
    pub(super) newest: bool,
    /// Kernels of a class: below-6.7, 6.7+ or 25.10; repeatable, or with commas.
    #[arg(long, value_name = "CLASS", value_delimiter = ',')]
    pub(super) class: Vec<String>,
}

/// A kernel that kernels.toml need not name; there need not be a kernels.toml.
#[derive(Debug, Default, Args)]
pub(super) struct UnlistedArgs {
    /// This kernel image (bzImage) of this host, instead of the kernels of kernels.toml, which is not needed then.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "all", "newest", "class", "tree"])]
    image: Option<PathBuf>,
    /// The modules of --image: its lib/modules/RELEASE.
    #[arg(long, value_name = "DIR", requires = "image")]
    modules: Option<PathBuf>,
    /// This built kernel tree of this host, likewise.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kernel", "all", "newest", "class"])]
    tree: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct SelectArgs {
    /// Cases or cells by name, `*` and `?` allowed; the same as --case. Kernels are selected by --kernel alone.
    #[arg(value_name = "CASE")]
    pub(super) cases: Vec<String>,
    #[command(flatten)]
    pub(super) kernels: KernelArgs,
    /// Cases or cells by name, `*` and `?` allowed; repeatable.
    #[arg(short, long, value_name = "GLOB")]
    pub(super) case: Vec<String>,
    /// Leave out these cases or cells of those that are selected; repeatable.
    #[arg(short = 'x', long, value_name = "GLOB")]
    pub(super) exclude: Vec<String>,
    /// Cells that request this attach type: tc, tcx, netkit or auto; repeatable, or with commas.
    #[arg(short, long, value_name = "TYPE", value_delimiter = ',')]
    pub(super) attach: Vec<AttachRequest>,
    /// Use the existing builds of the agent and the eBPF object.
    #[arg(long)]
    pub(super) no_build: bool,
    /// Run cells that must fail, hang, leak or panic instead of the suite, to test the lab itself.
    #[arg(long)]
    pub(super) canary: bool,
}

#[derive(Debug, Args)]
pub(super) struct HowArgs {
    /// Boot every guest. By default, guests are restored from snapshots of booted guests.
    #[arg(long)]
    pub(super) cold: bool,
    /// Which cells share a guest. Default: kernel, and of a workload what it says.
    #[arg(long, value_enum, value_name = "HOW")]
    pub(super) isolate: Option<crate::run::queue::Isolate>,
    /// Maximum number of parallel guests. Default: one per processor, limited by memory.
    #[arg(short, long, value_name = "N", value_parser = size)]
    pub(super) jobs: Option<std::num::NonZeroUsize>,
    /// How often a cell that does not pass is repeated, each time in a fresh guest. Default: 0, and of a workload what it says.
    #[arg(long, value_name = "N", value_parser = within(0, 20))]
    pub(super) retries: Option<u32>,
    /// Whether a cell that passes only when repeated fails the run. A panic, a hang or a kernel splat is a failure in
    /// any case.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(super) flaky: crate::run::common::OnFlaky,
    /// Whether a kernel that takes several times as long as recorded fails the run. It is reported in any case.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(super) slow: OnSlow,
    /// Replace a deadline, for example silence=30s or run=2h. Layers: boot, silence (no heartbeat), idle (no
    /// cell begins), cell, guest, run; repeatable. The default depends on the accelerator.
    #[arg(long, value_name = "LAYER=TIME")]
    pub(super) deadline: Vec<crate::run::deadline::Deadline>,
    /// Directory for results. Default: results/ in the project.
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// End the run at its first failure; cells that have no verdict then are not run.
    #[arg(long)]
    pub(super) fail_fast: bool,
    /// Print every cell that ends.
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// Print only failures and the summary; -qq prints errors only, and the exit code is the result.
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "verbose")]
    pub(super) quiet: u8,
    /// Run with a deliberate fault in the suite; the run is expected to fail.
    #[arg(long, value_name = "NAME")]
    pub(super) mutant: Option<String>,
    /// Hold every cell's own readings of what is attached against what the kernel's functions say of it, and fail a cell where
    /// they differ. Guests need a snapshot of their own for that.
    #[arg(long)]
    pub(super) witness: bool,
    #[command(flatten)]
    pub(super) format: FormatArgs,
}

/// What a slow kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum OnSlow {
    /// A warning.
    #[default]
    Warn,
    /// A failure.
    Fail,
}

impl KernelArgs {
    /// The filter for kernels.
    pub(super) fn filter(&self) -> KernelFilter {
        let Self { kernel, all, newest, class } = self;
        KernelFilter { kernel: kernel.clone(), all: *all, newest: *newest, class: class.clone() }
    }
}

impl UnlistedArgs {
    /// The kernel that no file names.
    fn kernel(&self) -> Option<Unlisted> {
        let Self { image, modules, tree } = self;
        let image = image.clone().map(|image| Unlisted::Image { image, modules: modules.clone() });
        image.or_else(|| tree.clone().map(Unlisted::Tree))
    }

    /// Opens the project, which this kernel does not need.
    pub(super) fn project(&self, named: Option<PathBuf>) -> Result<Project, Error> {
        Project::open_with(named, self.kernel().as_ref())
    }

    /// The filter for this kernel, or for those of kernels.toml.
    pub(super) fn filter(&self, listed: &KernelArgs) -> KernelFilter {
        self.kernel().map_or_else(|| listed.filter(), |unlisted| KernelFilter::of(unlisted.id()))
    }
}

impl HowArgs {
    /// The arguments that say how guests share cells, where they are not the usual ones.
    pub(super) fn sharing(&self) -> Vec<String> {
        let isolate = self.isolate.filter(|isolate| *isolate != Isolate::default());
        let isolate = isolate.and_then(|isolate| isolate.to_possible_value());
        let isolate = isolate.iter().flat_map(|value| ["--isolate".to_owned(), value.get_name().to_owned()]);
        let flags = [("--cold", self.cold), ("--witness", self.witness)];
        isolate.chain(flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned())).collect()
    }

    /// Parameters of the run, and the directory for results.
    pub(super) fn order(&self, selection: Selection) -> Order {
        let how = GuestOptions {
            jobs: self.jobs,
            mutant: self.mutant.clone(),
            cold: self.cold,
            isolate: self.isolate.unwrap_or_default(),
            may_be_held: true,
            retries: Retries { count: self.retries.unwrap_or_default(), on_flaky: self.flaky },
            fail_fast: self.fail_fast,
            slow_fails: self.slow == OnSlow::Fail,
            deadlines: self.deadline.clone(),
            shape: if self.witness { Shape::watched() } else { Shape::default() },
            selection,
            ..GuestOptions::default()
        };
        Order { how, out: self.out.clone(), talk: self.talk() }
    }

    /// What is printed while the run runs.
    pub(super) fn talk(&self) -> Talk {
        match (self.quiet, self.verbose) {
            (0, false) => Talk::Usual,
            (0, true) => Talk::Cells,
            (1, _) => Talk::Failures,
            _ => Talk::Nothing,
        }
    }

    /// Makes the process as quiet as it was asked to be.
    pub(super) fn hush(&self) {
        if self.quiet > 0 {
            say::be_quiet();
        }
    }
}

impl SelectArgs {
    /// The filter for cells.
    pub(super) fn filter(&self) -> CellFilter {
        let Self { cases, kernels: _, case, exclude, attach, no_build, canary } = self;
        CellFilter {
            case: cases.iter().chain(case).cloned().collect(),
            exclude: exclude.clone(),
            attach: attach.clone(),
            no_build: *no_build,
            canary: *canary,
        }
    }

    /// The arguments that select the same cells in another process.
    pub fn words(&self) -> Vec<String> {
        let mut words = repeated("--kernel", &self.kernels.kernel);
        words.extend(repeated("--class", &self.kernels.class));
        words.extend(self.cell_words());
        let flags = [("--all", self.kernels.all), ("--newest", self.kernels.newest), ("--canary", self.canary)];
        words.extend(flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned()));
        words
    }

    /// Those of them that are about cells.
    fn cell_words(&self) -> Vec<String> {
        let attach: Vec<String> = self.attach.iter().map(AttachRequest::to_string).collect();
        let cases = [repeated("--case", &self.cases), repeated("--case", &self.case)];
        let others = [repeated("--exclude", &self.exclude), repeated("--attach", &attach)];
        cases.into_iter().chain(others).flatten().collect()
    }

    /// What a command repeats to run the same cells on one of the kernels.
    pub(super) fn selection(&self, unlisted: &UnlistedArgs, how: &HowArgs) -> Selection {
        Selection {
            kernel: unlisted.kernel().iter().flat_map(Unlisted::words).collect(),
            cells: self.cell_words().into_iter().chain(how.sharing()).collect(),
        }
    }
}

/// An option with each of its values.
fn repeated(name: &str, values: &[String]) -> Vec<String> {
    values.iter().flat_map(|value| [name.to_owned(), value.clone()]).collect()
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use clap::Parser;

    #[test]
    fn a_shard_selects_the_same_cells_as_its_plan() {
        let given = "--kernel 6.12* --class 6.7+ --case A01* --case N0?-*[netkit,nk-l3] --exclude N09* --attach tcx --newest --canary";
        let words = |words: &[String]| {
            let args = ["lab", "run"].map(str::to_owned).into_iter().chain(words.iter().cloned());
            match Cli::try_parse_from(args).unwrap().command {
                Command::Run(args) => args.select.words(),
                _ => Vec::new(),
            }
        };
        let given: Vec<String> = given.split(' ').map(str::to_owned).collect();
        assert_eq!(words(&given), given);
        assert_eq!(words(&["--all".to_owned()]), ["--all"]);
        assert_eq!(words(&["A01*".to_owned(), "-xA01-a".to_owned()]), ["--case", "A01*", "--exclude", "A01-a"]);
    }

    #[test]
    fn short_options_and_commas_are_equivalent_to_long_options() {
        let parsed = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Run(args) => (args.select.words(), args.how.jobs.map(std::num::NonZeroUsize::get)),
            _ => (Vec::new(), None),
        };
        let long = "lab run --kernel 6.1 --kernel 6.12 --case A01-x[netkit,nk-l3] --attach tc --attach tcx --jobs 2";
        assert_eq!(parsed("lab run -k 6.1,6.12 -c A01-x[netkit,nk-l3] -a tc,tcx -j2"), parsed(long));
    }
}
