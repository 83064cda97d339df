//! The arguments of `lab bisect` and `lab bisect-step`.

use crate::{bisect::predicate::Match, run::deadline::Deadline};
use clap::{Args, ValueEnum};
use lab_protocol::Capability;
use std::{path::PathBuf, str::FromStr};

/// What is asked of a kernel.
#[derive(Debug, Args)]
pub(crate) struct WhatArgs {
    /// The case or cell that fails, `*` and `?` allowed; repeatable.
    #[arg(long, value_name = "GLOB", required_unless_present = "capability")]
    pub case: Vec<String>,
    /// Instead of a case: a capability, as `lab capabilities` names it. Having it counts as bad; --terms can say it better.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["case", "match_"], value_parser = capability)]
    pub capability: Option<Capability>,
    /// Which failures of the case count; any other one is skipped.
    #[arg(long = "match", value_enum, default_value_t, value_name = "HOW")]
    pub match_: Match,
    /// Use the agent and the eBPF objects as they are.
    #[arg(long)]
    pub no_build: bool,
    /// A deadline other than the one that fits the accelerator, for example boot=60s; repeatable.
    #[arg(long, value_name = "LAYER=TIME")]
    pub deadline: Vec<Deadline>,
}

/// How commits become kernels.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// A whole .config. Default: the lab's own, with everything that the cases need built in and little else.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Options on top; a commit at which one of them has no effect is skipped. Repeatable.
    #[arg(long, value_name = "FILE")]
    pub fragment: Vec<PathBuf>,
    /// Run by sh in the checkout instead of `vng --build`; it leaves arch/x86/boot/bzImage. 125 means that it can't be built.
    #[arg(long, value_name = "COMMAND")]
    pub build_command: Option<String>,
    /// Compilers at the same time. Default: one per processor.
    #[arg(long, value_name = "N", value_parser = crate::cli::args::size)]
    pub jobs: Option<std::num::NonZeroUsize>,
}

/// `lab bisect`.
#[derive(Debug, Args)]
pub(crate) struct BisectArgs {
    #[command(flatten)]
    pub what: WhatArgs,
    /// Where it is not: a kernel's id, or with --tree a revision.
    #[arg(long, value_name = "KERNEL|REV")]
    pub good: String,
    /// Where it is. One that is older than --good looks for the fix.
    #[arg(long, value_name = "KERNEL|REV")]
    pub bad: String,
    /// Kernels of the ladder by id, `*` and `?` allowed; repeatable. Default: all that come as packages or images.
    #[arg(long, value_name = "GLOB", conflicts_with = "tree")]
    pub kernels: Vec<String>,
    /// What the culprit's changelog is searched for: lines with this text, of the packages since the one before it.
    #[arg(long, value_name = "TEXT", conflicts_with = "tree")]
    pub changelog: Option<String>,
    /// Search the commits of this kernel git tree instead. Neither its files, nor HEAD, nor .config are touched.
    #[arg(long, value_name = "DIR")]
    pub tree: Option<PathBuf>,
    #[command(flatten)]
    pub build: BuildArgs,
    /// What the older and the newer state are called. Default: good,bad, and broken,fixed for a fix.
    #[arg(long, value_name = "OLD,NEW")]
    pub terms: Option<Terms>,
    /// Probability that the answer shall have.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95, value_parser = share)]
    pub confidence: f64,
    /// Test what tells most instead of halving: for failures that are rare.
    #[arg(long)]
    pub bayes: bool,
    /// Runs of one kernel, at most.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = crate::cli::args::within(3, 99_999))]
    pub max_runs: u32,
    /// Forget what earlier searches for the same question saw. What was built stays.
    #[arg(long)]
    pub fresh: bool,
    /// Directory for results. Default: results/ in the project.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What is printed in the end; all three are written.
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// `lab bisect-step`.
#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    #[command(flatten)]
    pub what: WhatArgs,
    #[command(flatten)]
    pub build: BuildArgs,
    /// The kernel git tree whose HEAD is asked. It is built elsewhere.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub tree: PathBuf,
    /// What the failure is known by, for --match exact. A file that is not there is written at the first failure: run it on
    /// the bad commit before `git bisect run`.
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// How often a bad kernel fails: it decides how many passes make a good one.
    #[arg(long, value_name = "SHARE", default_value_t = 0.99, value_parser = rate)]
    pub rate: f64,
    /// Probability that a good kernel is good.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95, value_parser = share)]
    pub confidence: f64,
    /// Passes that make a kernel good, whatever the rate.
    #[arg(long, value_name = "N", conflicts_with_all = ["rate", "confidence"], value_parser = crate::cli::args::within(1, u32::MAX))]
    pub runs: Option<u32>,
    /// Directory for results. Default: results/ in the project.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// How the report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a mailing list.
    Text,
    /// Markdown.
    Markdown,
    /// JSON.
    Json,
}

/// Names of the older and the newer state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms(pub String, pub String);

/// git bisect's own words, which it takes for no terms.
const RESERVED: [&str; 11] =
    ["help", "start", "skip", "next", "reset", "visualize", "view", "replay", "log", "run", "terms"];

impl FromStr for Terms {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (old, new) = text.split_once(',').ok_or("it takes OLD,NEW, for example permissive,strict")?;
        for term in [old, new] {
            let plain = |c: char| c.is_ascii_lowercase() || c == '-';
            if term.is_empty() || term.starts_with('-') || !term.chars().all(plain) || RESERVED.contains(&term) {
                return Err(format!(
                    "`{term}` can't be a term: small letters and dashes, and none of git bisect's words"
                ));
            }
        }
        if old == new || (old, new) == ("bad", "good") {
            return Err("the two terms must differ, and not be good and bad the wrong way round".to_owned());
        }
        Ok(Self(old.to_owned(), new.to_owned()))
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "it takes a number such as 0.95".to_owned())?;
    if (0.5..1.0).contains(&share) { Ok(share) } else { Err("it must be at least 0.5 and below 1".to_owned()) }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "it takes a number such as 0.3".to_owned())?;
    if rate > 0.0 && rate < 1.0 { Ok(rate) } else { Err("it must be above 0 and below 1".to_owned()) }
}

fn capability(text: &str) -> Result<Capability, String> {
    let names = Capability::ALL.map(Capability::name);
    let found = Capability::ALL.into_iter().find(|capability| capability.name() == text);
    found.ok_or_else(|| format!("no capability is called `{text}`; there are {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_what_git_takes() {
        assert_eq!("permissive,strict".parse(), Ok(Terms("permissive".to_owned(), "strict".to_owned())));
        for wrong in ["strict", "a,a", "bad,good", "start,stop", "-a,b", "a b,c", ",b"] {
            assert!(wrong.parse::<Terms>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn certainty_is_not_on_offer() {
        assert_eq!(share("0.99"), Ok(0.99));
        assert!(share("1").is_err() && share("0.2").is_err() && share("often").is_err());
    }
}
