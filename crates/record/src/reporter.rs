//! Reporters receive the events of a run while it is in progress.

use crate::{event::Stamped, run::RunRecord};
use lab_base::file::FileError;

/// A consumer of a run's events.
pub trait Reporter {
    /// Handles one event; `record` already includes it.
    ///
    /// # Errors
    /// The report can't be written. This ends the run, because a run without its report is useless.
    fn event(&mut self, stamped: &Stamped, record: &RunRecord) -> Result<(), FileError>;
}
