//! The agent in the guest: as PID 1 it boots the user space of the lab, probes the kernel, runs the cells that the host
//! asks for and streams what happens. On any other machine it only lists what it can run.

mod boot;
mod entropy;
mod kmsg;
mod modules;
mod port;
mod session;
mod shell;

use lab_protocol::{Listing, PROTOCOL_VERSION};
use serde::Serialize;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        boot::as_init();
    }
    match std::env::args().nth(1).as_deref() {
        Some("--list") => list(),
        Some("--topologies") => print(&lab_suite::topologies()),
        Some(lab_suite::HOLD) => loop {
            std::thread::park();
        },
        Some("--version") => {
            println!("guest-agent {} (protocol {PROTOCOL_VERSION})", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("guest-agent runs as PID 1 of a lab guest; elsewhere it takes --list, --topologies or --version");
            ExitCode::from(2)
        }
    }
}

fn list() -> ExitCode {
    let listing = Listing {
        protocol: PROTOCOL_VERSION,
        agent: env!("CARGO_PKG_VERSION").into(),
        cells: lab_suite::cells().into_iter().map(|cell| cell.info).collect(),
        mutants: lab_suite::mutants::listing(),
        canaries: lab_suite::canaries().into_iter().map(|cell| cell.info).collect(),
        coverage: lab_suite::coverage(),
    };
    print(&listing)
}

fn print(listing: &impl Serialize) -> ExitCode {
    match serde_json::to_writer(std::io::stdout().lock(), listing) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest-agent: cannot write the listing: {error}");
            ExitCode::FAILURE
        }
    }
}
