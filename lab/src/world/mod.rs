//! What a foreign program in a guest sees of files: its root, directories that are shared with it, where artefacts go.
//!
//! [`World::new`] checks everything before a guest boots. [`World::spec`] is what the agent mounts, and [`World::serve`]
//! answers one guest's requests for files. `docs/roots.md` describes it for users.

mod archive;
mod choice;
mod closure;
mod error;
mod oci;
mod pasta;
mod paths;
mod services;
mod setup;
pub mod unpack;

pub use choice::{ClosureProgram, RootChoice};
pub use closure::find as find_program;
pub use error::WorldError;
pub use pasta::{Pasta, PastaOptions, PublishedPort};
pub use setup::{GuestSetup, SetupInputs};

use choice::Root;
use lab_protocol::CellProgram;
use lab_protocol::world::{
    ARTIFACTS, ARTIFACTS_AT, CORES, EXTRA, MODULES, ROOT, WorldChanges, WorldMount, WorldRoot, WorldSpec,
};
use lab_share::{Failed, FileSource, FileStamp, Look, ServeEnd, Server, Tree, TreeError, WriteBudget};
use paths::directory;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::Shutdown,
    os::unix::{ffi::OsStrExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

/// Core dumps of one guest that are kept.
const CORES_AT_MOST: u64 = 8;
/// What a guest may write of core dumps, each of which may have so many bytes.
const fn core_budget(of_one: u64) -> WriteBudget {
    WriteBudget { bytes: of_one.saturating_mul(CORES_AT_MOST), files: CORES_AT_MOST }
}

/// Directories of the host that are the guest's own in every root.
const OWN: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];

/// What a program is to see.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The root.
    pub root: RootChoice,
    /// The program, for a root that is made of what it needs.
    pub program: ClosureProgram,
    /// Working directory. Where it lies below `/run` of the host, it is shared by itself.
    pub cwd: PathBuf,
    /// Directories of the host that the program may write, at the same paths.
    pub writable: Vec<PathBuf>,
    /// Directory of the host for artefacts.
    pub out: Option<PathBuf>,
    /// Files of modules that the guest loads, in this order.
    pub modules: Vec<PathBuf>,
    /// Ports of the host's loopback device that the program reaches.
    pub services: Vec<u16>,
    /// The guest's network, if it is to have one.
    pub pasta: Option<PastaOptions>,
    /// Limit of what the program may write elsewhere, MiB.
    pub overlay_mib: Option<u32>,
    /// Largest core dump that is kept, bytes; 0 keeps none.
    pub core_bytes: u64,
}

/// Files for the guests of a run.
#[derive(Debug)]
pub struct World {
    root: Root,
    cwd: PathBuf,
    /// Export, place, and whether it is writable.
    shared: Vec<(String, PathBuf, bool)>,
    out: Option<PathBuf>,
    modules: Vec<(String, PathBuf)>,
    spec: WorldSpec,
    /// The directory or archive that the root is, if it is another one than the host's.
    place: Option<PathBuf>,
    pasta: Option<PastaOptions>,
    setup: Option<GuestSetup>,
    core_bytes: u64,
}

/// The kernel's own files, for its guests.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KernelFiles {
    /// Directory with `modules.dep`.
    pub modules: PathBuf,
    /// `.config`.
    pub config: Option<PathBuf>,
}

impl World {
    /// Checks what was asked for.
    ///
    /// # Errors
    /// [`WorldError`]: a directory is missing, or a root is no root.
    pub fn new(options: Options, cache: &Path) -> Result<Self, WorldError> {
        let Options { root: choice, program, cwd, writable, out, modules, services, pasta, overlay_mib, core_bytes } =
            options;
        let mut shared = Vec::new();
        for (number, dir) in writable.iter().enumerate() {
            let path = directory(dir)?;
            if OWN.iter().any(|own| path == Path::new(own)) || path == Path::new("/") {
                return Err(WorldError::NotShared { path });
            }
            shared.push((format!("shared{number}"), path, true));
        }
        // The guest's own /run hides the host's: the working directory must not vanish with it.
        let hidden = |path: &Path| OWN.iter().any(|own| path.starts_with(own));
        if choice == RootChoice::Host && hidden(&cwd) && !shared.iter().any(|(_, path, _)| cwd.starts_with(path)) {
            if !cwd.starts_with("/run") {
                return Err(WorldError::GuestsOwn { path: cwd });
            }
            shared.push(("cwd".to_owned(), directory(&cwd)?, false));
        }
        let out = out.map(|out| made(&out)).transpose()?;
        let modules: Vec<(String, PathBuf)> = modules.into_iter().map(module).collect::<Result<_, _>>()?;
        let mount = |(export, at, writable): &(String, PathBuf, bool)| WorldMount {
            export: export.clone(),
            at: at.as_os_str().as_bytes().to_vec(),
            writable: *writable,
        };
        let mut mounts: Vec<WorldMount> = shared.iter().map(mount).collect();
        if out.is_some() {
            let at = ARTIFACTS_AT.as_bytes().to_vec();
            mounts.push(WorldMount { export: ARTIFACTS.to_owned(), at, writable: true });
        }
        let spec = WorldSpec {
            root: WorldRoot::Export,
            cwd: cwd.as_os_str().as_bytes().to_vec(),
            mounts,
            // A closure has what was put there: its program and its working directory may lie below /tmp.
            fresh_tmp: matches!(choice, RootChoice::Path(_)),
            modules: modules.iter().map(|(name, _)| name.clone()).collect(),
            services,
            uplink: pasta.as_ref().map(|_| pasta::uplink()),
            overlay_mib,
            changes: WorldChanges::End,
        };
        let place = match &choice {
            RootChoice::Path(path) => Some(oci::index(path).unwrap_or_else(|| path.clone())),
            RootChoice::Host | RootChoice::None => None,
        };
        let root = Root::of(choice, &program, &cwd, cache)?;
        Ok(Self { root, cwd, shared, out, modules, spec, place, pasta, setup: None, core_bytes })
    }

    /// Has a command run in each kernel's guest before the guest is saved, so that others begin behind it.
    ///
    /// # Errors
    /// A file that it depends on has vanished.
    pub fn behind(mut self, command: CellProgram) -> Result<Self, WorldError> {
        let mut spec =
            WorldSpec { changes: WorldChanges::Stay, services: Vec::new(), uplink: None, ..self.spec.clone() };
        // Each command has a directory of its own for artefacts.
        spec.mounts.retain(|it| it.export != ARTIFACTS);
        let files = self.modules.iter().map(|(_, path)| path).chain(&self.place);
        self.setup = Some(GuestSetup::new(CellProgram { world: Some(spec), ..command }, files)?);
        self.spec.changes = WorldChanges::EndAboveSetup;
        Ok(self)
    }

    /// Whether the program sees this host's files.
    pub fn is_hosts(&self) -> bool {
        matches!(self.root, Root::Host)
    }

    /// The set-up, if there is one.
    pub fn setup(&self) -> Option<&GuestSetup> {
        self.setup.as_ref()
    }

    /// Largest core dump that is kept, bytes.
    pub fn core_bytes(&self) -> u64 {
        self.core_bytes
    }

    /// What the agent mounts.
    pub fn spec(&self) -> &WorldSpec {
        &self.spec
    }

    /// Answers the requests of one guest, on a thread of its own. `name` is the directory below that for artefacts, and
    /// `cores` that for core dumps.
    ///
    /// # Errors
    /// A directory has vanished since it was checked.
    pub fn serve(
        &self,
        kernel: &KernelFiles,
        name: &str,
        cores: Option<&Path>,
        stream: UnixStream,
    ) -> Result<Serving, WorldError> {
        let artifacts = self.out.as_ref().map(|out| out.join(name));
        if let Some(dir) = &artifacts {
            fs::create_dir_all(dir).map_err(WorldError::io(dir))?;
        }
        let tree = self.tree(kernel, artifacts.as_deref(), cores)?;
        let line = stream.try_clone().map_err(WorldError::io(Path::new("socket")))?;
        let serve = move || Server::new(tree).serve(stream);
        let thread = thread::Builder::new().name("files".to_owned()).spawn(serve);
        let thread = thread.map_err(WorldError::io(Path::new("thread")))?;
        Ok(Serving { thread, artifacts, line })
    }

    /// Connects one guest to the services, on threads that end with its machine. Nothing happens if there are none.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn connect(&self, stream: UnixStream) -> Result<(), WorldError> {
        services::serve(self.spec.services.clone(), stream).map_err(WorldError::io(Path::new("thread")))
    }

    /// How guests are connected to a network, if they are.
    pub fn network(&self) -> Option<&PastaOptions> {
        self.pasta.as_ref()
    }

    /// Whether guests are connected to services of the host.
    pub fn has_services(&self) -> bool {
        !self.spec.services.is_empty()
    }

    fn tree(&self, kernel: &KernelFiles, artifacts: Option<&Path>, cores: Option<&Path>) -> Result<Tree, WorldError> {
        let mut tree = Tree::new();
        self.root.plant(&mut tree, Path::new(ROOT), &self.cwd)?;
        tree.host(Tree::ROOT, Path::new(MODULES), &kernel.modules, None)?;
        for (name, path, writable) in &self.shared {
            tree.host(Tree::ROOT, Path::new(name), path, writable.then_some(WriteBudget::USUAL))?;
        }
        if let Some(dir) = artifacts {
            tree.host(Tree::ROOT, Path::new(ARTIFACTS), dir, Some(WriteBudget::USUAL))?;
        }
        if let Some(dir) = cores {
            tree.host(Tree::ROOT, Path::new(CORES), dir, Some(core_budget(self.core_bytes)))?;
        }
        let extra = Path::new(EXTRA);
        if let Some(config) = &kernel.config {
            add_file(&mut tree, &extra.join("config"), config)?;
        }
        for (name, path) in &self.modules {
            add_file(&mut tree, &extra.join("modules").join(name), path)?;
        }
        Ok(tree)
    }
}

/// Puts a file of the host into a tree, as it is now.
fn add_file(tree: &mut Tree, place: &Path, path: &Path) -> Result<(), WorldError> {
    let file = File::open(path).map_err(WorldError::io(path))?;
    let length = file.metadata().map_err(WorldError::io(path))?.len();
    let source = FileSource::Piece { file: Arc::new(file), offset: 0, length };
    tree.file(Tree::ROOT, place, Look::root(0o644), source)?;
    Ok(())
}

/// The directory for artefacts, which is made.
fn made(dir: &Path) -> Result<PathBuf, WorldError> {
    fs::create_dir_all(dir).map_err(WorldError::io(dir))?;
    directory(dir)
}

/// A module's file and its name.
fn module(path: PathBuf) -> Result<(String, PathBuf), WorldError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    if !name.contains(".ko") {
        return Err(WorldError::NotAModule { path });
    }
    let mut start = [0; 4];
    let read = File::open(&path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
    read.map_err(WorldError::io(&path))?;
    if name.ends_with(".ko") && start != *b"\x7fELF" {
        return Err(WorldError::NotAModule { path });
    }
    Ok((name, path))
}

/// One guest's files, while it runs.
#[derive(Debug)]
pub struct Serving {
    thread: JoinHandle<ServeEnd>,
    artifacts: Option<PathBuf>,
    line: UnixStream,
}

/// What came of serving files to one guest.
#[derive(Debug)]
pub struct Served {
    /// Where its artefacts are.
    pub artifacts: Option<PathBuf>,
    /// Files that are not whole, with the reason.
    pub failed: Vec<Failed>,
    /// Files of the host that were read.
    pub read: BTreeMap<PathBuf, FileStamp>,
    /// Requests that were answered.
    pub requests: u64,
    /// Why files could not be served to the end.
    pub problem: Option<String>,
}

impl Serving {
    /// Ends serving while the guest's machine runs on.
    pub fn hang_up(&self) {
        // Nothing to end where the machine has ended.
        _ = self.line.shutdown(Shutdown::Both);
    }

    /// Waits for the end, which comes with that of the guest's machine.
    pub fn finish(self) -> Served {
        match self.thread.join() {
            Ok(ServeEnd { failed, read, requests, problem }) => Served {
                artifacts: self.artifacts,
                failed,
                read,
                requests,
                problem: problem.map(|error| format!("the guest's files: {error}")),
            },
            Err(_) => Served {
                artifacts: self.artifacts,
                failed: Vec::new(),
                read: BTreeMap::new(),
                requests: 0,
                problem: Some("the thread that serves files panicked".to_owned()),
            },
        }
    }
}

impl From<TreeError> for WorldError {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_core_dump_of_a_guest_may_have_the_whole_size() {
        for size in [1, 64 << 20, 16 << 30] {
            let WriteBudget { bytes, files } = core_budget(size);
            assert!(files > 1 && bytes / files == size, "{size}: {bytes} for {files}");
        }
        assert_eq!(core_budget(0).bytes, 0);
    }
}
