//! The agent in the guest: as PID 1 it boots the user space of the lab, probes the kernel, runs the cells that the host asks
//! for and reports what happens. On any other machine it only lists what it can run.
//!
//! Where to start: [`main`] is all that a program needs in order to be an agent. The binary `guest-agent` is one with the
//! suites of this repository; `[agent] package` in `lab.toml` names another one. `session.rs` has the conversation with the host,
//! `shell/` the programs that `lab shell` runs.
//!
//! *Architecture invariant:* the agent knows no suite. It gets them from [`main`] and hands them to the harness.
//!
//! *Architecture invariant:* one writer per port: whatever goes to the host goes through `sender::Sender`.

mod boot;
mod entropy;
mod kmsg;
mod modules;
mod port;
mod sender;
mod session;
mod shell;

use lab_harness::{Suite, holder, listing, stranger, topologies};
use lab_protocol::PROTOCOL_VERSION;
use serde::Serialize;
use std::{fmt, process::ExitCode};

/// Runs the agent with these suites: forever as PID 1, elsewhere until it has answered its one argument.
///
/// ```no_run
/// use lab_harness::{Cases, Suite};
///
/// static SUITE: Cases = Cases::new(&[]);
///
/// fn main() -> std::process::ExitCode {
///     guest_agent::main(&[&SUITE])
/// }
/// ```
pub fn main(suites: &[&'static dyn Suite]) -> ExitCode {
    if std::process::id() == 1 {
        boot::as_init(suites);
    }
    match std::env::args().nth(1).as_deref() {
        Some("--list") => print(listing(suites, &version())),
        Some("--topologies") => print(topologies(suites)),
        Some(holder::HOLD) => loop {
            std::thread::park();
        },
        Some(stranger::STRANGER) => stranger::act(),
        Some("--version") => {
            println!("guest-agent {}, protocol {PROTOCOL_VERSION}", version());
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("guest-agent runs as PID 1 of a lab guest; elsewhere it takes --list, --topologies or --version");
            ExitCode::from(2)
        }
    }
}

/// Version and commit of this build, as the host's reports name it. `lab` hands the commit to cargo when it builds the agent.
fn version() -> String {
    format!("{} ({})", env!("CARGO_PKG_VERSION"), option_env!("NETKIT_LAB_COMMIT").unwrap_or("unknown"))
}

fn print(answer: Result<impl Serialize, impl fmt::Display>) -> ExitCode {
    let written = answer.map_err(|error| error.to_string()).and_then(|answer| {
        serde_json::to_writer(std::io::stdout().lock(), &answer).map_err(|error| format!("cannot write: {error}"))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest-agent: {error}");
            ExitCode::FAILURE
        }
    }
}
