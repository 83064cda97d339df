//! A run as data: what was planned, what happened, and how every cell ended.
//!
//! Start with [`event::Event`]: a run is a sequence of events. [`run::RunRecord`] accumulates them; every report is made
//! from it. [`plan`] defines which cells run on which kernel, [`verdict`] how a cell ended, and [`rows`] the rows for
//! guests that every kernel has beside its cells. [`log`] writes the events to `events.jsonl` and reads them back;
//! [`reporter::Reporter`] receives them while the run is in progress. Most of these types are written to disk: changing
//! their fields requires a new [`event::FORMAT`].
//!
//! *Architecture invariant:* this crate does no I/O except for the log, and knows nothing about how a run is executed. It
//! uses the protocol and [`lab_base`], but not virtual machines, kernel packages or report formats.

#![warn(missing_docs)]

pub mod event;
pub mod excuse;
pub mod exit;
pub mod guest;
pub mod guest_exit;
pub mod kept;
pub mod log;
pub mod plan;
pub mod provenance;
pub mod reporter;
pub mod rows;
pub mod run;
pub mod shard;
pub mod slow;
pub mod splat;
pub mod synthetic;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod verdict;
