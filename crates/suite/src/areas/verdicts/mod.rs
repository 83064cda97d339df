//! Return codes and netkit's default policies.

mod codes;
mod filters;
mod handed_on;
mod reject;
mod senders;
mod witnesses;

use lab_harness::case::Area;

pub static AREA: Area = Area::new(
    "verdicts",
    &[codes::CASES, filters::CASES, reject::CASES, witnesses::CASES, senders::CASES, handed_on::CASES],
);
