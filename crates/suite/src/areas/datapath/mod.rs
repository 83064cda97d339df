//! Traffic through a datapath of several programs: policy, services, forwarding.

mod connections;
pub mod node;
mod policy;
mod routes;
mod services;

use lab_harness::case::Area;

pub static AREA: Area =
    Area::new("datapath", &[policy::CASES, services::CASES, connections::CASES, routes::CASES]).keeping_evidence();
