//! What every part of the host runner needs and none of them owns.
//!
//! Start with [`text`] (text from guests, escaped before it is shown), [`process`] (programs started with arguments, never a
//! command line), [`git`] (the one way in which git is run), [`file`](mod@file) (files that are replaced whole), and [`strict_toml`] (configuration with errors that name the line).
//! [`interrupt`] is the flag that a signal raises, [`selection`] the patterns of the command line, [`nearest`] the hint in an
//! error about an unknown name.
//!
//! *Architecture invariant:* this crate knows no kernel, no guest and no run, and uses no other crate of the workspace.

pub mod file;
pub mod git;
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
