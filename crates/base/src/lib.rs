//! Common code of the host runner: text, files, processes, configuration files.
//!
//! Start with [`text`] (escapes text from guests before it is shown), [`process`] (starts programs from argument vectors,
//! never from a shell string), [`file`](mod@file) (replaces files atomically), and [`strict_toml`] (configuration files;
//! errors name file and line). [`facts`] keeps what takes long to find out about files. [`interrupt`] is the flag that signals set, [`selection`] matches the glob patterns of the
//! command line, and [`nearest`] suggests similar names in errors.
//!
//! *Architecture invariant:* this crate contains nothing about kernels, guests or runs, and uses no other crate of the
//! workspace.

pub mod arch;
pub mod facts;
pub mod file;
pub mod git;
pub mod held;
pub mod hex;
pub mod interrupt;
pub mod lock;
pub mod nearest;
pub mod paths;
pub mod process;
pub mod programs;
pub mod say;
pub mod selection;
pub mod strict_toml;
pub mod text;
pub mod transfer;
