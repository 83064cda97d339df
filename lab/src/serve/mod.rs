//! `lab serve`: a process that holds guests ready, which `lab run` and `lab exec` take instead of restoring one.
//!
//! [`Client`] is the side of a run, [`GuestServer`] the process. They talk over a socket that only the user can reach, whose path is in
//! the cache: one line of JSON asks ([`wire::HoldAsk`]), one answers. The connection of a guest that is lent stays open: when the borrower
//! closes it the guest ends, and when the guest ends the borrower is told how. What becomes of a guest before it is held is in
//! [`crate::run::rehearse`].

mod client;
mod keep;
mod pool;
mod server;
mod wire;

pub use client::Client;
pub use server::{GuestServer, Limits};
