//! The lab as people install it: the packages that `scripts/dist` builds, in directories and roots without a compiler.

mod anywhere;
#[path = "../support/cache.rs"]
mod own_cache;
mod package;
mod repro;
mod use_in_ci;
