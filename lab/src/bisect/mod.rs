//! `lab bisect`: finds the kernel or the commit that introduced or fixed a failure, and the probability of the result.
//!
//! [`search`] selects tests and draws conclusions; it knows neither git nor guests. [`packages`] and [`commits`] are the
//! two kinds of history, [`predicate`] defines what counts as the failure, [`state`] stores results, and [`report`] formats
//! the finding.

pub mod bench;
pub mod commits;
pub mod graph;
pub mod halving;
pub mod packages;
pub mod posterior;
pub mod predicate;
pub mod report;
pub mod search;
pub mod state;

pub use bench::{Answer, Bench, Mark, Stop, Subject, Walk};
