//! Checks what the host may trust: directories that only the user can write to, ids that are read back, files from other
//! machines, and limits for reading files that other programs write.

pub mod bounded;
pub mod foreign;
mod id;
pub mod private;

pub use id::{Id, Inside, NotAnId, NotInside};
