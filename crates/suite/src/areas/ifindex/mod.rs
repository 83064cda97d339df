//! Interface indexes and other packet metadata.

pub mod crossing;
mod ends;
mod helpers;
mod index;
mod metadata;

use lab_harness::case::Area;

pub static AREA: Area =
    Area::new("ifindex", &[index::CASES, metadata::CASES, ends::CASES, crossing::CASES, helpers::CASES]);
