//! `lab compare`.

use super::{CompareArgs, report};
use crate::error::Error;
use lab_base::say::show;
use lab_record::{exit::Exit, log};
use lab_report::compare::{compare as compared, render, same};
use std::path::PathBuf;

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
