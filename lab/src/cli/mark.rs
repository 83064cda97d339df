//! `lab mark`, inside a command of `lab exec`.

use crate::error::Error;
use clap::Args;
use lab_protocol::witness::MARKER;
use lab_record::exit::Exit;
use std::{os::unix::process::CommandExt, path::Path, process::Command};

#[derive(Debug, Args)]
pub(super) struct MarkArgs {
    /// The mark's name, which reports have.
    name: String,
}

/// Becomes the guest's own program for it, which only a command in a guest has.
pub(super) fn run(args: &MarkArgs) -> Result<Exit, Error> {
    if !Path::new(MARKER).exists() {
        return Err(Error::Usage(
            "lab mark is for commands that `lab exec` runs: it marks a place in the account of what they attach"
                .to_owned(),
        ));
    }
    Err(Error::file("execute", MARKER)(Command::new(MARKER).arg(&args.name).exec()))
}
