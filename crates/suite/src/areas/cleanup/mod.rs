//! Deletion, and objects that it must not leave behind.

mod deletion;
mod memory;
mod shared_blocks;

use lab_harness::case::Area;

pub static AREA: Area = Area::new("cleanup", &[deletion::CASES, shared_blocks::CASES, memory::CASES]);
