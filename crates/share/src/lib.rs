//! The host's end of a guest's file system.
//!
//! A guest's agent mounts a FUSE file system and carries the requests of the guest's kernel over a virtio-serial port as they
//! are (`include/uapi/linux/fuse.h`); [`Server`] answers them. Nothing has to be plugged into the machine, and its memory
//! need not be shared, so that guests are restored from snapshots as all others. `docs/roots.md` compares the alternatives.
//!
//! What is served is a [`Tree`]: its directories, files and links are either made here ([`Tree::directory`],
//! [`Tree::file`]) or directories of the host ([`Tree::host`]).
//!
//! *Security*: every request comes from a guest that may be hostile.
//! - A path of the host is built from single names that the guest looked up before, and opened with `openat2(2)` below its
//!   export: without symbolic links, without `..`.
//! - Requests that change something exist for exports that were made writable. Everywhere else they are `EROFS`, and the
//!   serving thread has no rights to write there (Landlock).
//! - Only regular files are opened; devices, sockets and FIFOs have attributes and nothing else. The host's kernel file
//!   systems (`/proc`, `/sys`) are empty directories.
//! - What grows has a limit: requests, nodes, open files, and what is written to writable exports.
//!
//! *Architecture invariant:* this crate knows no guest and no message of the agent.

#![warn(missing_docs)]

mod budget;
mod change;
mod confine;
mod files;
#[cfg(test)]
mod fuzz;
mod host;
mod node;
mod reply;
mod request;
mod server;
#[cfg(test)]
mod tests;
mod tree;
mod wire;

pub use budget::WriteBudget;
pub use server::{Failed, FileStamp, ServeEnd, Server};
pub use tree::{FileSource, ItemId, Look, Tree, TreeError};
