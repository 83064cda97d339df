//! `lab kernels list|fetch|build|source|push|ladder|update`.

use crate::{
    cache,
    cli::{
        args::{KernelArgs, OutputArgs, show_json},
        plants::{self, PlantArgs},
    },
    error::Error,
    project::{Project, filter::KernelFilter},
};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use lab_base::say::{say, show};
use lab_kernel_store::{Kernel, KernelRow, KernelStore, KernelsError};
use lab_record::exit::Exit;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum KernelsCommand {
    /// Show the kernels, their locked versions and whether they are cached. The JSON also has the sources and the names
    /// of packages.
    List(KernelListArgs),
    /// Download and unpack kernels in their locked versions.
    Fetch(KernelArgs),
    /// Compile the kernels that are configured as sources; a kernel that is already built is not built again.
    Build {
        /// Kernels by id, `*` and `?` allowed. Default: all that are compiled here.
        #[arg(value_name = "ID")]
        kernel: Vec<String>,
    },
    /// Unpack the locked Debian source package of a kernel that is compiled here.
    Source {
        /// The kernel's id.
        #[arg(value_name = "ID")]
        kernel: String,
        /// A directory that does not exist yet.
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
    /// Write a kernel as an image of an OCI layout, from which `source.oci` and registries take it. The kernel is fetched
    /// or built first if it is not in the cache.
    Push {
        /// The kernel's id.
        #[arg(value_name = "ID")]
        kernel: String,
        /// The layout: a new directory, or one that has images.
        #[arg(value_name = "DIR")]
        layout: PathBuf,
        /// The image's tag. Default: the kernel's id, with `-` for `+`.
        #[arg(long)]
        tag: Option<String>,
    },
    /// Print tables of kernels.toml for the kernels that an archive offers now and that kernels.lock does not have. Changes no
    /// file.
    Ladder(LadderArgs),
    /// Boot a kernel that was built with many faults once for each fault, and show which case notices it.
    Plant(PlantArgs),
    /// Look for new versions of kernels and rewrite kernels.lock. Without --kernel and --class that is every kernel of
    /// kernels.toml. Entries of kernels that are no longer in kernels.toml are dropped in either case.
    Update(UpdateArgs),
}

/// Formats of `lab kernels list`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum KernelListFormat {
    #[default]
    Text,
    Json,
    Markdown,
}

#[derive(Debug, Args)]
pub(super) struct KernelListArgs {
    /// Output format.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: KernelListFormat,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format", hide = true)]
    json: bool,
}

/// An archive whose kernels are known by the names of their packages.
/// What offers kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Archive {
    Debian,
    /// `ubuntu`, or an address.
    Apt(String),
    /// Tags of a kernel tree.
    Stable,
}

/// A word that names no archive.
#[derive(Debug, thiserror::Error)]
#[error("expected debian, ubuntu, stable, or the address of an apt archive")]
struct NoArchive;

impl std::str::FromStr for Archive {
    type Err = NoArchive;

    fn from_str(text: &str) -> Result<Self, NoArchive> {
        match text {
            "debian" => Ok(Self::Debian),
            "stable" => Ok(Self::Stable),
            "ubuntu" => Ok(Self::Apt(text.to_owned())),
            _ if text.contains(":/") => Ok(Self::Apt(text.to_owned())),
            _ => Err(NoArchive),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct LadderArgs {
    /// debian, ubuntu, the address of another apt archive, or stable: the tags of a kernel tree.
    #[arg(value_name = "ARCHIVE")]
    archive: Archive,
    /// The oldest version.
    #[arg(long, value_name = "VERSION")]
    since: lab_protocol::KernelVersion,
    /// Suite; repeatable, or with commas. Default: the suites of kernels.toml.
    #[arg(long, value_name = "SUITE", value_delimiter = ',')]
    suite: Vec<String>,
    /// Names of packages, `*` and `?` allowed. Default: linux-image-*-cloud-amd64 of Debian, else linux-image-unsigned-*-generic.
    #[arg(long, value_name = "GLOB")]
    package: Option<String>,
    /// The keys by which an apt archive is signed. Default: Ubuntu's own, of the package ubuntu-keyring.
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// With stable: the kernel tree. Default: the current directory.
    #[arg(long, value_name = "DIR")]
    tree: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    /// Only these kernels, by id, `*` and `?` allowed; repeatable, or with commas. All other entries are unchanged.
    #[arg(short, long, value_name = "GLOB", value_delimiter = ',')]
    kernel: Vec<String>,
    /// Only the default kernels of a class (below-6.7, 6.7+, 25.10, or one of kernels.toml); repeatable, or with commas.
    #[arg(long, value_name = "CLASS", value_delimiter = ',')]
    class: Vec<String>,
    /// With --class, every kernel of the class and not only the default ones.
    #[arg(long, conflicts_with = "kernel")]
    all: bool,
    /// With --class, also the kernels with `may-fail = true`.
    #[arg(long)]
    newest: bool,
}

pub(super) fn kernels(named: Option<PathBuf>, command: &KernelsCommand) -> Result<Exit, Error> {
    match command {
        KernelsCommand::List(args) => list(named, args),
        KernelsCommand::Fetch(args) => fetch(named, args),
        KernelsCommand::Build { kernel } => build(named, kernel),
        KernelsCommand::Source { kernel, to } => source(named, kernel, to),
        KernelsCommand::Push { kernel, layout, tag } => push(named, kernel, layout, tag.as_deref()),
        KernelsCommand::Ladder(args) => ladder(named, args),
        KernelsCommand::Plant(args) => plants::plant(named, args),
        KernelsCommand::Update(args) => update(named, args),
    }
}

fn list(named: Option<PathBuf>, args: &KernelListArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let rows = project.store().rows(&project.lock);
    match args.format {
        _ if args.json => show_json("kernels", &rows)?,
        KernelListFormat::Json => show_json("kernels", &rows)?,
        KernelListFormat::Text => show(format_args!("{}\n", table(&rows)))?,
        KernelListFormat::Markdown => show(format_args!("{}\n", page(&rows)))?,
    }
    Ok(Exit::Passed)
}

fn ladder(named: Option<PathBuf>, args: &LadderArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let LadderArgs { archive, since, suite, package, keyring, tree, output } = args;
    let (store, lock) = (project.store(), &project.lock);
    let package = |default| package.as_deref().unwrap_or(default);
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let found = match archive {
        Archive::Debian => store.ladder(suite, package("linux-image-*-cloud-amd64"), *since, lock, &say)?,
        Archive::Apt(archive) => {
            let keyring = keyring.as_ref().map(absolute);
            let images = (package("linux-image-unsigned-*-generic"), *since);
            store.ladder_of_archive((archive, keyring.as_deref()), suite, images, lock, &say)?
        }
        Archive::Stable => {
            let tree = absolute(tree.as_ref().unwrap_or(&PathBuf::from(".")));
            KernelStore::ladder_of_tags(&tree, *since, lock)?
        }
    };
    output.show("ladder", &found, || found.to_string())?;
    Ok(Exit::Passed)
}

/// A table of a page, with what is locked as a whole.
fn page(rows: &[KernelRow]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["kernel", "version", "class", "default", "source", "locked to"]);
    let cell = |text: &str| text.replace('|', "\\|");
    for row in rows {
        let version = row.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
        let default = if row.default { "yes" } else { "no" };
        let (source, locked) = (cell(&row.source), cell(&row.locked));
        table.add_row([&row.id, &version, row.class.name(), default, &source, &locked]);
    }
    table.trim_fmt()
}

/// Only version and suite of the locked package, so that a line fits into 80 columns.
fn table(rows: &[KernelRow]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["kernel", "class", "default", "cached", "locked to"]);
    for row in rows {
        let yes = |it: bool| if it { "yes" } else { "no" }.to_owned();
        let locked = row.locked.split_once(' ').map_or(&*row.locked, |(_, version)| version);
        let locked = if row.version.is_some() { locked } else { &row.locked };
        table.add_row([&row.id, row.class.name(), &yes(row.default), &yes(row.cached), locked]);
    }
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 1));
    });
    table.trim_fmt()
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
        return Err(KernelsError::NotBuilt { id: fetched.id.to_string() }.into());
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

fn push(named: Option<PathBuf>, id: &str, layout: &Path, tag: Option<&str>) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let tag = tag.map_or_else(|| id.replace('+', "-"), str::to_owned);
    // Tags of registries have no other characters (OCI distribution specification, "Pulling manifests").
    let is_tag = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if tag.len() > 128 || tag.starts_with(['.', '-']) || tag.is_empty() || !tag.chars().all(is_tag) {
        return Err(Error::Usage(format!("`{tag}` is no tag of an image: use a-z A-Z 0-9 . _ -, by --tag TAG")));
    }
    let kernels = lab_kernel_store::select(&project.config, &[id.to_owned()], &[])?;
    let [kernel] = *kernels else {
        return Err(Error::Usage(format!("`{id}` matches {} kernels: an image has one", kernels.len())));
    };
    project.ready()?;
    let kernel = project.store().fetch(kernel, &project.lock, &say)?;
    let digest = lab_kernel_store::push(&kernel, layout, &tag)?;
    show(format_args!("{}: {} at {}:{tag}, {digest}\n", kernel.id, kernel.release, layout.display()))?;
    Ok(Exit::Passed)
}

fn fetch_all(project: &Project, kernels: &[&Kernel]) -> Result<Exit, Error> {
    project.ready()?;
    project.store().announce(kernels, &project.lock, &say)?;
    for kernel in kernels {
        let unpacked = project.store().fetch(kernel, &project.lock, &say)?;
        show(format_args!("{}: {} at {}\n", unpacked.id, unpacked.release, unpacked.vmlinuz.display()))?;
    }
    if let Some(line) = cache::sweep(&project.cache, &project.root) {
        say(&line);
    }
    if kernels.is_empty() { Err(Error::NothingSelected) } else { Ok(Exit::Passed) }
}

fn update(named: Option<PathBuf>, args: &UpdateArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    // Without a filter the whole lock is updated, not only the default matrix, so that no entry becomes outdated.
    let UpdateArgs { kernel, class, all, newest } = args;
    let filter = KernelFilter { kernel: kernel.clone(), all: *all, newest: *newest, class: class.clone() };
    let everything = args.kernel.is_empty() && args.class.is_empty();
    let kernels = if everything { project.config.kernels.iter().collect() } else { project.kernels(&filter)? };
    let mut lock = project.lock.clone();
    let update = project.store().update(&kernels, &mut lock, &say)?;
    if !update.changes.is_empty() {
        project.save(lock)?;
    }
    show(&update)?;
    // A missing kernel is an error only if it was selected: the archive regularly removes old kernels of the ladder.
    let lost = !everything && !update.gone.is_empty();
    Ok(if lost { Exit::Infra } else { Exit::Passed })
}
