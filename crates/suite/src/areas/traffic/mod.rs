//! Traffic of every protocol over every path that a node offers, with programs on the workload's link that only count.
//!
//! The oracle is the traffic itself, as sockets and captures saw it; the programs' counters must agree.

pub(super) mod errors;
mod local;
mod overlay;
mod routed;
mod routing;

pub use {
    errors::CASES as ERRORS, local::CASES as LOCAL, overlay::CASES as OVERLAY, routed::CASES as ROUTED,
    routing::CASES as ROUTING,
};
