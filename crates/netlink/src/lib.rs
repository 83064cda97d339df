//! A small blocking rtnetlink client whose errors carry the kernel's extended acknowledgement.
//!
//! Where to start: [`Netlink`] is one socket in the network namespace of the thread that opened it; [`NetlinkError`] is what the
//! kernel answers. Requests are typed through `netlink-packet-route`, or raw bytes where a case needs a request that the typed
//! form can't express.
//!
//! *Architecture invariant:* no dependency on another crate of the lab.

mod client;
mod error;
mod notices;
mod wire;

pub use client::{BatchRequest, Netlink};
pub use error::NetlinkError;
pub use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NetlinkSerializable, Nla, Parseable,
};
pub use netlink_packet_route as route;
pub use notices::Notices;
pub use wire::{GENERIC_HEADER, attribute, attributes, generic, nested};
