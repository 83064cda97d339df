//! The agent binary with the suites of this repository.

use std::process::ExitCode;

fn main() -> ExitCode {
    guest_agent::main(&[&lab_suite::SUITE])
}
