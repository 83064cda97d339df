//! The cases, one module per area.

mod attach_api;
mod coexistence;
mod datapath;
mod detection;
mod ifindex;
mod links;
mod mprog;
mod prog_array;
mod redirect;
mod services;
mod verdicts;

use crate::case::Case;

/// Every area's cases, in the order in which they run.
pub static ALL: &[&[Case]] = &[
    attach_api::CASES,
    detection::CASES,
    ifindex::CASES,
    verdicts::CASES,
    prog_array::CASES,
    mprog::CASES,
    links::CASES,
    redirect::CASES,
    coexistence::CASES,
    datapath::CASES,
    services::CASES,
];
