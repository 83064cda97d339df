//! Guests without a machine, for tests of the run loop and for programs that test the lab from outside.

pub mod agent;
pub mod run;
