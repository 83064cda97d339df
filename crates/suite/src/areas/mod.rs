//! The cases: one folder per area, each case's entry directly above its function.

mod attach_api;
mod bad_input;
mod cleanup;
mod coexistence;
mod datapath;
mod detection;
mod ifindex;
mod links;
mod maps;
mod mprog;
mod mtu;
mod prog_array;
mod redirect;
mod self_check;
mod traffic;
mod upgrade;
mod verdicts;

use lab_harness::case::Area;

/// Every area, in the order in which they run.
pub static ALL: &[&Area] = &[
    &self_check::AREA,
    &attach_api::AREA,
    &detection::AREA,
    &ifindex::AREA,
    &verdicts::AREA,
    &prog_array::AREA,
    &maps::AREA,
    &mprog::AREA,
    &links::AREA,
    &redirect::AREA,
    &coexistence::AREA,
    &datapath::AREA,
    &upgrade::AREA,
    &cleanup::AREA,
    &bad_input::AREA,
    &traffic::AREA,
    &mtu::AREA,
];
