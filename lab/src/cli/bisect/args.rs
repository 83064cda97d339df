//! The arguments of `lab bisect` and `lab bisect-step`.

use crate::{bisect::predicate::Match, run::deadline::Deadline};
use clap::{Args, ValueEnum};
use lab_protocol::Capability;
use std::{path::PathBuf, str::FromStr};

/// The question for each kernel.
#[derive(Debug, Args)]
pub(crate) struct WhatArgs {
    /// The case or cell that fails, `*` and `?` allowed; repeatable. Or one of the kernel's selftests: kselftest/net/fib_tests.sh, a
    /// subtest of it behind `::`.
    #[arg(short, long, value_name = "GLOB", required_unless_present_any = ["capability", "exec", "check"])]
    pub case: Vec<String>,
    /// Search for a shell command that fails instead of a case; it runs as with `lab exec -- sh -c COMMAND`.
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["case", "capability"])]
    pub exec: Option<String>,
    /// Search for an eBPF object that fails `lab check` instead of a case; what its check.toml says holds.
    #[arg(long, value_name = "OBJECT", conflicts_with_all = ["case", "capability", "exec"])]
    pub check: Option<PathBuf>,
    /// Search for a capability instead of a failing case (names: `lab capabilities`). Supported counts as bad; see --terms.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["case", "match_"], value_parser = capability)]
    pub capability: Option<Capability>,
    /// Which failures of the case count; kernels with other failures are skipped.
    #[arg(long = "match", value_enum, default_value_t, value_name = "HOW")]
    pub match_: Match,
    /// Use the existing builds of the agent and the eBPF objects.
    #[arg(long)]
    pub no_build: bool,
    /// Replace a deadline, for example boot=60s; repeatable. The default depends on the accelerator.
    #[arg(long, value_name = "LAYER=TIME")]
    pub deadline: Vec<Deadline>,
}

/// How commits are built.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// A complete .config. Default: the lab's own, with everything that the cases need built in and little else.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Additional options; a commit on which one of them has no effect is skipped. Repeatable.
    #[arg(long, value_name = "FILE")]
    pub fragment: Vec<PathBuf>,
    /// Shell command that builds arch/x86/boot/bzImage in the checkout, instead of `vng --build`. Exit code 125: can't
    /// be built.
    #[arg(long, value_name = "COMMAND")]
    pub build_command: Option<String>,
    /// Number of parallel compilers. Default: one per processor.
    #[arg(short, long, value_name = "N", value_parser = crate::cli::args::size)]
    pub jobs: Option<std::num::NonZeroUsize>,
}

/// `lab bisect`.
#[derive(Debug, Args)]
pub(crate) struct BisectArgs {
    #[command(flatten)]
    pub what: WhatArgs,
    /// The kernel without the failure: its id or, with --tree, a revision.
    #[arg(long, value_name = "KERNEL|REV")]
    pub good: String,
    /// The kernel with the failure. If it is older than --good, the fix is searched.
    #[arg(long, value_name = "KERNEL|REV")]
    pub bad: String,
    /// Kernels of the ladder by id, `*` and `?` allowed; repeatable, or with commas. Default: all packages and images.
    #[arg(short, long, value_name = "GLOB", conflicts_with = "tree", value_delimiter = ',')]
    pub kernels: Vec<String>,
    /// Text to search for in the culprit's changelog, in entries since the package before it.
    #[arg(long, value_name = "TEXT", conflicts_with = "tree")]
    pub changelog: Option<String>,
    /// Search the commits of this kernel git tree. Its files, HEAD and .config are not changed.
    #[arg(long, value_name = "DIR")]
    pub tree: Option<PathBuf>,
    #[command(flatten)]
    pub build: BuildArgs,
    /// Terms for the older and the newer state. Default: good,bad, or broken,fixed for a fix.
    #[arg(long, value_name = "OLD,NEW")]
    pub terms: Option<BisectTerms>,
    /// Required probability of the result.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95, value_parser = share)]
    pub confidence: f64,
    /// Test the kernel with the most information instead of bisecting: for rare failures.
    #[arg(long)]
    pub bayes: bool,
    /// Maximum number of runs of a kernel.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = crate::cli::args::within(3, 99_999))]
    pub max_runs: u32,
    /// Ignore results of earlier searches for the same question; builds are kept.
    #[arg(long)]
    pub fresh: bool,
    /// Directory for results. Default: results/ in the project.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Format of the printed report; all three formats are written to files.
    #[arg(long, value_enum, default_value = "text")]
    pub format: BisectFormat,
}

/// `lab bisect-step`.
#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    #[command(flatten)]
    pub what: WhatArgs,
    #[command(flatten)]
    pub build: BuildArgs,
    /// The kernel git tree whose HEAD is tested. It is built in another directory.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub tree: PathBuf,
    /// File with the signature of the failure, for --match exact. If it does not exist, it is written at the first
    /// failure: run the command on the bad commit before `git bisect run`.
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// Failure rate of a bad kernel; determines how many passes make a kernel good.
    #[arg(long, value_name = "SHARE", default_value_t = 0.99, value_parser = rate)]
    pub rate: f64,
    /// Required probability that a kernel marked good is good.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95, value_parser = share)]
    pub confidence: f64,
    /// Number of passes that make a kernel good, regardless of the rate.
    #[arg(long, value_name = "N", conflicts_with_all = ["rate", "confidence"], value_parser = crate::cli::args::within(1, u32::MAX))]
    pub runs: Option<u32>,
    /// Directory for results. Default: results/ in the project.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Format of the printed report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BisectFormat {
    /// For a mailing list.
    Text,
    /// Markdown.
    Markdown,
    /// JSON.
    Json,
}

/// Terms for the older and the newer state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BisectTerms(pub String, pub String);

/// git bisect's subcommands, which it does not accept as terms.
const RESERVED: [&str; 11] =
    ["help", "start", "skip", "next", "reset", "visualize", "view", "replay", "log", "run", "terms"];

/// Why a text is no pair of terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WrongTerms {
    #[error("expected OLD,NEW, for example permissive,strict")]
    Form,
    #[error("`{0}` can't be a term: use lower-case letters and dashes, and no subcommand of git bisect")]
    Term(String),
    #[error("the two terms must differ, and `bad,good` is not accepted")]
    Same,
}

impl FromStr for BisectTerms {
    type Err = WrongTerms;

    fn from_str(text: &str) -> Result<Self, WrongTerms> {
        let (old, new) = text.split_once(',').ok_or(WrongTerms::Form)?;
        for term in [old, new] {
            let plain = |c: char| c.is_ascii_lowercase() || c == '-';
            if term.is_empty() || term.starts_with('-') || !term.chars().all(plain) || RESERVED.contains(&term) {
                return Err(WrongTerms::Term(term.to_owned()));
            }
        }
        if old == new || (old, new) == ("bad", "good") {
            return Err(WrongTerms::Same);
        }
        Ok(Self(old.to_owned(), new.to_owned()))
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "expected a number such as 0.95".to_owned())?;
    if (0.5..1.0).contains(&share) { Ok(share) } else { Err("it must be at least 0.5 and below 1".to_owned()) }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "expected a number such as 0.3".to_owned())?;
    if rate > 0.0 && rate < 1.0 { Ok(rate) } else { Err("it must be above 0 and below 1".to_owned()) }
}

fn capability(text: &str) -> Result<Capability, String> {
    let names = Capability::ALL.map(Capability::name);
    let found = Capability::ALL.into_iter().find(|capability| capability.name() == text);
    found.ok_or_else(|| format!("unknown capability `{text}`; known: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_those_that_git_accepts() {
        assert_eq!("permissive,strict".parse(), Ok(BisectTerms("permissive".to_owned(), "strict".to_owned())));
        for wrong in ["strict", "a,a", "bad,good", "start,stop", "-a,b", "a b,c", ",b"] {
            assert!(wrong.parse::<BisectTerms>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_confidence_of_1_is_refused() {
        assert_eq!(share("0.99"), Ok(0.99));
        assert!(share("1").is_err() && share("0.2").is_err() && share("often").is_err());
    }
}
