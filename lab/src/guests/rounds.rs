//! `--watch`: runs the same cells again whenever their sources change.

use crate::{
    error::Error,
    project::{
        Project,
        watch::{Sources, difference},
    },
};
use lab_base::{interrupt::Interrupt, say::say};
use lab_record::{exit::Exit, run::RunRecord};

/// Runs one round; with `watch` one after each change, until Ctrl-C.
///
/// # Errors
/// The command line is wrong, or the first round failed.
pub fn rounds(
    project: &Project,
    watch: bool,
    mut round: impl FnMut() -> Result<RunRecord, Error>,
) -> Result<Exit, Error> {
    let exit = |record: &RunRecord| record.finished.map_or(Exit::Infra, |(exit, _)| exit);
    if !watch {
        return round().map(|record| exit(&record));
    }
    let interrupt = Interrupt::install().map_err(Error::file("watch", "signals"))?;
    // Started before the first round, so that changes during the round count.
    let sources = Sources::watch(&project.root, &project.home)?;
    let mut last: Option<RunRecord> = None;
    let mut number = 1;
    loop {
        match round() {
            Ok(record) if interrupt.signal().is_none() => {
                if let Some(before) = &last {
                    say(&format!("round {number}: {}", difference(before, &record)));
                }
                last = Some(record);
            }
            Ok(record) => return Ok(exit(&record)),
            Err(error) if interrupt.signal().is_some() => return Err(error),
            // The command line is wrong: no change of a source will fix it.
            Err(error) if last.is_none() && !matches!(error, Error::Artifact(_)) => return Err(error),
            Err(error) => say(&format!("round {number}: error: {error}")),
        }
        if interrupt.signal().is_none() {
            say("watching the sources; press Ctrl-C to end");
        }
        let Some(files) = sources.changed(&interrupt) else {
            return Ok(interrupt.signal().map_or(Exit::Infra, Exit::Interrupted));
        };
        number += 1;
        let named: Vec<String> = files.iter().take(3).map(|path| path.display().to_string()).collect();
        let more =
            if files.len() > named.len() { format!(" and {} more", files.len() - named.len()) } else { String::new() };
        say(&format!("round {number}: {}{more} changed", named.join(", ")));
    }
}
