//! Probes, auto mode, and missing mechanisms.

mod auto;
mod probes;
mod queues;

use lab_harness::case::Area;

pub static AREA: Area = Area::new("detection", &[auto::CASES, probes::CASES, queues::CASES]);
