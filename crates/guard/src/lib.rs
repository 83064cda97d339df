//! What the host trusts, decided in one place: directories that nobody else can write.

pub mod private;
