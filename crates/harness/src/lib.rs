//! Runs suites of cells in a guest.
//!
//! A cell is a case in one variant. A case reads in one order: build the topology, load, attach, compare with what the
//! kernel reports, send traffic, compare counters, detach, check that nothing passes any more.
//!
//! Where to start: [`Case`](case::Case) is what a test author writes and [`Ctx`](ctx::Ctx) is what its function gets;
//! [`Ctx::testbed`](ctx::Ctx::testbed) builds the declared topology, and [`testbed`], [`flows`] and [`trip`] do the rest.
//! [`Suite`] is what an agent takes, and [`Runner`] runs its cells: each on a thread of its own, with a deadline and a
//! count of what it left behind.
//!
//! *Architecture invariant:* the harness knows no case. It learns what there is to run from [`Suite`] alone.
//!
//! *Architecture invariant:* a case builds the topology that it declares and no other, since
//! [`Ctx::testbed`](ctx::Ctx::testbed) is the only way to a [`Testbed`](testbed::Testbed).
//!
//! *Architecture invariant:* what a cell needs is found out by probing the kernel, never by its version.

#![warn(missing_docs)]

pub mod capabilities;
pub mod case;
pub mod ctx;
pub mod detect;
mod evidence;
pub mod fault;
mod fence;
pub mod flows;
pub mod holder;
pub mod leaks;
mod measure;
pub mod probe;
mod runner;
mod stage;
pub mod stranger;
mod suite;
mod survey;
pub mod testbed;
pub mod trip;
pub mod variants;

pub use lab_topology::{Netns, Template, library};
pub use runner::{Finished, PINS, RunOptions, Runner};
pub use stage::Staged;
pub use suite::{Cases, Cell, Suite, SuiteError, listing, templates, topologies};
