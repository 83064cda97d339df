//! `lab compare`.

use super::report;
use crate::error::Error;
use clap::Args;
use lab_base::say::show;
use lab_record::{exit::Exit, log};
use lab_report::compare::{compare as compared, render, same};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// The earlier run: its directory, or its name in results/.
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// The later run.
    #[arg(value_name = "AFTER", default_value = "latest")]
    after: PathBuf,
    /// Output format.
    #[arg(long, value_enum, default_value = "text")]
    format: lab_report::compare::CompareFormat,
    /// Exit with 1 only for new failures, not for those that the earlier run also has.
    #[arg(long)]
    new_only: bool,
    /// Check instead that both runs have the same cells with the same outcomes and attach types; exit with 1 if not.
    #[arg(long, conflicts_with_all = ["format", "new_only"])]
    same: bool,
}

pub(super) fn compare(named: Option<PathBuf>, args: &CompareArgs) -> Result<Exit, Error> {
    let read = |run| -> Result<_, Error> { Ok(log::read(&report::directory(named.clone(), run)?)?) };
    if args.same {
        let found = same(&read(&args.before)?, &read(&args.after)?);
        show(&found)?;
        return Ok(found.exit());
    }
    let comparison = compared(&read(&args.before)?, &read(&args.after)?);
    show(render(&comparison, args.format))?;
    Ok(comparison.exit(args.new_only))
}
