//! The cases, one module per area.

mod attach_api;
mod attach_scope;
mod bad_calls;
mod bad_devices;
mod chain;
mod cleanup;
mod coexistence;
mod datapath;
mod detection;
mod fib;
mod filters;
mod ifindex;
mod link_lifecycle;
mod links;
mod metadata;
mod mprog;
mod mprog_state;
mod mtu;
mod probes;
mod prog_array;
mod queues;
mod redirect;
mod redirect_more;
mod reject;
mod services;
mod shared_blocks;
mod sizes;
mod traffic;
mod upgrade;
mod verdicts;

use crate::case::Case;

/// Every area's cases, in the order in which they run.
pub static ALL: &[&[Case]] = &[
    attach_api::CASES,
    attach_scope::CASES,
    detection::CASES,
    probes::CASES,
    queues::CASES,
    ifindex::CASES,
    metadata::CASES,
    verdicts::CASES,
    filters::CASES,
    reject::CASES,
    prog_array::CASES,
    mprog::CASES,
    mprog_state::CASES,
    links::CASES,
    link_lifecycle::CASES,
    redirect::CASES,
    redirect_more::CASES,
    fib::CASES,
    coexistence::CASES,
    datapath::CASES,
    services::CASES,
    upgrade::CASES,
    cleanup::CASES,
    shared_blocks::CASES,
    bad_devices::CASES,
    bad_calls::CASES,
    traffic::LOCAL,
    traffic::ROUTED,
    traffic::OVERLAY,
    traffic::ROUTING,
    traffic::ERRORS,
    mtu::CASES,
    sizes::CASES,
];
