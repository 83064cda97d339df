//! `lab bisect`: finds the kernel or the commit that introduced or fixed a failure, and the probability of the result.
//! [`search`] selects the points to test and computes the result; it depends on neither git nor guests. [`tester`] runs
//! the kernels of a history in guests. [`packages`] and [`commits`] are the two kinds of history, [`predicate`] defines
//! what counts as the failure, [`state`] stores the results, [`report`] formats the finding.

pub mod commits;
pub mod graph;
pub mod halving;
pub mod packages;
pub mod posterior;
pub mod predicate;
pub mod report;
pub mod search;
pub mod state;
pub mod tester;
pub mod trial;

pub use trial::{Answer, Mark, NoKernel, SearchStop, Subject, Trial, Walk};
