//! Plain traffic over the workload's link.

pub mod errors;
mod local;
mod neighbours;
mod next_hops;
mod overlay;
mod routed;
mod routing;

use lab_harness::case::Area;

pub static AREA: Area = Area::new(
    "traffic",
    &[local::CASES, neighbours::CASES, routed::CASES, overlay::CASES, routing::CASES, next_hops::CASES, errors::CASES],
)
.keeping_evidence();
