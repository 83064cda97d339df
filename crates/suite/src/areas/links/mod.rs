//! Links, pins, updates, and what deletion does to them.

mod lifecycle;
pub mod pins;

use lab_harness::case::Area;

pub static AREA: Area = Area::new("links", &[pins::CASES, lifecycle::CASES]);
