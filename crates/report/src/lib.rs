//! Reporters: they consume the events of a run.
//!
//! Start with [`write_all`], which writes all reports of a run from its [`RunRecord`], or with one format: [`junit`],
//! [`html`], [`run_json`], [`ktap`], [`kcidb`], [`terminal`]; [`progress`] shows a run in progress. [`compare`] and
//! [`history`] read several runs, and [`results`] manages the directory of runs.
//!
//! *Architecture invariant:* a report is a function of a run's record: this crate accesses no kernel and no guest, and
//! decides no verdict.

pub mod attached;
pub mod capabilities;
pub mod compare;
mod error;
pub mod format;
pub mod history;
pub mod html;
pub mod junit;
pub mod kcidb;
pub mod ktap;
pub mod progress;
pub mod results;
pub mod run_json;
pub mod splats;
pub mod stories;
pub mod summary;
pub mod tap;
pub mod terminal;
pub mod totals;

pub use error::ReportError;

use lab_base::file::FileError;
use lab_record::run::RunRecord;
use std::path::Path;

#[cfg(test)]
mod fuzz;
/// Writes all reports of a run: two at a time, since each of them reads the whole record of a large run.
///
/// # Errors
/// A report can't be written.
pub fn write_all(directory: &Path, record: &RunRecord) -> Result<(), FileError> {
    let junit = junit::JunitReporter { directory: directory.to_owned() };
    let run_json = run_json::RunJson { directory: directory.to_owned() };
    let html = html::HtmlReporter { directory: directory.to_owned() };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| junit.write(record));
        let others = run_json.write(record).and_then(|()| html.write(record));
        let first = first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        first.and(others)
    })
}

#[cfg(test)]
mod tests;
