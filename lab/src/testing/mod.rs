//! Guests without a virtual machine, for tests of the run loop and for programs that test the lab.

pub mod agent;
pub mod run;
