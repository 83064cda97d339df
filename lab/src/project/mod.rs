//! A project: its directory, its configuration, and selection of kernels and cells.

pub mod agent_package;
pub mod artifacts;
pub mod commit;
pub mod filter;
pub mod select;
pub mod sources;
pub mod watch;

use crate::{
    error::Error,
    lists::Lists,
    project::{
        filter::KernelFilter,
        select::{facts, stated},
    },
    setup::Tools,
};
use lab_base::{interrupt::Interrupt, nearest::nearest, say::say, selection};
use lab_kernel_store::{Cache, Kernel, KernelClass, KernelMatrix, KernelStore, KernelsError, KernelsLock};
use lab_record::plan::KernelFacts;
use std::path::{Path, PathBuf};

/// The file whose directory is the project.
pub const KERNELS_TOML: &str = "kernels.toml";
const KERNELS_LOCK: &str = "kernels.lock";

/// An open project: a directory with `kernels.toml`, and the content of its files.
pub struct Project {
    /// The directory, as an absolute path.
    pub root: PathBuf,
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
        let root = root(named)?;
        // Builds and downloads may start after this: a signal ends them without leaving partial files.
        Interrupt::install().map_err(Error::file("watch", "signals"))?;
        let cache = Cache::open()?;
        let config = KernelMatrix::load(&root.join(KERNELS_TOML))?;
        config.hints.iter().for_each(|hint| say(&format!("hint: {hint}")));
        let lock = KernelsLock::load(&root.join(KERNELS_LOCK))?;
        let lists = Lists::load(&root).map_err(KernelsError::from)?;
        // Only `git` and `mainline` kernels need it, and they report an error if it is missing.
        let vng = Tools::in_cache(cache.root()).virtme_ng().unwrap_or_else(|| "vng".into());
        Ok(Self { root, cache, config, lock, lists, vng })
    }

    /// The store for this project's kernels.
    pub fn store(&self) -> KernelStore<'_> {
        KernelStore { cache: &self.cache, config: &self.config, vng: &self.vng }
    }

    /// Path of virtme-ng, or its name if it is not installed.
    pub fn vng(&self) -> &Path {
        &self.vng
    }

    /// Path of `kernels.lock`.
    pub fn lock_path(&self) -> PathBuf {
        self.root.join(KERNELS_LOCK)
    }

    /// A kernel's data for a plan.
    ///
    /// # Errors
    /// The kernel's version is not known yet.
    pub fn facts(&self, kernel: &Kernel) -> Result<KernelFacts, KernelsError> {
        let version = self.store().version(kernel, &self.lock)?;
        let facts = facts(&kernel.id, kernel.class.name(), version, &kernel.unsupported, kernel.may_fail);
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

    /// A class that is predefined, or that a kernel of `kernels.toml` has.
    fn class(&self, name: &str) -> Result<KernelClass, Error> {
        let own = self.config.kernels.iter().map(|kernel| kernel.class.clone());
        let mut known: Vec<KernelClass> = KernelClass::PREDEFINED.into_iter().chain(own).collect();
        known.sort();
        known.dedup();
        if let Some(class) = known.iter().find(|class| class.name() == name) {
            return Ok(class.clone());
        }
        let names = || known.iter().map(KernelClass::name);
        let nearest = nearest(name, names());
        let nearest = if nearest.is_empty() { names().map(str::to_owned).collect() } else { nearest };
        Err(selection::NoMatch { what: "class", pattern: name.to_owned(), nearest }.into())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
