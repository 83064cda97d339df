//! Other people's test suites: how each lists its tests, how one of them is run, and what it prints.
//!
//! Where to start: [`plan`] makes cells of a suite before a guest boots. The output is read in `run/program/suite.rs`.

mod kind;
mod list;
mod plan;
mod requires;
mod selftests;
mod table;
mod test_progs;

pub use kind::SuiteKind;
pub use list::ListError;
pub use plan::{SuitePlan, SuiteRequest, TestTimeout, plan};
pub use requires::{HostSkips, NotARequirement, Requirement};
pub use selftests::{MissingNeeds, SelftestTrees, below, lacking, missing};
pub use table::differences;
pub use test_progs::{COLLECTION, program};
