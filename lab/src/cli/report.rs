//! `lab report`.

use crate::{cli::args::FormatArgs, error::Error, project};
use lab_base::{
    programs,
    say::{self, show},
};
use lab_record::{exit::Exit, log};
use lab_report::{html, results, terminal, write_all};
use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Opens a file with the desktop's program for it (xdg-utils).
const OPENER: &str = "xdg-open";
/// How long it may take to find out that there is no desktop.
const FAILS_WITHIN: Duration = Duration::from_secs(2);

/// A run's directory: the given path, or its name in the project's results.
pub(super) fn directory(named: Option<PathBuf>, run: &Path) -> Result<PathBuf, Error> {
    let is_path = run.join(log::FILE).is_file();
    Ok(if is_path { run.to_owned() } else { results::find(&project::root(named)?.join("results"), run) })
}

pub(super) fn report(named: Option<PathBuf>, run: &Path, format: &FormatArgs, open: bool) -> Result<Exit, Error> {
    let directory = directory(named, run)?;
    let record = log::read(&directory)?;
    let exit = record.outcome();
    if let Some(chosen) = format.format {
        chosen.show(&record, &format.origin)?;
        return Ok(exit);
    }
    write_all(&directory, &record)?;
    show(terminal::summary(&record, &directory, say::colours()))?;
    if open {
        opened(&project::absolute(&directory.join(html::FILE))?);
    }
    Ok(exit)
}

/// Opens a page as a click on it would. Where nothing can, the path is said: the report itself is there.
fn opened(page: &Path) {
    let why = match programs::find(OPENER) {
        None => Some(format!("{OPENER} is not installed")),
        Some(opener) => failure(&opener, page),
    };
    match why {
        None => say::say(&format!("opening {}", page.display())),
        Some(why) => say::say(&format!("{why}: open {} in a browser", page.display())),
    }
}

/// Why the opener failed. It may run as long as the browser, so it is not awaited for longer than a failure takes.
fn failure(opener: &Path, page: &Path) -> Option<String> {
    let mut command = Command::new(opener);
    // Its own process group: Ctrl-C in this terminal must not end the browser, which must not write to the terminal.
    command.arg(page).process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Some(format!("{OPENER} can't be started ({error})")),
    };
    let begin = Instant::now();
    while begin.elapsed() < FAILS_WITHIN {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return None,
            Ok(Some(status)) => return Some(format!("{OPENER} failed ({status})")),
            Ok(None) => thread::sleep(Duration::from_millis(20)),
            Err(error) => return Some(format!("{OPENER} can't be watched ({error})")),
        }
    }
    None
}
