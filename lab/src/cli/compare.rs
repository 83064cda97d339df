//! `lab compare`.

use super::{CompareArgs, report};
use crate::{
    compare::{compare as compared, render, same},
    error::{Error, Exit},
    report::events,
};
use lab_base::say::show;
use std::path::PathBuf;

pub(super) fn compare(named: Option<PathBuf>, args: &CompareArgs) -> Result<Exit, Error> {
    let read = |run| events::read(&report::directory(named.clone(), run)?);
    if args.same {
        let found = same(&read(&args.before)?, &read(&args.after)?);
        show(&found)?;
        return Ok(found.exit());
    }
    let comparison = compared(&read(&args.before)?, &read(&args.after)?);
    show(render(&comparison, args.format))?;
    Ok(comparison.exit(args.new_only))
}
