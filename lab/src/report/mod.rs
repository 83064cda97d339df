//! Reporters: they consume events and never ask a session anything.

pub mod capabilities;
pub mod complaints;
pub mod directory;
pub mod events;
pub mod format;
pub mod html;
pub mod junit;
pub mod kcidb;
pub mod ktap;
pub mod progress;
pub mod record;
pub mod rows;
pub mod run_json;
pub mod terminal;

use crate::{error::Error, event::Stamped};
use record::RunRecord;

/// Consumes a run's events.
pub trait Reporter {
    /// One event; `record` already holds it.
    ///
    /// # Errors
    /// The report can't be written. The run ends then: a run without a report is no run.
    fn event(&mut self, stamped: &Stamped, record: &RunRecord) -> Result<(), Error>;
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
