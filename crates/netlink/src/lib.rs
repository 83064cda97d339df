//! A small blocking rtnetlink client whose errors carry the kernel's own words.
//!
//! [`Netlink`] is one socket in the network namespace of the thread that opened it. Requests are typed through
//! `netlink-packet-route`, or raw bytes where the typed form can't say what a case wants to say.

mod client;
mod error;
mod wire;

pub use client::{BatchRequest, Netlink};
pub use error::NetlinkError;
pub use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NetlinkSerializable, Nla, Parseable,
};
pub use netlink_packet_route as route;
pub use wire::{GENERIC_HEADER, attribute, attributes, generic, nested};
