//! Resolves, fetches and lists kernels, for `lab kernels` and for runs.

use super::{
    apt::Apt,
    cache::{Cache, CachedKernel, WritePurpose, Writing},
    class::KernelClass,
    config::{BackportEntry, Kernel, KernelMatrix, UnsupportedEntry},
    error::{KernelsError, Result},
    files::Identity,
    lockfile::KernelsLock,
    packages::ArchivePackage,
    source::{Bound, Indexes, Job, KernelSource, Locked, Packages, Site},
    update::{LockChange, Update},
};
use lab_base::{arch::Architecture, file::touch};
use lab_guard::Id;
use lab_protocol::KernelVersion;
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    path::{Path, PathBuf},
};

/// A kernel that can be booted.
#[derive(Debug, Clone)]
pub struct BootableKernel {
    /// Id in `kernels.toml`.
    pub id: Id,
    /// Class.
    pub class: KernelClass,
    /// The architecture of its guests.
    pub architecture: Architecture,
    /// The upstream version behind the distribution's numbering.
    pub version: KernelVersion,
    /// `uname -r`.
    pub release: String,
    /// bzImage, or the `Image` of arm64.
    pub vmlinuz: PathBuf,
    /// Directory with `modules.dep`, `modules.builtin` and `kernel/`; without modules, `modules.dep` is empty.
    pub modules: PathBuf,
    /// The kernel's `.config`, if the source has one.
    pub config: Option<PathBuf>,
    /// Capabilities that it lacks although its version has them.
    pub unsupported: Vec<UnsupportedEntry>,
    /// Capabilities that it has although its version lacks them.
    pub has: Vec<BackportEntry>,
    /// Reason why its probes decide instead of its version.
    pub believe_probes: Option<String>,
    /// Whether its failures are reported but do not count.
    pub may_fail: bool,
    /// Additional kernel parameters.
    pub cmdline: Vec<String>,
    /// Guest memory, MiB, if not the default.
    pub memory_mib: Option<u32>,
    /// Identity, hexadecimal: the hash of the package, or of what it was built or copied from.
    pub sha256: String,
}

/// One line of `lab kernels list`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct KernelRow {
    /// Kernel id.
    pub id: String,
    pub class: KernelClass,
    /// Whether it runs if no kernel is selected.
    pub default: bool,
    /// The source as text.
    pub source: String,
    /// The resolved source, or why it can't be fetched.
    pub locked: String,
    /// Version, if it is known without fetching.
    pub version: Option<KernelVersion>,
    /// Whether it can be booted without network access.
    pub cached: bool,
}

/// Resolves and stores kernels.
#[derive(Debug, Clone, Copy)]
pub struct KernelStore<'a> {
    pub cache: &'a Cache,
    pub config: &'a KernelMatrix,
    /// virtme-ng's `vng`, for `git` and `mainline` sources.
    pub vng: &'a Path,
}

impl KernelStore<'_> {
    /// Resolves a kernel's source now; `None` for `path` sources, which are never locked.
    ///
    /// # Errors
    /// The source can't be reached, does not have the kernel, or has a kernel of another class.
    fn resolve(&self, kernel: &Kernel, indexes: &mut Indexes, progress: &dyn Fn(&str)) -> Result<Option<Locked>> {
        let locked = kernel.source.get().resolve(&self.site(), indexes, &named(kernel, progress));
        let locked = locked.map_err(|error| self.explain(error, kernel))?;
        if let Some(locked) = &locked {
            kernel.target().check(locked.get().kernel()).map_err(|error| error.of(&kernel.id))?;
        }
        Ok(locked)
    }

    /// Resolves `kernels` again and updates `lock`; removes entries of kernels that `kernels.toml` no longer has. If
    /// the archive no longer has a kernel, or only an older package of it, its entry is kept and the others are updated.
    ///
    /// The lock is changed only as a whole: after an error it is unchanged.
    ///
    /// # Errors
    /// The first kernel that can't be resolved for another reason.
    pub fn update(&self, kernels: &[&Kernel], lock: &mut KernelsLock, progress: &dyn Fn(&str)) -> Result<Update> {
        let mut next = lock.clone();
        let mut gone = Vec::new();
        let lockable = |id: &String| {
            let kernel = self.config.kernels.iter().find(|kernel| kernel.id == *id);
            kernel.is_some_and(|kernel| kernel.source.get().is_locked())
        };
        next.kernels.retain(|id, _| lockable(id));
        let mut indexes = Indexes::default();
        // A variant has its kernel's entry.
        let bases = kernels.iter().map(|kernel| self.base(kernel));
        let mut seen = BTreeSet::new();
        for kernel in bases.filter(|kernel| seen.insert(&*kernel.id)) {
            match self.resolve(kernel, &mut indexes, progress) {
                Ok(Some(locked)) => match lock.kernels.get(&*kernel.id) {
                    Some(known) if is_replayed(&locked, known, kernel)? => {
                        gone.push(
                            KernelsError::Replayed {
                                kernel: kernel.id.to_string(),
                                known: known.to_string(),
                                found: locked.to_string(),
                            }
                            .to_string(),
                        );
                    }
                    _ => drop(next.kernels.insert(kernel.id.to_string(), locked)),
                },
                Ok(None) => {}
                Err(error) if error.is_gone() => gone.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        let mut ids: Vec<&String> = lock.kernels.keys().chain(next.kernels.keys()).collect();
        ids.sort();
        ids.dedup();
        let class = |id: &String| self.config.kernels.iter().find(|it| it.id == *id).map(|it| it.class.clone());
        let change = |id: &String| LockChange {
            id: id.clone(),
            class: class(id),
            before: lock.kernels.get(id).cloned(),
            after: next.kernels.get(id).cloned(),
        };
        let changes = ids.into_iter().map(change).filter(|change| change.before != change.after).collect();
        *lock = next;
        Ok(Update { changes, gone })
    }

    /// The kernel whose files a variant has; any other kernel itself.
    fn base<'k>(&'k self, kernel: &'k Kernel) -> &'k Kernel {
        self.config.kernels.iter().find(|it| it.id == *kernel.stored_as()).unwrap_or(kernel)
    }

    /// Prepares a locked kernel for booting. A kernel that is in the cache needs neither network nor other programs.
    ///
    /// # Errors
    /// It is not locked, no longer exists, its hash differs, or it can't be unpacked, built or copied.
    pub fn fetch(&self, kernel: &Kernel, lock: &KernelsLock, progress: &dyn Fn(&str)) -> Result<BootableKernel> {
        let progress = named(kernel, progress);
        let fetched = Plan::of(self, kernel, lock).and_then(|plan| {
            let find = || self.cache.find(kernel.stored_as(), plan.bound.version, &plan.bound.sha256);
            if let Some(finished) = find() {
                touch(&finished.dir);
                return Ok(finished);
            }
            let writing = self.cache.write(plan.source.purpose(), &progress)?;
            // Another run may have fetched it while this one waited.
            find().map_or_else(|| plan.run(&self.site(), &writing, kernel, &progress), Ok)
        });
        fetched.map(|finished| unpacked(kernel, finished)).map_err(|error| self.explain(error, kernel))
    }

    /// Says how many of several kernels are to be downloaded and how much that is, before the first one is. Reads the
    /// indexes of their suites, and fetches those that do not have the packages.
    ///
    /// # Errors
    /// An index can't be fetched or read; no kernel of that suite could be fetched then.
    pub fn announce(&self, kernels: &[&Kernel], lock: &KernelsLock, progress: &dyn Fn(&str)) -> Result<()> {
        if kernels.len() < 2 {
            return Ok(());
        }
        let plans = kernels.iter().filter_map(|kernel| Some((*kernel, Plan::of(self, kernel, lock).ok()?)));
        let is_missing = |(kernel, plan): &(&Kernel, Plan<'_>)| !self.has(kernel, plan);
        let mut seen = BTreeSet::new();
        let missing: Vec<_> = plans.filter(is_missing).filter(|(kernel, _)| seen.insert(kernel.stored_as())).collect();
        let wanted: Vec<(&Kernel, Packages<'_>)> =
            missing.iter().filter_map(|(kernel, plan)| Some((*kernel, plan.source.packages(plan.locked)?))).collect();
        if wanted.len() < 2 {
            return Ok(());
        }
        let writing = self.cache.write(WritePurpose::Fetch, progress)?;
        let mut indexes: BTreeMap<(&str, Architecture), Vec<ArchivePackage>> = BTreeMap::new();
        for (kernel, packages) in &wanted {
            let of_suite =
                wanted.iter().map(|(_, it)| it).filter(|it| (it.suite, it.arch) == (packages.suite, packages.arch));
            if let Entry::Vacant(new) = indexes.entry((packages.suite, packages.arch)) {
                let read = || {
                    let apt = Apt::new(writing.root(), &self.config.debian, packages.suite, packages.arch)?;
                    let known = apt.kernels()?;
                    if of_suite.clone().all(|wanted| sizes(wanted, &known).all(|size| size.is_some())) {
                        return Ok(known);
                    }
                    apt.update(progress)?;
                    apt.kernels()
                };
                new.insert(read().map_err(|error| self.explain(error, kernel))?);
            }
        }
        let size = |packages: &Packages<'_>| -> u64 {
            let known = indexes.get(&(packages.suite, packages.arch)).map_or(&[][..], Vec::as_slice);
            sizes(packages, known).flatten().sum()
        };
        let bytes: u64 = wanted.iter().map(|(_, packages)| size(packages)).sum();
        let (count, mib) = (wanted.len(), bytes.div_ceil(1 << 20));
        progress(&format!("{count} kernels are not in the cache: downloading {mib} MiB"));
        Ok(())
    }

    /// Unpacks the locked source package of a kernel to a new directory.
    ///
    /// # Errors
    /// The kernel is not built from packaged sources, the directory exists, or the package can't be fetched.
    pub fn source(&self, kernel: &Kernel, lock: &KernelsLock, to: &Path, progress: &dyn Fn(&str)) -> Result<()> {
        let progress = named(kernel, progress);
        let unpack = || {
            let plan = Plan::of(self, kernel, lock)?;
            let beside = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if to.exists() {
                let reason = "already exists: choose a new directory".to_owned();
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

    /// Reads the changelog of a kernel's locked package.
    ///
    /// # Errors
    /// The kernel is not from a package, the package can't be fetched, or it has no changelog.
    pub fn changelog(&self, kernel: &Kernel, lock: &KernelsLock, progress: &dyn Fn(&str)) -> Result<String> {
        let read = || kernel.source.get().changelog(&self.site(), lock.entry(kernel)?, progress);
        read().map_err(|error| error.of(&kernel.id))
    }

    /// Adds the kernel to the error, and detects a full disk in another program's output.
    pub(super) fn explain(&self, error: KernelsError, kernel: &Kernel) -> KernelsError {
        let error = match error {
            KernelsError::Program { detail, .. } if detail.contains("No space left on device") => {
                KernelsError::NoSpace { path: self.cache.root().to_owned(), need: String::new() }
            }
            KernelsError::Program { what, detail } => match trouble(&detail) {
                Some(why) => KernelsError::Mirror { what, why, detail },
                None => KernelsError::Program { what, detail },
            },
            other => other,
        };
        error.of(&kernel.id)
    }

    /// A kernel's version if it is known without fetching: from the lock, or from the files of a `path` source.
    ///
    /// # Errors
    /// The kernel is not locked, or a file can't be read.
    pub fn version(&self, kernel: &Kernel, lock: &KernelsLock) -> Result<KernelVersion> {
        let source = kernel.source.get();
        let locked = if source.is_locked() { lock.entry(kernel).map(Some) } else { Ok(None) };
        let version = locked.and_then(|locked| source.version(&self.site(), locked));
        version.map_err(|error| error.of(&kernel.id))
    }

    /// A hash of everything that influences a guest of this kernel: its files and boot parameters. It is the same on
    /// every host. Reads all files of a `path` kernel.
    ///
    /// # Errors
    /// The kernel is not locked, or a file of it can't be read.
    pub fn identity(&self, kernel: &Kernel, lock: &KernelsLock) -> Result<String> {
        let identity = || {
            let plan = Plan::of(self, kernel, lock)?;
            let files = plan.source.content()?.unwrap_or(plan.bound.sha256);
            let mut identity = Identity::default();
            identity.add(files).add(kernel.memory_mib.unwrap_or_default().to_le_bytes());
            for word in &kernel.cmdline {
                identity.add(word);
            }
            Ok(identity.finish())
        };
        identity().map_err(|error: KernelsError| error.of(&kernel.id))
    }

    /// Whether a kernel is in the cache in its locked version.
    pub fn is_cached(&self, kernel: &Kernel, lock: &KernelsLock) -> bool {
        Plan::of(self, kernel, lock).is_ok_and(|plan| self.has(kernel, &plan))
    }

    fn has(&self, kernel: &Kernel, plan: &Plan<'_>) -> bool {
        self.cache.find(kernel.stored_as(), plan.bound.version, &plan.bound.sha256).is_some()
    }

    /// The kernels of the matrix with their state in the lock and in the cache. Uses no network.
    pub fn rows(&self, lock: &KernelsLock) -> Vec<KernelRow> {
        let row = |kernel: &Kernel| {
            let plan = Plan::of(self, kernel, lock);
            let (locked, version, cached) = match &plan {
                Ok(plan) => (
                    plan.locked.map_or_else(|| "as found".to_owned(), ToString::to_string),
                    Some(plan.bound.version),
                    self.has(kernel, plan),
                ),
                Err(error) => (error.to_string(), None, false),
            };
            let source = match &kernel.variant_of {
                None => kernel.source.to_string(),
                Some(base) if kernel.is_built() => format!("variant of {base}: {}", kernel.source),
                Some(base) => format!("variant of {base}: {}", kernel.cmdline.join(" ")),
            };
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

/// What apt's messages about a mirror mean (`apt-pkg/acquire-item.cc`, `methods/connect.cc` and `methods/http.cc` of apt).
fn trouble(detail: &str) -> Option<&'static str> {
    const MEANINGS: [(&[&str], &str); 3] = [
        (
            &["Clearsigned file isn't valid", "NOSPLIT", "NODATA"],
            "the answer is no package index, perhaps a page of a proxy or of a login: check the proxy (http_proxy, \
             Acquire::http::Proxy of apt) and the mirror's address",
        ),
        (
            &[
                "Could not connect",
                "Could not resolve",
                "Temporary failure resolving",
                "Network is unreachable",
                "timed out",
            ],
            "the mirror can't be reached: check the network and the proxy, or name another mirror \
             (`mirror` and `security-mirror` in kernels.toml)",
        ),
        (
            &[
                "Undetermined Error",
                "Connection failed",
                "Error reading from server",
                "Remote end closed",
                "File has unexpected size",
            ],
            "the connection ended early, or the mirror is being updated: try again, or name another mirror \
             (`mirror` and `security-mirror` in kernels.toml)",
        ),
    ];
    let says = |words: &[&str]| words.iter().any(|word| detail.contains(word));
    MEANINGS.into_iter().find(|(words, _)| says(words)).map(|(_, why)| why)
}

/// The sizes of packages in an index, bytes; `None` for one that is not in it.
fn sizes<'a>(wanted: &'a Packages<'_>, known: &'a [ArchivePackage]) -> impl Iterator<Item = Option<u64>> + 'a {
    wanted
        .names
        .iter()
        .map(|name| known.iter().find(|it| it.name == *name && it.version == wanted.version).map(|it| it.size))
}

/// How a kernel is fetched, determined without network access or other programs.
struct Plan<'a> {
    source: &'a dyn KernelSource,
    locked: Option<&'a Locked>,
    bound: Bound,
}

impl<'a> Plan<'a> {
    fn of(store: &KernelStore<'_>, kernel: &'a Kernel, lock: &'a KernelsLock) -> Result<Self> {
        let source = kernel.source.get();
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
    ) -> Result<CachedKernel> {
        let target = kernel.target();
        self.source.fetch(&Job { site, writing, target: &target, locked: self.locked, bound: &self.bound, progress })
    }
}

fn named(kernel: &Kernel, progress: &dyn Fn(&str)) -> impl Fn(&str) {
    move |message| progress(&format!("{}: {message}", kernel.id))
}

fn unpacked(kernel: &Kernel, finished: CachedKernel) -> BootableKernel {
    let CachedKernel { dir, meta } = finished;
    let config = dir.join("config");
    BootableKernel {
        id: kernel.id.clone(),
        class: kernel.class.clone(),
        architecture: kernel.architecture(),
        version: meta.version,
        release: meta.release,
        vmlinuz: dir.join("vmlinuz"),
        modules: dir.join("modules"),
        config: config.is_file().then_some(config),
        unsupported: kernel.unsupported.clone(),
        has: kernel.has.clone(),
        believe_probes: kernel.believe_probes.clone(),
        may_fail: kernel.may_fail,
        cmdline: kernel.cmdline.clone(),
        memory_mib: kernel.memory_mib,
        sha256: meta.sha256,
    }
}

/// Whether an entry has an older package of the same source than the known one: no archive goes back, but a mirror that
/// replays an earlier index of the archive does.
fn is_replayed(entry: &Locked, known: &Locked, kernel: &Kernel) -> Result<bool> {
    if !kernel.source.get().is_resolved_by(known) {
        return Ok(false);
    }
    entry.get().is_older_than(known)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
