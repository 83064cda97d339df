//! Changing programs and mechanisms under traffic.

mod mechanisms;
mod services;

use lab_harness::case::Area;

pub static AREA: Area = Area::new("upgrade", &[services::CASES, mechanisms::CASES]);
