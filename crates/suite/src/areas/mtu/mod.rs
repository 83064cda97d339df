//! Packet sizes: MTU, path MTU, segmentation.

mod check_mtu;
mod fragments;
mod link;

pub use check_mtu::{PODS_LARGE_WINDOWS, bulk_until};
pub use link::checksum_errors;

use lab_harness::case::Area;

pub static AREA: Area = Area::new("mtu", &[link::CASES, check_mtu::CASES, fragments::CASES]).keeping_evidence();
