//! Network topologies as pure data, and the builder that creates them with netlink.
//!
//! Where to start: a [`Template`] declares a topology by name and [`library`] has those of the lab; [`model`] is what
//! they are made of. [`Net::build`] builds one in new network namespaces and returns once every link is up and every
//! address is usable. [`link`] has operations on single devices for cases.
//!
//! *Architecture invariant:* a topology is data: listing and drawing one need no kernel and no privilege.

#![warn(missing_docs)]

mod address;
pub mod ahead;
mod announced;
mod build;
mod error;
pub mod ethtool;
mod ifreq;
pub mod library;
pub mod link;
mod lock;
mod message;
pub mod model;
mod nat;
pub mod neighbour;
pub mod netdevsim;
mod netns;
mod parts;
pub mod queue;
pub mod quiet;
mod readback;
mod render;
mod svg;
mod tap;
mod template;
mod terms;
pub mod uplink;

pub use address::addresses;
pub use announced::{Announced, DeviceNews};
pub use build::Net;
pub use error::TopologyError;
pub use link::{LinkStats, PairRequest, detect_kind};
pub use lock::unpoisoned;
pub use model::{End, Family, Hop, LinkKind, NetkitOptions, Policy, Scrub, Selector, Topology};
pub use nat::translate;
pub use netns::Netns;
pub use readback::{DeviceInfo, NetkitInfo};
pub use tap::Tap;
pub use template::Template;
