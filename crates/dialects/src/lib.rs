//! Readers of what other people's test suites print.
//!
//! Where to start: [`SuiteOutput`] takes the bytes of a program's output and gives an [`SuiteAccount`] of its tests; [`conclude`] combines the
//! account with the program's end into the outcome of the whole. [`SuiteDialect`] names the formats.
//!
//! *Architecture invariant:* no I/O. Every byte may come from a program that crashed in the middle of a line, or that lies. All that
//! is kept is bounded; what goes beyond is counted and told.

mod account;
mod conclude;
mod ctest;
mod dialect;
#[cfg(test)]
mod fuzz;
mod go;
mod junit;
mod kselftest;
mod ktap;
mod libtest;
mod lines;
mod list;
mod pytest;
mod reading;
#[cfg(test)]
mod samples;
mod test_progs;
#[cfg(test)]
mod tests;

pub use account::{ALL, SuiteAccount, TestMark, TestResult, name};
pub use conclude::{Conclusion, ProgramExit, conclude};
pub use dialect::SuiteDialect;
pub use list::{ListFormat, ListedTest};
pub use reading::SuiteOutput;
