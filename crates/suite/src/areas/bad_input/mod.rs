//! Requests that must be refused.

mod calls;
mod devices;
mod permissions;

use lab_harness::case::Area;

pub static AREA: Area = Area::new("bad-input", &[devices::CASES, calls::CASES, permissions::CASES]);
