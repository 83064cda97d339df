//! `lab init`, `lab build`, `lab completions`, `lab man`.

use super::help;
use crate::{
    error::Error,
    project::{Project, absolute, home::Home, init::init as begin},
};
use clap::Args;
use lab_base::say::{say, show};
use lab_record::exit::Exit;
use std::{
    fs,
    path::{Path, PathBuf},
};

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Replace files that exist.
    #[arg(long)]
    force: bool,
}

pub(super) fn init(named: Option<PathBuf>, args: &InitArgs) -> Result<Exit, Error> {
    let directory = absolute(&named.unwrap_or_else(|| PathBuf::from(".")))?;
    let written = begin(&directory, args.force)?;
    show(format_args!("wrote {}\n", written.join(", ")))?;
    say(
        "next: `lab run` runs every case on the kernels of kernels.toml; the first run unpacks what guests need into the cache",
    );
    Ok(Exit::Passed)
}

/// Builds what guests run, with `all` also what only `lab check` runs, and prints where it is.
pub(super) fn build(named: Option<PathBuf>, all: bool) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    if matches!(project.home, Home::Installed { .. }) {
        say("this lab is installed: it brings what guests run, and builds only an agent that lab.toml names");
    }
    let built = project.builder().build()?;
    show(format_args!("{}\n", built.agent.path().display()))?;
    for object in built.objects.values() {
        show(format_args!("{}\n", object.path().display()))?;
    }
    if all {
        show(format_args!("{}\n", project.builder().loader()?.path().display()))?;
    }
    Ok(Exit::Passed)
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<Exit, Error> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut help::command(), "lab", &mut text);
    show(String::from_utf8_lossy(&text))?;
    Ok(Exit::Passed)
}

/// Writes a page for `lab`, and one for each of its commands.
pub(super) fn man(directory: &Path) -> Result<Exit, Error> {
    let written = fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(help::command(), directory));
    written.map_err(Error::file("write", directory))?;
    Ok(Exit::Passed)
}
