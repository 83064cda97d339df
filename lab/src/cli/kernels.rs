//! `lab kernels list|fetch|build|source|update`.

use crate::{cache, cli::args::KernelArgs, error::Error, project::Project};
use clap::Subcommand;
use comfy_table::{Table, presets};
use lab_base::say::{say, show};
use lab_kernel_store::{Kernel, KernelsError};
use lab_record::exit::Exit;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum KernelsCommand {
    /// Show the matrix, what it is locked to and what is cached.
    List,
    /// Download and unpack kernels exactly as they are locked.
    Fetch(KernelArgs),
    /// Compile the kernels that come as sources; a kernel that is built already is not built again.
    Build {
        /// Kernels by id, `*` and `?` allowed. Default: all that are compiled here.
        #[arg(value_name = "ID")]
        kernel: Vec<String>,
    },
    /// Unpack Debian's packaged sources of a kernel that is compiled here, as they are locked.
    Source {
        /// The kernel's id.
        #[arg(value_name = "ID")]
        kernel: String,
        /// A directory that does not exist yet.
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
    /// Resolve kernels anew and rewrite kernels.lock.
    Update(KernelArgs),
}

pub(super) fn kernels(named: Option<PathBuf>, command: &KernelsCommand) -> Result<Exit, Error> {
    match command {
        KernelsCommand::List => list(named),
        KernelsCommand::Fetch(args) => fetch(named, args),
        KernelsCommand::Build { kernel } => build(named, kernel),
        KernelsCommand::Source { kernel, to } => source(named, kernel, to),
        KernelsCommand::Update(args) => update(named, args),
    }
}

fn list(named: Option<PathBuf>) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["kernel", "class", "default", "source", "locked to", "cached"]);
    for row in project.store().rows(&project.lock) {
        let yes = |it: bool| if it { "yes" } else { "no" }.to_owned();
        table.add_row([row.id, row.class.name().to_owned(), yes(row.default), row.source, row.locked, yes(row.cached)]);
    }
    show(format_args!("{table}\n"))?;
    Ok(Exit::Passed)
}

fn fetch(named: Option<PathBuf>, args: &KernelArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    fetch_all(&project, &project.kernels(&args.filter())?)
}

fn build(named: Option<PathBuf>, ids: &[String]) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let kernels: Vec<&Kernel> = match ids {
        [] => project.config.kernels.iter().filter(|kernel| kernel.is_built()).collect(),
        ids => lab_kernel_store::select(&project.config, ids, &[])?,
    };
    if let Some(fetched) = kernels.iter().find(|kernel| !kernel.is_built()) {
        return Err(KernelsError::NotBuilt { id: fetched.id.clone() }.into());
    }
    fetch_all(&project, &kernels)
}

fn source(named: Option<PathBuf>, id: &str, to: &Path) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let kernel = lab_kernel_store::select(&project.config, &[id.to_owned()], &[])?[0];
    project.store().source(kernel, &project.lock, to, &say)?;
    show(format_args!("{}: sources at {}\n", kernel.id, to.display()))?;
    Ok(Exit::Passed)
}

fn fetch_all(project: &Project, kernels: &[&Kernel]) -> Result<Exit, Error> {
    for kernel in kernels {
        let unpacked = project.store().fetch(kernel, &project.lock, &say)?;
        show(format_args!("{}: {} at {}\n", unpacked.id, unpacked.release, unpacked.vmlinuz.display()))?;
    }
    if let Some(line) = cache::sweep(&project.cache, &project.root) {
        say(&line);
    }
    if kernels.is_empty() { Err(Error::NothingSelected) } else { Ok(Exit::Passed) }
}

fn update(named: Option<PathBuf>, args: &KernelArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    // Without a filter the whole lock is renewed, not only the default matrix: an entry nobody renews rots.
    let everything = args.kernel.is_empty() && args.class.is_empty();
    let kernels = if everything { project.config.kernels.iter().collect() } else { project.kernels(&args.filter())? };
    let mut lock = project.lock.clone();
    let update = project.store().update(&kernels, &mut lock, &say)?;
    if !update.changes.is_empty() {
        lock.save(&project.lock_path())?;
    }
    show(&update)?;
    // Who asked for one kernel wants to know; a ladder loses its oldest steps all the time.
    let lost = !everything && !update.gone.is_empty();
    Ok(if lost { Exit::Infra } else { Exit::Passed })
}
