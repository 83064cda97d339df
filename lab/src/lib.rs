//! The host runner: boots a matrix of kernels and reports which attach type was used.
//!
//! The program `lab` is this library with a command line ([`cli`]). Start with [`project`], which opens a directory
//! with `kernels.toml` and selects kernels and cells, then [`guests`], which runs a plan and writes its reports;
//! [`run`] is the loop from plan to verdicts, and [`run::judge`] decides a verdict. [`shard`] splits a plan among
//! machines, [`bisect`] finds the kernel that introduced a failure, [`lists`] holds allowed splats and known failures,
//! [`mod@bench`] measures, [`setup`] checks this host. [`lab_record`] is a run as data, and [`lab_report`] formats
//! reports.
//!
//! A program that links this crate can run a plan like `lab run`:
//!
//! ```no_run
//! use lab::{
//!     error::Error,
//!     guests::{Guests, Order},
//!     project::{Project, filter::{CellFilter, KernelFilter}, select::select},
//! };
//!
//! fn main() -> Result<(), Error> {
//!     let project = Project::open(None)?;
//!     let kernels = project.kernels(&KernelFilter::of("6.12"))?;
//!     let cells = select(&project, &CellFilter { case: vec!["A01-*".to_owned()], ..CellFilter::default() })?;
//!     let done = Guests::execute(&project, &kernels, cells, Order::default(), false, |plan| plan)?;
//!     println!("exit code {}", done.record.exit().code());
//!     Ok(())
//! }
//! ```
//!
//! *Architecture invariant:* only [`cli`] handles arguments of the command line, and no two files import each other,
//! except for the methods of [`run::kernel::KernelRun`] (`tests/architecture.rs`).

/// Version and commit of this build, shown by `lab --version` and in reports.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("NETKIT_LAB_COMMIT"), ")");

pub mod bench;
pub mod bisect;
pub mod cache;
pub mod check;
pub mod cli;
pub mod error;
pub mod exec;
pub mod foreign;
pub mod guests;
pub mod lists;
pub mod pace;
pub mod project;
pub mod provenance;
pub mod pull;
pub mod run;
mod serve;
pub mod setup;
pub mod shard;
pub mod shell;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod world;
