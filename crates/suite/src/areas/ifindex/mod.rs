//! Interface indexes and other packet metadata.

mod ends;
mod index;
mod metadata;

use lab_harness::case::Area;

pub static AREA: Area = Area::new("ifindex", &[index::CASES, metadata::CASES, ends::CASES]);
