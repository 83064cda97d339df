//! Runs suites of cells in a guest.
//! A cell is a case in one variant. Most cases have the same steps: build the topology, load programs, attach, compare
//! with the kernel's report, send traffic, compare counters, detach, check that the programs no longer run. Where to
//! start: a test author writes a [`Case`](case::Case), whose function receives a [`Ctx`](ctx::Ctx);
//! [`Ctx::testbed`](ctx::Ctx::testbed) builds the declared topology; [`testbed`], [`flows`] and [`trip`] attach
//! programs and send traffic. An agent has one or more [`Suite`]s, and [`Runner`] runs their cells: each on a separate
//! thread, with a deadline and a leak check.
//!
//! *Architecture invariant:* the harness does not depend on cases. It gets them through [`Suite`] only.
//!
//! *Architecture invariant:* a case builds the topology that it declares and no other, since
//! [`Ctx::testbed`](ctx::Ctx::testbed) is the only way to a [`Testbed`](testbed::Testbed).
//!
//! *Architecture invariant:* capabilities are detected by probing the kernel, never by its version.

#![warn(missing_docs)]

pub mod capabilities;
pub mod case;
pub mod ctx;
pub mod detect;
mod error;
mod evidence;
pub mod fault;
mod fence;
pub mod flows;
pub mod holder;
pub mod leaks;
mod measure;
pub mod probe;
mod runner;
pub mod slab;
mod stage;
pub mod stranger;
mod suite;
mod survey;
pub mod testbed;
pub mod trip;
pub mod variants;
pub mod witness;

pub use error::HarnessError;
pub use lab_topology::{Netns, Template, TopologyError, library, quiet, unpoisoned, uplink};
pub use runner::{Finished, PINS, RunOptions, Runner, write_object};
pub use stage::Staged;
pub use suite::{Cases, Cell, Suite, SuiteError, listing, templates, topologies};
