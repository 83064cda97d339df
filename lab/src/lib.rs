//! The host runner: boots a matrix of kernels and reports which attach type was used.
//!
//! The program `lab` is this library with a command line ([`cli`]). Start with [`project`], which opens a directory with
//! `kernels.toml` and selects kernels and cells, then [`guests`], which runs a plan and reports it; [`run`] is the loop between
//! plan and verdicts, and [`run::judge`] the verdict. [`shard`] splits a plan among machines, [`bisect`] searches for the kernel
//! that a failure came with, [`lists`] holds what does not count as a failure, [`mod@bench`] measures, [`setup`] looks at this host.
//! What a run is, as data, is [`lab_record`]; its reports are [`lab_report`].
//!
//! A program that links this crate runs a plan as `lab run` does:
//!
//! ```no_run
//! use lab::{
//!     error::Error,
//!     guests::{Guests, Order},
//!     project::{Project, filter::{Filter, KernelFilter}, select::select},
//! };
//!
//! fn main() -> Result<(), Error> {
//!     let project = Project::open(None)?;
//!     let kernels = project.kernels(&KernelFilter::of("6.12"))?;
//!     let cells = select(&project, &Filter { case: vec!["A01-*".to_owned()], ..Filter::default() })?;
//!     let done = Guests::execute(&project, &kernels, cells, Order::default(), false, |plan| plan)?;
//!     println!("exit code {}", done.record.exit().code());
//!     Ok(())
//! }
//! ```
//!
//! *Architecture invariant:* nothing outside of [`cli`] takes an argument of the command line, and no two files use each other
//! in a circle, but for the methods of one kernel's run (`tests/architecture.rs`).

pub mod bench;
pub mod bisect;
pub mod cache;
pub mod cli;
pub mod error;
pub mod guests;
pub mod lists;
pub mod project;
pub mod run;
pub mod setup;
pub mod shard;
pub mod shell;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
