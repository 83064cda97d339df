//! A project: its directory, its configuration, and selection of kernels and cells.

pub mod agent_listing;
pub mod agent_package;
pub mod artifacts;
mod aside;
mod bpf_toolchain;
mod build_lock;
pub mod commit;
mod cross;
pub mod cross_error;
pub mod filter;
pub mod home;
pub mod init;
pub mod loader;
pub mod select;
pub mod sources;
pub mod unlisted;
pub mod watch;

use crate::{
    error::Error,
    lists::Lists,
    project::{
        artifacts::{ArtifactError, Artifacts, Builder},
        filter::KernelFilter,
        home::Home,
        select::{facts, stated},
        unlisted::Unlisted,
    },
    setup::{self, Tools},
};
use lab_base::{
    facts::Facts,
    interrupt::Interrupt,
    say::{note, say},
    selection,
};
use lab_kernel_store::{Cache, Kernel, KernelClass, KernelMatrix, KernelStore, KernelsError, KernelsLock};
use lab_record::plan::KernelFacts;
use std::path::{Path, PathBuf};

/// The file whose directory is the project.
pub const KERNELS_TOML: &str = "kernels.toml";
/// Kernels of this machine alone, merged over those of [`KERNELS_TOML`].
pub use lab_kernel_store::LOCAL_TOML;
/// The locked kernels of each.
pub const KERNELS_LOCK: &str = "kernels.lock";
const LOCAL_LOCK: &str = "kernels.local.lock";

/// An open project: a directory with `kernels.toml`, and the content of its files.
pub struct Project {
    /// The directory, as an absolute path.
    pub root: PathBuf,
    /// As the user named it, if at all.
    pub named: Option<PathBuf>,
    /// Where the lab's own files are.
    pub home: Home,
    /// The cache for downloads, builds and snapshots.
    pub cache: Cache,
    pub config: KernelMatrix,
    pub lock: KernelsLock,
    /// `splats.toml` and `known.toml`.
    pub lists: Lists,
    vng: PathBuf,
}

impl Project {
    /// Opens the given project, or the one that contains the working directory.
    pub fn open(named: Option<PathBuf>) -> Result<Self, Error> {
        Self::open_with(named, None)
    }

    /// The same with a kernel that no file names. This needs no `kernels.toml`: then the working directory is the project.
    pub fn open_with(named: Option<PathBuf>, unlisted: Option<&Unlisted>) -> Result<Self, Error> {
        let root = match (root(named.clone()), unlisted) {
            (Err(Error::NoProject { from }), Some(_)) => absolute(&from)?,
            (root, _) => root?,
        };
        // Builds and downloads may start after this: a signal ends them without leaving partial files.
        Interrupt::install().map_err(Error::file("watch", "signals"))?;
        let cache = Cache::open()?;
        let config = match unlisted {
            None => KernelMatrix::load(&root.join(KERNELS_TOML))?,
            Some(unlisted) => unlisted.config(&root)?,
        };
        config.hints.iter().for_each(|hint| say(&format!("hint: {hint}")));
        let lock = KernelsLock::load(&root.join(KERNELS_LOCK))?.with(KernelsLock::load(&root.join(LOCAL_LOCK))?);
        let home = Home::of(&root);
        // Without a project the lab's own lists count.
        let own = if root.join(KERNELS_TOML).is_file() { &*root } else { home.defaults() };
        let lists = Lists::load(own).map_err(KernelsError::from)?;
        // Only `git` and `mainline` kernels need it, and they report an error if it is missing.
        let vng = Tools::in_cache(cache.root()).virtme_ng().unwrap_or_else(|| "vng".into());
        Ok(Self { root, named, home, cache, config, lock, lists, vng })
    }

    /// The store for this project's kernels.
    pub fn store(&self) -> KernelStore<'_> {
        KernelStore { cache: &self.cache, config: &self.config, vng: &self.vng }
    }

    /// What is known of files that have not changed.
    pub fn facts_kept(&self) -> Facts {
        Facts::below(self.cache.root())
    }

    /// Path of virtme-ng, or its name if it is not installed.
    pub fn vng(&self) -> &Path {
        &self.vng
    }

    /// Sets up what guests need, if this lab is installed and nobody has done it yet: a package has no step for it.
    pub fn ready(&self) -> Result<(), Error> {
        match self.home {
            Home::Installed { .. } => {
                Ok(setup::on_demand(&Tools::in_cache(self.cache.root()), &mut *lab_base::say::redrawn())?)
            }
            Home::Checkout(_) => Ok(()),
        }
    }

    /// Builds what guests run.
    pub fn builder(&self) -> Builder<'_> {
        Builder { project: &self.root, home: &self.home, cache: self.cache.root(), say: &note }
    }

    /// Writes `kernels.lock`, and beside it the locked kernels that `kernels.local.toml` has.
    pub fn save(&self, lock: KernelsLock) -> Result<(), KernelsError> {
        save(&self.root, lock, |id| self.config.local.contains(id))
    }

    /// A kernel's data for a plan.
    ///
    /// # Errors
    /// The kernel's version is not known yet.
    pub fn facts(&self, kernel: &Kernel) -> Result<KernelFacts, KernelsError> {
        let version = self.store().version(kernel, &self.lock)?;
        let facts = facts(
            &kernel.id,
            kernel.class.name(),
            kernel.architecture(),
            version,
            &kernel.unsupported,
            kernel.may_fail,
        );
        Ok(stated(facts, &kernel.has, kernel.believe_probes.as_deref()))
    }

    /// The kernels that a filter selects.
    pub fn kernels(&self, filter: &KernelFilter) -> Result<Vec<&Kernel>, Error> {
        let classes: Vec<KernelClass> = filter.class.iter().map(|name| self.class(name)).collect::<Result<_, _>>()?;
        let every = ["*".to_owned()];
        let patterns = if filter.all { &every[..] } else { &filter.kernel };
        let mut chosen = lab_kernel_store::select(&self.config, patterns, &classes)?;
        if filter.newest {
            let newest = self.config.kernels.iter().filter(|kernel| kernel.may_fail && !chosen.contains(kernel));
            chosen.extend(newest.collect::<Vec<_>>());
        }
        Ok(chosen)
    }

    /// The kernels that a filter selects for programs of this host: without those of another architecture, which is said.
    ///
    /// # Errors
    /// As of [`Self::kernels`]; and if all of them are of another architecture.
    pub fn kernels_for_programs(&self, filter: &KernelFilter) -> Result<Vec<&Kernel>, Error> {
        let (own, foreign): (Vec<&Kernel>, Vec<&Kernel>) =
            self.kernels(filter)?.into_iter().partition(|kernel| kernel.architecture().is_own());
        let Some(first) = foreign.first() else { return Ok(own) };
        let ids: Vec<&str> = foreign.iter().map(|kernel| &*kernel.id).collect();
        let (ids, of) = (ids.join(", "), first.architecture());
        if own.is_empty() {
            return Err(Error::Usage(format!(
                "{ids} is for {of}, and the programs of this host are for amd64: select another kernel; `lab run` runs the suite \
                 on {ids}"
            )));
        }
        note(&format!("left out: {ids} ({of}; the programs of this host are for amd64)"));
        Ok(own)
    }

    /// A class that is predefined, or that a kernel of `kernels.toml` has.
    fn class(&self, name: &str) -> Result<KernelClass, Error> {
        let own = self.config.kernels.iter().map(|kernel| kernel.class.clone());
        let mut known: Vec<KernelClass> = KernelClass::PREDEFINED.into_iter().chain(own).collect();
        known.sort();
        known.dedup();
        if let Some(class) = known.iter().find(|class| class.name() == name) {
            return Ok(class.clone());
        }
        let names: Vec<&str> = known.iter().map(KernelClass::name).collect();
        Err(selection::NoMatch::of_few("class", name, &names).into())
    }
}

/// The project's directory.
pub fn root(named: Option<PathBuf>) -> Result<PathBuf, Error> {
    match named {
        Some(named) if named.join(KERNELS_TOML).is_file() => absolute(&named),
        Some(named) => Err(Error::NoProject { from: named }),
        None => project_root(&absolute(Path::new("."))?),
    }
}

/// What was built for guests, for a command that needs no kernel. Without a project the working directory stands for one.
pub fn built(named: Option<PathBuf>) -> Result<Artifacts, Error> {
    let root = match root(named) {
        Err(Error::NoProject { from }) => absolute(&from)?,
        root => root?,
    };
    let (cache, home) = (Cache::open()?, Home::of(&root));
    let builder = Builder { project: &root, home: &home, cache: cache.root(), say: &note };
    builder.existing().map_err(|error| match error {
        ArtifactError::Absent { what, path } => {
            Error::Host(format!("{what} does not exist at {}; `lab build` builds it", path.display()))
        }
        error => error.into(),
    })
}

/// Makes a path absolute, for programs that run in another directory.
pub fn absolute(path: &Path) -> Result<PathBuf, Error> {
    path.canonicalize().map_err(Error::file("find", path))
}

/// The directory that holds `kernels.toml`: the nearest one at or above `from`.
///
/// # Errors
/// [`Error::NoProject`] if there is none.
pub fn project_root(from: &Path) -> Result<PathBuf, Error> {
    let found = from.ancestors().find(|directory| directory.join(KERNELS_TOML).is_file());
    found.map(Path::to_owned).ok_or_else(|| Error::NoProject { from: from.to_owned() })
}

/// Writes both locks of a project.
fn save(root: &Path, lock: KernelsLock, is_local: impl Fn(&str) -> bool) -> Result<(), KernelsError> {
    let (local, shared) = lock.split(is_local);
    shared.save(&root.join(KERNELS_LOCK))?;
    let path = root.join(LOCAL_LOCK);
    if !local.kernels.is_empty() || path.exists() {
        local.save(&path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_kernel_that_is_no_longer_local_leaves_its_lock() {
        const ENTRY: &str = "source = \"git\"\nref = \"v6.7\"\ncommit = \"0dd3ee3112\"\nkernel = \"6.7\"\n";
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let text = format!("[kernels.mine]\n{ENTRY}\n[kernels.shared]\n{ENTRY}");
        fs::write(root.join("both"), text).unwrap();
        let lock = || KernelsLock::load(&root.join("both")).unwrap();
        let ids = |name: &str| {
            let lock = KernelsLock::load(&root.join(name)).unwrap();
            lock.kernels.into_keys().collect::<Vec<_>>()
        };
        save(root, lock(), |_| false).unwrap();
        assert!(!root.join(LOCAL_LOCK).exists(), "a project without local kernels gets no file for them");
        save(root, lock(), |id| id == "mine").unwrap();
        assert_eq!((ids(KERNELS_LOCK), ids(LOCAL_LOCK)), (vec!["shared".to_owned()], vec!["mine".to_owned()]));
        let (_, shared) = lock().split(|id| id == "mine");
        save(root, shared, |_| false).unwrap();
        assert_eq!((ids(KERNELS_LOCK), ids(LOCAL_LOCK)), (vec!["shared".to_owned()], Vec::new()));
    }

    #[test]
    fn the_nearest_project_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        for directory in [dir.path(), &dir.path().join("a")] {
            fs::write(directory.join(KERNELS_TOML), "").unwrap();
            assert_eq!(project_root(&inner).unwrap(), directory);
        }
        let error = project_root(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.starts_with("no kernels.toml in /nonexistent or above it"), "{error}");
    }
}
