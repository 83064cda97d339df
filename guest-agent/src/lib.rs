//! The agent in the guest: as PID 1 it starts the lab's user space, probes the kernel, runs the cells that the host
//! requests and reports their results. On any other machine it only lists what it can run.
//! Where to start: a program that calls [`main`] is an agent. The binary `guest-agent` has the suites of this
//! repository; `[agent] package` in `lab.toml` selects another agent. `session.rs` handles the messages from the host,
//! `shell/` runs the programs for `lab shell`.
//!
//! *Architecture invariant:* the agent depends on no suite. [`main`] receives the suites and passes them to the
//! harness.
//!
//! *Architecture invariant:* one writer per port: all messages to the host go through `sender::Sender`.

mod boot;
mod entropy;
mod error;
mod kmsg;
mod memleak;
mod modules;
mod names;
mod port;
mod processors;
mod program;
mod sender;
mod session;
mod shell;
mod successor;
mod watcher;
mod world;

use lab_harness::{Suite, holder, listing, stranger, topologies};
use lab_protocol::{PROTOCOL_VERSION, witness::WATCH};
use serde::Serialize;
use std::{fmt, process::ExitCode};

/// Runs the agent with these suites. As PID 1 it never returns; otherwise it answers its one argument and returns.
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
    let mut arguments = std::env::args();
    match arguments.next() {
        Some(name) if world::modprobe::is_meant(&name) => return world::modprobe::main(arguments),
        Some(name) if program::mark::is_meant(&name) => return program::mark::main(arguments),
        Some(name) if watcher::is_meant(&name) => return watcher::main(arguments),
        _ => {}
    }
    match std::env::args().nth(1).as_deref() {
        Some("--list") => print(listing(suites, &version())),
        Some("--topologies") => print(topologies(suites)),
        Some(holder::HOLD) => loop {
            std::thread::park();
        },
        Some(stranger::STRANGER) => stranger::act(),
        Some(program::core::CORE) => program::core::main(arguments.skip(1)),
        Some(WATCH) => watcher::main(arguments.skip(1)),
        Some("--version") => {
            println!("guest-agent {}, protocol {PROTOCOL_VERSION}", version());
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!(
                "guest-agent runs as PID 1 of a lab guest; elsewhere give it --list, --topologies, --watch-attach or --version"
            );
            ExitCode::from(2)
        }
    }
}

/// Version and commit of this build, as the host's reports name it. `lab` hands the commit to cargo when it builds the
/// agent.
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
