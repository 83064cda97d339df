//! Order, anchors and revisions of multi-program hooks.

pub mod chain;
mod order;
mod revision;

use lab_harness::case::Area;

pub static AREA: Area = Area::new("mprog", &[order::CASES, revision::CASES]);
