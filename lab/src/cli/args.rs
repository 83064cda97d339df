//! Arguments that several commands have.

use crate::{
    guests::{How, Order},
    project::filter::{Filter, KernelFilter},
    run::common::Retries,
};
use clap::Args;
use lab_protocol::AttachRequest;
use lab_report::kcidb;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct FormatArgs {
    /// Write the run to standard output in this format, in place of what is meant for people.
    #[arg(long, value_enum)]
    pub(super) format: Option<lab_report::format::Format>,
    /// What KernelCI's database calls this CI system.
    #[arg(long, value_name = "NAME", default_value = kcidb::ORIGIN, value_parser = kcidb::origin)]
    pub(super) origin: String,
}

#[derive(Debug, Default, Args)]
pub(super) struct KernelArgs {
    /// Kernels by id, `*` and `?` allowed; repeatable. Default: the kernels with `default = true`.
    #[arg(long, value_name = "GLOB")]
    pub(super) kernel: Vec<String>,
    /// Every kernel of kernels.toml.
    #[arg(long, conflicts_with = "kernel")]
    pub(super) all: bool,
    /// Also the kernels with `may-fail = true`: their failures are told and don't count.
    #[arg(long)]
    pub(super) newest: bool,
    /// Kernels of a class: below-6.7, 6.7+ or 25.10; repeatable.
    #[arg(long, value_name = "CLASS")]
    pub(super) class: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct SelectArgs {
    #[command(flatten)]
    pub(super) kernels: KernelArgs,
    /// Cases or cells by name, `*` and `?` allowed; repeatable.
    #[arg(long, value_name = "GLOB")]
    pub(super) case: Vec<String>,
    /// Cells that ask for this attach type: tc, tcx, netkit or auto; repeatable.
    #[arg(long, value_name = "TYPE")]
    pub(super) attach: Vec<AttachRequest>,
    /// Use the agent and the eBPF object as they are.
    #[arg(long)]
    pub(super) no_build: bool,
    /// Instead of the suite, cells that must fail, hang, leak or panic: they test the lab itself.
    #[arg(long)]
    pub(super) canary: bool,
}

#[derive(Debug, Args)]
pub(super) struct HowArgs {
    /// Boot every guest; without it guests are restored from snapshots of booted ones.
    #[arg(long)]
    pub(super) cold: bool,
    /// Which cells share a guest.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(super) isolate: crate::run::queue::Isolate,
    /// Guests at the same time. Default: one per processor, as far as there is memory.
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<std::num::NonZeroUsize>,
    /// Run a cell that does not pass again, so often, each time in a fresh guest.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=20))]
    pub(super) retries: u32,
    /// Whether a cell that passes only when it is run again fails the run. A panic, a hang or a splat of the kernel
    /// stays a failure either way.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(super) flaky: crate::run::common::OnFlaky,
    /// A deadline other than the one that fits the accelerator, for example silence=30s or run=2h. Layers: boot, silence
    /// (no heartbeat), cell, guest, run; repeatable.
    #[arg(long, value_name = "LAYER=TIME")]
    pub(super) deadline: Vec<crate::run::deadline::Deadline>,
    /// Directory for results. Default: results/ in the project.
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Build a deliberate fault into the suite: the run is meant to fail.
    #[arg(long, value_name = "NAME")]
    pub(super) mutant: Option<String>,
    #[command(flatten)]
    pub(super) format: FormatArgs,
}

impl KernelArgs {
    /// The kernels.
    pub(super) fn filter(&self) -> KernelFilter {
        let Self { kernel, all, newest, class } = self;
        KernelFilter { kernel: kernel.clone(), all: *all, newest: *newest, class: class.clone() }
    }
}

impl HowArgs {
    /// How guests are run, and where the results go.
    pub(super) fn order(&self) -> Order {
        let how = How {
            jobs: self.jobs,
            mutant: self.mutant.clone(),
            cold: self.cold,
            isolate: self.isolate,
            retries: Retries { count: self.retries, on_flaky: self.flaky },
            deadlines: self.deadline.clone(),
            ..How::default()
        };
        Order { how, out: self.out.clone() }
    }
}

impl SelectArgs {
    /// The cells.
    pub(super) fn filter(&self) -> Filter {
        let Self { kernels: _, case, attach, no_build, canary } = self;
        Filter { case: case.clone(), attach: attach.clone(), no_build: *no_build, canary: *canary }
    }

    /// The arguments that select the same cells in another process.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut option = |name: &str, values: &[String]| {
            words.extend(values.iter().flat_map(|value| [name.to_owned(), value.clone()]));
        };
        let attach: Vec<String> = self.attach.iter().map(AttachRequest::to_string).collect();
        option("--kernel", &self.kernels.kernel);
        option("--class", &self.kernels.class);
        option("--case", &self.case);
        option("--attach", &attach);
        let flags = [("--all", self.kernels.all), ("--newest", self.kernels.newest), ("--canary", self.canary)];
        words.extend(flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned()));
        words
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use clap::Parser;

    #[test]
    fn a_shard_selects_what_its_plan_selected() {
        let given = "--kernel 6.12* --class 6.7+ --case A01* --case N0?-*[netkit,nk-l3] --attach tcx --newest --canary";
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
    }
}
