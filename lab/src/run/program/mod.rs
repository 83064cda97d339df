//! Programs that run as cells: where their output goes, where their input comes from, and what they get of this process.

mod keep;
mod memory;
mod open;
mod sink;
mod source;
mod streams;
pub mod suite;
#[cfg(test)]
mod tests;

pub use open::OpenStreams;
pub use streams::{Show, Streams, label};
