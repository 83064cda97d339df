//! Tests of the output for users and CI systems, through the binary and the CI steps.

mod builds;
#[path = "../support/bzimage.rs"]
mod bzimage;
mod ci;
mod keys;
mod mirrors;
mod reports;
mod support;
mod words;
