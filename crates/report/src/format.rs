//! Output formats of a run on standard output.

use super::{
    junit::{self, Dialect},
    kcidb, ktap, summary, tap,
};
use lab_base::{file::FileError, say};
use lab_record::run::RunRecord;

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// KTAP version 1, as kselftest and `KUnit` write it.
    Ktap,
    /// KernelCI's KCIDB JSON, version 5.3.
    Kcidb,
    /// JUnit XML, as in junit.xml.
    Junit,
    /// JUnit XML that conforms to the schema of Jenkins' xUnit plugin.
    Jenkins,
    /// JUnit XML that follows the schema of Apache Ant's tasks (`JUnit.xsd` of windyroad) exactly.
    Ant,
    /// TAP version 13 without subtests: a line per cell, for prove and other harnesses.
    Tap,
    /// Markdown for a job summary: totals per kernel and attach type, and every failure.
    Markdown,
    /// Annotations for GitHub's log: an `::error` line per failure.
    Github,
}

impl ReportFormat {
    /// Writes the run in this format to standard output.
    ///
    /// # Errors
    /// As for [`say::show`].
    pub fn show(self, record: &RunRecord, origin: &str) -> Result<(), FileError> {
        let text = self.render(record, origin);
        if self == Self::Github { say::annotate(&text) } else { say::show(text) }
    }

    /// Formats a run; `origin` is the CI system's name in KCIDB.
    pub fn render(self, record: &RunRecord, origin: &str) -> String {
        match self {
            Self::Ktap => ktap::render(record),
            Self::Kcidb => kcidb::render(record, origin),
            Self::Junit => junit::render(record, None, Dialect::Common),
            Self::Jenkins => junit::render(record, None, Dialect::Jenkins),
            Self::Ant => junit::ant::render(record),
            Self::Tap => tap::render(record),
            Self::Markdown => summary::markdown(record),
            Self::Github => summary::annotations(record),
        }
    }
}
