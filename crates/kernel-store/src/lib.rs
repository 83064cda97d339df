//! Resolves, fetches and unpacks the kernels of `kernels.toml`.
//!
//! [`Config`] is the user's intent, [`Lock`] its resolution, and [`Store`] turns a lock entry into
//! `<cache>/kernels/<id>-<version>-<sha12>/` with `vmlinuz`, `config`, `modules/` and `meta.toml`.
//!
//! Start with [`Store::fetch`]. [`select`] evaluates the patterns of the command line, and [`Checkout`] builds commits of a
//! kernel tree for bisecting.
//!
//! *Architecture invariant:* this crate handles kernels as files with a version: it boots nothing and knows no cell.

mod apt;
mod builders;
mod cache;
mod changelog;
mod checkout;
mod class;
mod command_line;
mod config;
mod error;
mod files;
#[cfg(test)]
mod fuzz;
mod header;
mod lockfile;
mod mirror;
mod modules;
mod packages;
mod recipe;
mod select;
mod source;
mod store;
mod untar;
mod update;

pub use apt::AptState;
pub use cache::sha256_of;
pub use cache::{Alone, Cache};
pub use changelog::news;
pub use checkout::{Built, Checkout, Settings};
pub use class::Class;
pub use config::{Backport, Config, Debian, Kernel, Source, UnsupportedEntry};
pub use error::{KernelsError, Result};
pub use lockfile::{Lock, Locked};
pub use select::select;
pub use store::{KernelRow, Store, Unpacked};
pub use update::{Change, Update};
