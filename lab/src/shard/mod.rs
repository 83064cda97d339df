//! Splits a plan into shards, and merges their results into one run.
//!
//! A shard is a function of the plan, the number of shards and the recorded durations alone, so that machines agree on it
//! without communication. The inputs that they must agree on are hashed into every shard's first event, and [`merge`]
//! refuses shards whose hashes differ.

pub mod durations;
mod environment;
mod error;
mod files;
mod identity;
pub mod layout;
pub mod merge;
pub mod part;
mod partition;
mod replay;

pub use environment::{Request, resolve};
pub use error::ShardError;
pub use identity::identity;
pub use partition::{Load, Split, split};
