//! Resolve, fetch and list: what `lab kernels` and a run ask for.

use super::{
    cache::{Cache, Errand, Finished, Writing},
    class::Class,
    config::{Config, Kernel, UnsupportedEntry},
    error::{KernelsError, Result},
    lockfile::{Lock, Locked},
    source::{self, Bound, Indexes, Job, KernelSource, Site},
    update::{Change, Update},
};
use lab_guard::Id;
use lab_protocol::KernelVersion;
use std::path::{Path, PathBuf};

/// A kernel that can be booted.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// Id in `kernels.toml`.
    pub id: Id,
    /// Class.
    pub class: Class,
    /// The true version.
    pub version: KernelVersion,
    /// `uname -r`.
    pub release: String,
    /// bzImage.
    pub vmlinuz: PathBuf,
    /// Directory with `modules.dep`, `modules.builtin` and `kernel/`; a kernel without modules has an empty `modules.dep`.
    pub modules: PathBuf,
    /// The kernel's `.config`, where the source has one.
    pub config: Option<PathBuf>,
    /// What it lacks though its version says otherwise.
    pub unsupported: Vec<UnsupportedEntry>,
    /// Whether its failures are told and do not count.
    pub may_fail: bool,
    /// Extra words for the command line.
    pub cmdline: Vec<String>,
    /// Guest memory in MiB, where the lab's default does not fit.
    pub memory_mib: Option<u32>,
    /// Identity in hex: of the package, or of what it was built or copied from.
    pub sha256: String,
}

/// One line of `lab kernels list`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct KernelRow {
    /// Kernel id.
    pub id: String,
    /// Class.
    pub class: Class,
    /// Part of the default matrix.
    pub default: bool,
    /// The source in words.
    pub source: String,
    /// What it is locked to, or why it cannot be fetched.
    pub locked: String,
    /// Version, where it is known without fetching.
    pub version: Option<KernelVersion>,
    /// Whether it can be booted without the network.
    pub cached: bool,
}

/// Where kernels are resolved and kept.
#[derive(Debug, Clone, Copy)]
pub struct Store<'a> {
    /// Where they are kept.
    pub cache: &'a Cache,
    /// What is wanted.
    pub config: &'a Config,
    /// virtme-ng's `vng`, for `git` and `mainline` sources.
    pub vng: &'a Path,
}

impl Store<'_> {
    /// Asks a kernel's source what it means today; none for `path` sources, which are never locked.
    ///
    /// # Errors
    /// The source cannot be reached, has no such kernel, or has one of another class.
    fn resolve(&self, kernel: &Kernel, indexes: &mut Indexes, progress: &dyn Fn(&str)) -> Result<Option<Locked>> {
        let locked = source::of(&kernel.source).resolve(&self.site(), indexes, &named(kernel, progress));
        let locked = locked.map_err(|error| self.explain(error, kernel))?;
        match locked.as_ref().map(Locked::kernel) {
            Some(version) if !kernel.fits(version) => {
                Err(KernelsError::WrongClass { version, class: kernel.class.clone() }.of(&kernel.id))
            }
            _ => Ok(locked),
        }
    }

    /// Resolves `kernels` anew into `lock` and drops entries of kernels that `kernels.toml` no longer has. A kernel that
    /// the archive has dropped stays as it is locked: the others move on without it.
    ///
    /// The lock is changed only as a whole: after an error it is what it was.
    ///
    /// # Errors
    /// The first kernel that cannot be resolved for any other reason.
    pub fn update(&self, kernels: &[&Kernel], lock: &mut Lock, progress: &dyn Fn(&str)) -> Result<Update> {
        let mut next = lock.clone();
        let mut gone = Vec::new();
        let lockable = |id: &String| {
            let kernel = self.config.kernels.iter().find(|kernel| kernel.id == *id);
            kernel.is_some_and(|kernel| source::of(&kernel.source).is_locked())
        };
        next.kernels.retain(|id, _| lockable(id));
        let mut indexes = Indexes::default();
        for kernel in kernels {
            match self.resolve(kernel, &mut indexes, progress) {
                Ok(Some(locked)) => drop(next.kernels.insert(kernel.id.to_string(), locked)),
                Ok(None) => {}
                Err(error) if error.is_gone() => gone.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        let mut ids: Vec<&String> = lock.kernels.keys().chain(next.kernels.keys()).collect();
        ids.sort();
        ids.dedup();
        let class = |id: &String| self.config.kernels.iter().find(|it| it.id == *id).map(|it| it.class.clone());
        let change = |id: &String| Change {
            id: id.clone(),
            class: class(id),
            before: lock.kernels.get(id).cloned(),
            after: next.kernels.get(id).cloned(),
        };
        let changes = ids.into_iter().map(change).filter(|change| change.before != change.after).collect();
        *lock = next;
        Ok(Update { changes, gone })
    }

    /// Makes a kernel ready to boot, exactly as it is locked. One that is ready already costs neither network nor process.
    ///
    /// # Errors
    /// It is not locked, has vanished, fails its checksum or cannot be unpacked, built or copied.
    pub fn fetch(&self, kernel: &Kernel, lock: &Lock, progress: &dyn Fn(&str)) -> Result<Unpacked> {
        let progress = named(kernel, progress);
        let fetched = Plan::of(self, kernel, lock).and_then(|plan| {
            let find = || self.cache.find(&kernel.id, plan.bound.version, &plan.bound.sha256);
            if let Some(finished) = find() {
                return Ok(finished);
            }
            let writing = self.cache.write(plan.source.errand(), &progress)?;
            // Another run may have brought it while this one waited.
            find().map_or_else(|| plan.run(&self.site(), &writing, kernel, &progress), Ok)
        });
        fetched.map(|finished| unpacked(kernel, finished)).map_err(|error| self.explain(error, kernel))
    }

    /// Unpacks the packaged sources that a kernel is compiled from, exactly as they are locked, into a new directory.
    ///
    /// # Errors
    /// The kernel does not come as sources, the directory exists, or the package can't be fetched.
    pub fn source(&self, kernel: &Kernel, lock: &Lock, to: &Path, progress: &dyn Fn(&str)) -> Result<()> {
        let progress = named(kernel, progress);
        let unpack = || {
            let plan = Plan::of(self, kernel, lock)?;
            let beside = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if to.exists() {
                let reason = "exists already: name a new directory".to_owned();
                return Err(KernelsError::BadKernel { path: to.to_owned(), reason });
            }
            let stage = tempfile::tempdir_in(beside).map_err(KernelsError::io(beside))?;
            if !plan.source.unpack(&self.site(), plan.locked, stage.path(), &progress)? {
                return Err(KernelsError::NotSources { id: kernel.id.to_string() });
            }
            std::fs::rename(stage.keep(), to).map_err(KernelsError::io(to))
        };
        unpack().map_err(|error| self.explain(error, kernel))
    }

    fn site(&self) -> Site<'_> {
        Site { cache: self.cache, debian: &self.config.debian, vng: self.vng }
    }

    /// The right to fetch into the cache.
    ///
    /// # Errors
    /// The lock file cannot be used.
    pub(super) fn fetching(&self, progress: &dyn Fn(&str)) -> Result<Writing<'_>> {
        self.cache.write(Errand::Fetch, progress)
    }

    /// Names the kernel, and the full disk that another program met.
    fn explain(&self, error: KernelsError, kernel: &Kernel) -> KernelsError {
        let error = match error {
            KernelsError::Program { detail, .. } if detail.contains("No space left on device") => {
                KernelsError::NoSpace { path: self.cache.root().to_owned(), need: String::new() }
            }
            other => other,
        };
        error.of(&kernel.id)
    }

    /// A kernel's version as far as it is known without fetching: the lock's, or that of the files of a `path`.
    ///
    /// # Errors
    /// The kernel is not locked, or a file of it can't be read.
    pub fn version(&self, kernel: &Kernel, lock: &Lock) -> Result<KernelVersion> {
        Plan::of(self, kernel, lock).map(|plan| plan.bound.version).map_err(|error| error.of(&kernel.id))
    }

    /// What is in the matrix, in the lock and in the cache. Starts no process and touches no network.
    pub fn rows(&self, lock: &Lock) -> Vec<KernelRow> {
        let row = |kernel: &Kernel| {
            let plan = Plan::of(self, kernel, lock);
            let (locked, version, cached) = match &plan {
                Ok(plan) => (
                    plan.locked.map_or_else(|| "as found".to_owned(), ToString::to_string),
                    Some(plan.bound.version),
                    self.cache.find(&kernel.id, plan.bound.version, &plan.bound.sha256).is_some(),
                ),
                Err(error) => (error.to_string(), None, false),
            };
            let source = kernel.source.to_string();
            KernelRow {
                id: kernel.id.to_string(),
                class: kernel.class.clone(),
                default: kernel.default,
                source,
                locked,
                version,
                cached,
            }
        };
        self.config.kernels.iter().map(row).collect()
    }
}

/// How one kernel is fetched, decided without network or processes.
struct Plan<'a> {
    source: Box<dyn KernelSource + 'a>,
    locked: Option<&'a Locked>,
    bound: Bound,
}

impl<'a> Plan<'a> {
    fn of(store: &Store<'_>, kernel: &'a Kernel, lock: &'a Lock) -> Result<Self> {
        let source = source::of(&kernel.source);
        let locked = if source.is_locked() { Some(lock.entry(kernel)?) } else { None };
        let bound = source.identity(&store.site(), locked)?;
        Ok(Self { source, locked, bound })
    }

    fn run(
        &self,
        site: &Site<'_>,
        writing: &Writing<'_>,
        kernel: &Kernel,
        progress: &dyn Fn(&str),
    ) -> Result<Finished> {
        self.source.fetch(&Job { site, writing, kernel, locked: self.locked, bound: &self.bound, progress })
    }
}

fn named(kernel: &Kernel, progress: &dyn Fn(&str)) -> impl Fn(&str) {
    move |message| progress(&format!("{}: {message}", kernel.id))
}

fn unpacked(kernel: &Kernel, finished: Finished) -> Unpacked {
    let Finished { dir, meta } = finished;
    let config = dir.join("config");
    Unpacked {
        id: kernel.id.clone(),
        class: kernel.class.clone(),
        version: meta.version,
        release: meta.release,
        vmlinuz: dir.join("vmlinuz"),
        modules: dir.join("modules"),
        config: config.is_file().then_some(config),
        unsupported: kernel.unsupported.clone(),
        may_fail: kernel.may_fail,
        cmdline: kernel.cmdline.clone(),
        memory_mib: kernel.memory_mib,
        sha256: meta.sha256,
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
