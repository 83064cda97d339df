//! Everything between `kernels.toml` and an unpacked kernel directory.
//!
//! [`Config`] states intent, [`Lock`] what it was resolved to, and [`Store`] turns a lock entry into
//! `<cache>/kernels/<id>-<version>-<sha12>/` with `vmlinuz`, `config`, `modules/` and `meta.toml`.

mod apt;
mod cache;
mod changelog;
mod checkout;
mod class;
mod config;
mod deb;
mod error;
mod files;
#[cfg(test)]
mod fuzz;
mod git;
mod header;
mod linux_source;
mod local;
mod lockfile;
mod mainline;
mod mirror;
mod modules;
mod packages;
mod recipe;
mod repository;
pub(crate) mod run;
mod select;
mod store;
pub(crate) mod strict;
mod untar;
mod update;

pub use cache::Cache;
pub use changelog::news;
pub use checkout::{Built, Checkout, Settings};
pub use class::Class;
pub use config::{Config, ConfigError, Debian, Departure, Kernel, Source};
pub use error::{KernelsError, Result};
pub use lockfile::{Lock, Locked};
pub use repository::git;
pub(crate) use run::vng_home;
pub use select::select;
pub use store::{Row, Store, Unpacked};
pub use update::{Change, Update};
