//! What the host trusts, decided in one place: directories that nobody else can write,
//! and how much is read of what somebody else writes.

pub mod bounded;
pub mod private;
