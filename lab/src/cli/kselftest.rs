//! `lab kselftest`.

use super::{
    exec::{self, Ahead, ExecArgs, ExecOrder, ExecPlan, RunTold},
    list,
};
use crate::{
    cli::{Cli, Command, args::OutputArgs},
    error::Error,
    guests::Talk,
    project::{Project, filter::CellFilter},
};
use clap::{Args, Parser};
use lab_protocol::Raw;
use lab_record::{exit::Exit, plan::Plan};
use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

/// First of the words by which a run says that it was one of selftests.
pub(super) const WORD: &str = lab_record::run::KSELFTEST;

#[derive(Debug, Args)]
pub(super) struct KselftestArgs {
    #[command(flatten)]
    exec: ExecArgs,
    /// The selftests of this kernel tree, for all kernels. Default: each kernel's own, from Debian's package with its sources.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["source_of", "sources"])]
    tree: Option<PathBuf>,
    /// The selftests of this kernel, by id, for all kernels.
    #[arg(long, value_name = "ID", conflicts_with = "sources")]
    source_of: Option<String>,
    /// List the tests, on which kernels they would run and what they miss, and boot nothing.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    output: OutputArgs,
    /// Tests, net/fib_tests.sh, and collections with all their tests, net or forwarding.
    #[arg(required = true, value_name = "TEST")]
    wanted: Vec<OsString>,
}

pub(super) fn kselftest(named: Option<PathBuf>, args: KselftestArgs) -> Result<Exit, Error> {
    run(named, args, exec::words(WORD), |plan| plan)
}

/// Runs tests of an earlier run again, on the kernels of `narrow`.
pub(super) fn again(
    named: Option<PathBuf>,
    kernels: &[String],
    words: &[Raw],
    narrow: impl FnOnce(Plan) -> Plan,
) -> Result<Exit, Error> {
    let words: Vec<OsString> = words.iter().skip(1).map(|word| OsString::from_vec(word.0.clone())).collect();
    let line = [OsString::from("lab"), WORD.into()].into_iter().chain(words.iter().cloned());
    let parsed = Cli::try_parse_from(line).map_err(|error| Error::Usage(error.to_string()))?;
    match parsed.command {
        Command::Kselftest(mut args) => {
            args.exec.kernels.kernel.extend(kernels.iter().cloned());
            run(named, *args, words, narrow)
        }
        _ => Err(Error::Usage("the run does not say how it was started".to_owned())),
    }
}

fn run(
    named: Option<PathBuf>,
    args: KselftestArgs,
    words: Vec<OsString>,
    narrow: impl FnOnce(Plan) -> Plan,
) -> Result<Exit, Error> {
    let KselftestArgs { mut exec, tree, source_of, list: lists, output, wanted } = args;
    let project = Project::open(named)?;
    let one = source_of.map(|id| PathBuf::from(format!("kernel={id}")));
    exec.of_selftests(&project, wanted, tree.or(one).unwrap_or_else(|| PathBuf::from("kernel")))?;
    if lists {
        let kernels = project.kernels_for_programs(&exec.kernels.filter())?;
        let selected = exec::built(&project, exec.no_build)?;
        let planned = ExecPlan::new(&project, &kernels, &exec, &selected, Ahead::Prepare)?;
        let facts = kernels.iter().map(|kernel| project.facts(kernel)).collect::<Result<Vec<_>, _>>()?;
        return list::show(&planned.skips.apply(Plan::new(facts, planned.cells(false, None), false)), &output);
    }
    let words = std::iter::once(WORD.into()).chain(words).collect();
    let told = RunTold { talk: Talk::Usual, format: None, fail_fast: false };
    let order = ExecOrder {
        args: &exec,
        words,
        kernels: exec.kernels.filter(),
        cells: CellFilter::default(),
        suite: Some(told),
        shard: None,
    };
    exec::go(&project, order, narrow)
}
