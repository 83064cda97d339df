//! What the host trusts, decided in one place: directories that nobody else can write, names that are read back, files from
//! elsewhere, and how much is read of what somebody else writes.

pub mod bounded;
pub mod foreign;
mod id;
pub mod private;

pub use id::{Id, Inside, NotAnId, NotInside};
