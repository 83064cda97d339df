//! Requests that must be refused.

mod calls;
mod devices;

use lab_harness::case::Area;

pub static AREA: Area = Area::new("bad-input", &[devices::CASES, calls::CASES]);
