//! Attaching and detaching through each API, and its errors.

mod mechanisms;
mod scope;

use lab_harness::case::Area;

pub static AREA: Area = Area::new("attach-api", &[mechanisms::CASES, scope::CASES]);
