//! Few network topologies as pure data, and the netlink builder that makes them real.
//!
//! [`model`] says what there is, [`library`] names the topologies that the suite uses, [`Net::build`] makes one real in
//! fresh network namespaces and returns once every link is up and every address is usable. [`link`] holds the single
//! operations that cases do to a device.

mod address;
mod build;
mod error;
mod ifreq;
pub mod library;
pub mod link;
mod message;
pub mod model;
mod nat;
mod netns;
pub mod offload;
mod parts;
pub mod queue;
pub mod quiet;
mod readback;
mod render;
mod svg;
mod tap;
mod template;
mod terms;

pub use address::addresses;
pub use build::Net;
pub use error::TopologyError;
pub use link::{LinkStats, PairRequest, detect_kind};
pub use model::{End, Family, Hop, LinkKind, NetkitOptions, Policy, Scrub, Topology};
pub use nat::translate;
pub use netns::Netns;
pub use readback::{LinkInfo, NetkitInfo};
pub use tap::Tap;
pub use template::Template;
