//! Who is told of a run while it goes on.

use crate::{event::Stamped, run::RunRecord};
use lab_base::file::FileError;

/// Consumes a run's events.
pub trait Reporter {
    /// One event; `record` already holds it.
    ///
    /// # Errors
    /// The report can't be written. The run ends then: a run without a report is no run.
    fn event(&mut self, stamped: &Stamped, record: &RunRecord) -> Result<(), FileError>;
}
