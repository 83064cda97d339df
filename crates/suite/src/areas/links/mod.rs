//! Links, pins and updates, and the effect of deletion on them.

mod info;
mod lifecycle;
pub mod pins;

use lab_harness::case::Area;

pub static AREA: Area = Area::new("links", &[pins::CASES, lifecycle::CASES, info::CASES]);
