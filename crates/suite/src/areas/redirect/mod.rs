//! `bpf_redirect` and its relatives.

mod delivery;
mod effects;
mod fib;
mod ingress;
mod lookup;
mod refused;
mod tap;

use lab_harness::case::Area;

pub static AREA: Area = Area::new(
    "redirect",
    &[delivery::CASES, effects::CASES, fib::CASES, lookup::CASES, tap::CASES, ingress::CASES, refused::CASES],
);
