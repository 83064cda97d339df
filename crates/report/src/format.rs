//! The formats that a run is written in on standard output, for tools that read none of the files.

use super::{
    junit::{self, Dialect},
    kcidb, ktap, summary,
};
use lab_record::run::RunRecord;

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// KTAP version 1, as kselftest and `KUnit` write it.
    Ktap,
    /// KernelCI's KCIDB JSON, version 5.3.
    Kcidb,
    /// JUnit XML, as in junit.xml.
    Junit,
    /// JUnit XML that holds to the schema of Jenkins' xUnit plugin to the letter.
    Jenkins,
    /// Markdown for a job summary: totals per kernel and attach type, and every failure.
    Markdown,
    /// Annotations for GitHub's log: an `::error` line per failure.
    Github,
}

impl Format {
    /// The run in this format; `origin` is what KCIDB calls the CI system.
    pub fn render(self, record: &RunRecord, origin: &str) -> String {
        match self {
            Self::Ktap => ktap::render(record),
            Self::Kcidb => kcidb::render(record, origin),
            Self::Junit => junit::render(record, None, Dialect::Common),
            Self::Jenkins => junit::render(record, None, Dialect::Jenkins),
            Self::Markdown => summary::markdown(record),
            Self::Github => summary::annotations(record),
        }
    }
}
