//! `lab watch-attach`.

use super::args::OutputArgs;
use crate::{error::Error, project};
use clap::Args;
use lab_protocol::witness::WATCH;
use lab_record::exit::Exit;
use nix::unistd::geteuid;
use std::{os::unix::process::CommandExt, path::PathBuf, process::Command};

/// The eBPF object of the witness.
const OBJECT: &str = "witness.o";

#[derive(Debug, Args)]
pub(super) struct WatchAttachArgs {
    /// Have the kernel count how often each program runs (BPF_ENABLE_STATS): the summary has it. Every run of every program on
    /// this machine takes a little longer meanwhile.
    #[arg(long)]
    runs: bool,
    /// Output format; json: one object a line.
    #[command(flatten)]
    output: OutputArgs,
}

/// Becomes the agent, which watches: this program knows nothing of eBPF.
pub(super) fn watch(named: Option<PathBuf>, args: &WatchAttachArgs) -> Result<Exit, Error> {
    if !geteuid().is_root() {
        return Err(Error::Host("watching what is attached needs root: sudo lab watch-attach".to_owned()));
    }
    let built = project::built(named)?;
    let object = built.objects.get(OBJECT).ok_or_else(|| Error::Host(format!("the lab has no {OBJECT}")))?;
    let mut agent = Command::new(built.agent.path());
    agent.arg(WATCH).arg("--object").arg(object.path());
    agent.args(["--format", if args.output.is_json() { "json" } else { "text" }]);
    if args.runs {
        agent.arg("--runs");
    }
    Err(Error::file("execute", built.agent.path())(agent.exec()))
}
