//! A run as data: what was planned, what happened, and how every cell ended.
//!
//! Start with [`event::Event`], of which a run is a sequence, and [`run::RunRecord`], what the events add up to: every report
//! is made from it. [`plan`] says which cells run where, [`verdict`] how one ended, [`rows`] what a kernel's guests add to
//! its cells. [`log`] keeps the events in `events.jsonl` and reads them back; [`reporter::Reporter`] is told of them while the
//! run goes on. Most of these types are written to disk: a change of their fields is a change of [`event::FORMAT`].
//!
//! *Architecture invariant:* no I/O but the log, and nothing of how a run is made: this crate knows the protocol and
//! [`lab_base`], and neither virtual machines nor kernels' packages nor a report's format.

pub mod event;
pub mod excuse;
pub mod exit;
pub mod guest;
pub mod guest_exit;
pub mod kept;
pub mod log;
pub mod plan;
pub mod reporter;
pub mod rows;
pub mod run;
pub mod shard;
pub mod splat;
pub mod synthetic;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod verdict;
