//! Interface indexes and other packet metadata.

mod announced;
pub mod crossing;
mod ends;
mod helpers;
mod index;
mod metadata;

use lab_harness::case::Area;

pub static AREA: Area = Area::new(
    "ifindex",
    &[index::CASES, metadata::CASES, ends::CASES, announced::CASES, crossing::CASES, helpers::CASES],
);
