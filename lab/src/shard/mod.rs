//! One plan in several parts: who runs what, and how their results become one run again.
//!
//! A part is a function of the plan, the number of parts and the recorded durations alone, so that machines which never
//! talk to each other agree on it. What they must agree on is hashed into every shard's first event, and [`merge`]
//! refuses shards that do not.

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
