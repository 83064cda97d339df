//! `lab bisect`: finds the kernel or the commit that introduced or fixed a failure, and the probability of the result.
//!
//! [`search`] asks and concludes; it knows neither git nor guests. [`tester`] runs the kernels of a history in guests. [`packages`] and [`commits`] are the two histories it
//! works on, [`predicate`] says what counts as the failure, [`state`] remembers what was seen, [`report`] tells it.

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

pub use trial::{Answer, Mark, SearchStop, Subject, Trial, Walk};
