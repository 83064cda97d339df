//! Resolves, fetches and unpacks the kernels of `kernels.toml`.
//!
//! [`KernelMatrix`] is the user's intent, [`KernelsLock`] its resolution, and [`KernelStore`] turns a lock entry into
//! `<cache>/kernels/<id>-<version>-<sha12>/` with `vmlinuz`, `config`, `modules/` and `meta.toml`.
//!
//! Start with [`KernelStore::fetch`]. [`select`] evaluates the patterns of the command line, and [`Checkout`] builds commits
//! of a kernel tree for bisecting.
//!
//! *Architecture invariant:* this crate handles kernels as files with a version: it boots no guests and does not depend
//! on cells.

mod apt;
mod builders;
mod cache;
mod changelog;
mod checkout;
mod class;
mod command_line;
mod compressed;
mod config;
mod debian;
mod digest;
mod error;
mod files;
#[cfg(test)]
mod fuzz;
mod header;
mod kconfig;
mod ladder;
mod local;
mod lockfile;
mod mirror;
mod modules;
mod names;
mod oci;
mod openpgp;
mod packages;
mod push;
mod recipe;
mod rpm;
mod select;
mod source;
mod sources;
mod store;
mod test_progs;
mod untar;
mod update;
mod variants;

pub use apt::AptState;
pub use cache::sha256_of;
pub use cache::{Alone, Cache};
pub use changelog::news;
pub use checkout::{BuildResult, Checkout, Settings};
pub use class::{ClassRule, KernelClass};
pub use config::{BackportEntry, Kernel, KernelMatrix, UnsupportedEntry};
pub use debian::Debian;
pub use digest::{Digest, NoDigest};
pub use error::{KernelsError, Result};
pub use kconfig::{ConfigWish, KernelConfig, NotAWish};
pub use ladder::{KernelLadder, LadderStep};
pub use local::LOCAL_TOML;
pub use lockfile::KernelsLock;
pub use oci::{ImageLayer, image_layers};
pub use push::push;
pub use select::select;
pub use source::{LocalKernel, Locked, Source};
pub use sources::{BpfCompiler, SOURCES, SelftestBuild, object_source};
pub use store::{BootableKernel, KernelRow, KernelStore};
pub use test_progs::{TestProgsBuild, test_progs_dir, tests_of_file};
pub use untar::unpack_modules;
pub use update::{LockChange, Update};
