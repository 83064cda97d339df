//! Resolves, fetches and lists kernels, for `lab kernels` and for runs.

use super::{
    cache::{Cache, Errand, Finished, Writing},
    class::Class,
    config::{Backport, Config, Kernel, Source, UnsupportedEntry},
    deb::{self, Indexes},
    error::{KernelsError, Result},
    files::Identity,
    git,
    header::Banner,
    linux_source,
    local::Local,
    lockfile::{Lock, Locked, Part},
    mainline::Mainline,
    update::{Change, Update},
};
use lab_base::file::touch;
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
    /// The upstream version behind the distribution's numbering.
    pub version: KernelVersion,
    /// `uname -r`.
    pub release: String,
    /// bzImage.
    pub vmlinuz: PathBuf,
    /// Directory with `modules.dep`, `modules.builtin` and `kernel/`; without modules, `modules.dep` is empty.
    pub modules: PathBuf,
    /// The kernel's `.config`, if the source has one.
    pub config: Option<PathBuf>,
    /// Capabilities that it lacks although its version has them.
    pub unsupported: Vec<UnsupportedEntry>,
    /// What it has though its version says otherwise.
    pub has: Vec<Backport>,
    /// Why its probes are believed and not its version.
    pub believe_probes: Option<String>,
    /// Whether its failures are told and do not count.
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
pub struct Row {
    pub id: String,
    pub class: Class,
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
pub struct Store<'a> {
    pub cache: &'a Cache,
    pub config: &'a Config,
    /// virtme-ng's `vng`, for `git` and `mainline` sources.
    pub vng: &'a Path,
}

impl Store<'_> {
    /// Resolves a kernel's source now; `None` for `path` sources, which are never locked.
    ///
    /// # Errors
    /// The source can't be reached, does not have the kernel, or has a kernel of another class.
    fn resolve(&self, kernel: &Kernel, indexes: &mut Indexes, progress: &dyn Fn(&str)) -> Result<Option<Locked>> {
        let locked = self.resolved(kernel, indexes, &named(kernel, progress));
        let locked = locked.map_err(|error| self.explain(error, kernel))?;
        match locked.as_ref().map(Locked::kernel) {
            Some(version) if !kernel.fits(version) => {
                Err(KernelsError::WrongClass { version, class: kernel.class }.of(&kernel.id))
            }
            _ => Ok(locked),
        }
    }

    fn resolved(&self, kernel: &Kernel, indexes: &mut Indexes, progress: &dyn Fn(&str)) -> Result<Option<Locked>> {
        match &kernel.source {
            Source::Image { .. } | Source::Tree { .. } => Ok(None),
            Source::Deb { suite, package } => {
                // The lock also protects apt's lists.
                let writing = self.cache.write(Errand::Fetch, progress)?;
                let packages = indexes.of(writing.root(), &self.config.debian, suite, progress)?;
                deb::resolve(packages, suite, package).map(Some)
            }
            Source::LinuxSource { suite, package, .. } => {
                let writing = self.cache.write(Errand::Fetch, progress)?;
                let packages = indexes.of(writing.root(), &self.config.debian, suite, progress)?;
                linux_source::resolve(packages, suite, package).map(Some)
            }
            Source::Git { tree, reference, .. } => git::resolve(tree, reference).map(Some),
            Source::Mainline { version } => {
                let local = Mainline::new(self.vng, self.cache.root())?.download(version, progress)?;
                let (sha256, kernel) = (local.image_sha256()?, local.banner()?.version);
                Ok(Some(Locked::Mainline { version: version.clone(), sha256, kernel }))
            }
        }
    }

    /// Resolves `kernels` again into `lock`, and removes entries of kernels that `kernels.toml` no longer has. If the
    /// archive no longer has a kernel, its entry stays unchanged and the others are updated.
    ///
    /// The lock is changed only as a whole: after an error it is unchanged.
    ///
    /// # Errors
    /// The first kernel that can't be resolved for another reason.
    pub fn update(&self, kernels: &[&Kernel], lock: &mut Lock, progress: &dyn Fn(&str)) -> Result<Update> {
        let mut next = lock.clone();
        let mut gone = Vec::new();
        let lockable = |id: &String| {
            let kernel = self.config.kernels.iter().find(|kernel| kernel.id == *id);
            kernel.is_some_and(|kernel| !matches!(kernel.source, Source::Image { .. } | Source::Tree { .. }))
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
        let class = |id: &String| self.config.kernels.iter().find(|it| it.id == *id).map(|it| it.class);
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

    /// Prepares a locked kernel for booting. A kernel that is in the cache needs neither network nor other programs.
    ///
    /// # Errors
    /// It is not locked, no longer exists, its hash differs, or it can't be unpacked, built or copied.
    pub fn fetch(&self, kernel: &Kernel, lock: &Lock, progress: &dyn Fn(&str)) -> Result<Unpacked> {
        let progress = named(kernel, progress);
        let fetched = Plan::of(self, kernel, lock).and_then(|plan| {
            let find = || self.cache.find(&kernel.id, plan.version, &plan.sha256);
            if let Some(finished) = find() {
                touch(&finished.dir);
                return Ok(finished);
            }
            let errand = if kernel.is_built() { Errand::Build } else { Errand::Fetch };
            let writing = self.cache.write(errand, &progress)?;
            // Another run may have fetched it while this run waited.
            find().map_or_else(|| plan.run(self, &writing, kernel, &progress), Ok)
        });
        fetched.map(|finished| unpacked(kernel, finished)).map_err(|error| self.explain(error, kernel))
    }

    /// Unpacks the locked source package of a kernel to a new directory.
    ///
    /// # Errors
    /// The kernel is not built from packaged sources, the directory exists, or the package can't be fetched.
    pub fn source(&self, kernel: &Kernel, lock: &Lock, to: &Path, progress: &dyn Fn(&str)) -> Result<()> {
        let progress = named(kernel, progress);
        let unpack = || {
            let Way::Compile(build) = Plan::of(self, kernel, lock)?.way else {
                return Err(KernelsError::NotSources { id: kernel.id.to_string() });
            };
            let beside = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if to.exists() {
                let reason = "exists already: name a new directory".to_owned();
                return Err(KernelsError::BadKernel { path: to.to_owned(), reason });
            }
            let writing = self.fetching(&progress)?;
            let stage = tempfile::tempdir_in(beside).map_err(KernelsError::io(beside))?;
            build.unpack(&writing, &self.config.debian, stage.path(), &progress)?;
            std::fs::rename(stage.keep(), to).map_err(KernelsError::io(to))
        };
        unpack().map_err(|error| self.explain(error, kernel))
    }

    /// The right to fetch into the cache.
    ///
    /// # Errors
    /// The lock file can't be used.
    pub(super) fn fetching(&self, progress: &dyn Fn(&str)) -> Result<Writing<'_>> {
        self.cache.write(Errand::Fetch, progress)
    }

    /// Adds the kernel to the error, and detects a full disk in another program's output.
    fn explain(&self, error: KernelsError, kernel: &Kernel) -> KernelsError {
        let error = match error {
            KernelsError::Program { detail, .. } if detail.contains("No space left on device") => {
                KernelsError::NoSpace { path: self.cache.root().to_owned(), need: String::new() }
            }
            other => other,
        };
        error.of(&kernel.id)
    }

    /// A kernel's version if it is known without fetching: from the lock, or from the files of a `path` source.
    ///
    /// # Errors
    /// The kernel is not locked, or a file can't be read.
    pub fn version(&self, kernel: &Kernel, lock: &Lock) -> Result<KernelVersion> {
        Plan::of(self, kernel, lock).map(|plan| plan.version).map_err(|error| error.of(&kernel.id))
    }

    /// What decides how a guest of this kernel behaves, the same on every host: its files, and how it is booted. Reads all
    /// files of a `path` kernel.
    ///
    /// # Errors
    /// The kernel is not locked, or a file of it can't be read.
    pub fn identity(&self, kernel: &Kernel, lock: &Lock) -> Result<String> {
        let identity = || {
            let plan = Plan::of(self, kernel, lock)?;
            let files = match &plan.way {
                Way::Local(local, _) => local.content()?,
                _ => plan.sha256,
            };
            let mut identity = Identity::default();
            identity.add(files).add(kernel.memory_mib.unwrap_or_default().to_le_bytes());
            for word in &kernel.cmdline {
                identity.add(word);
            }
            Ok(identity.finish())
        };
        identity().map_err(|error: KernelsError| error.of(&kernel.id))
    }

    /// What is in the matrix, in the lock and in the cache. Starts no process and touches no network.
    pub fn rows(&self, lock: &Lock) -> Vec<Row> {
        let row = |kernel: &Kernel| {
            let plan = Plan::of(self, kernel, lock);
            let (locked, version, cached) = match &plan {
                Ok(plan) => (
                    plan.words.clone(),
                    Some(plan.version),
                    self.cache.find(&kernel.id, plan.version, &plan.sha256).is_some(),
                ),
                Err(error) => (error.to_string(), None, false),
            };
            let source = kernel.source.to_string();
            Row {
                id: kernel.id.to_string(),
                class: kernel.class,
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

/// How a kernel is fetched, determined without network access or other programs.
struct Plan<'a> {
    version: KernelVersion,
    sha256: String,
    /// The resolved source as text.
    words: String,
    way: Way<'a>,
}

enum Way<'a> {
    Deb(deb::Wanted<'a>),
    Local(Local, Banner),
    Build(git::Build<'a>),
    Compile(linux_source::Build<'a>),
    Mainline(&'a str),
}

impl<'a> Plan<'a> {
    fn of(store: &'a Store<'_>, kernel: &'a Kernel, lock: &'a Lock) -> Result<Self> {
        let local = |local: Local| -> Result<Self> {
            let (banner, sha256) = (local.banner()?, local.identity()?);
            Ok(Self { version: banner.version, sha256, words: "as found".into(), way: Way::Local(local, banner) })
        };
        match &kernel.source {
            Source::Image { image, modules, config } => {
                return local(Local::from_image(image, modules.as_deref(), config.as_deref()));
            }
            Source::Tree { tree } => return local(Local::from_tree(tree)),
            Source::Deb { .. } | Source::LinuxSource { .. } | Source::Git { .. } | Source::Mainline { .. } => {}
        }
        let locked = lock.entry(kernel)?;
        let (sha256, way) = match (locked, &kernel.source) {
            (Locked::Deb { suite, package, version, sha256, kernel, parts }, Source::Deb { package: pattern, .. }) => (
                identity_of_package(sha256, parts),
                Way::Deb(deb::Wanted { suite, pattern, package, version, sha256, kernel: *kernel, parts }),
            ),
            (
                Locked::LinuxSource { suite, package, version, sha256, kernel },
                Source::LinuxSource { package: pattern, fragment, .. },
            ) => {
                let wanted = deb::Wanted { suite, pattern, package, version, sha256, kernel: *kernel, parts: &[] };
                let build = linux_source::Build { wanted, fragment: fragment.as_deref() };
                (build.identity()?, Way::Compile(build))
            }
            (Locked::Git { commit, kernel, .. }, Source::Git { tree, fragment, .. }) => {
                let build =
                    git::Build { tree, commit, version: *kernel, fragment: fragment.as_deref(), vng: store.vng };
                (build.identity()?, Way::Build(build))
            }
            (Locked::Mainline { version, sha256, .. }, _) => (sha256.clone(), Way::Mainline(version)),
            // `Lock::entry` has compared the kinds already.
            _ => return Err(KernelsError::Unlocked),
        };
        Ok(Self { version: locked.kernel(), sha256, words: locked.to_string(), way })
    }

    fn run(
        &self,
        store: &Store<'_>,
        writing: &Writing<'_>,
        kernel: &Kernel,
        progress: &dyn Fn(&str),
    ) -> Result<Finished> {
        match &self.way {
            Way::Deb(wanted) => deb::fetch(writing, &store.config.debian, kernel, wanted, &self.sha256, progress),
            Way::Local(local, banner) => {
                progress("copying into the cache");
                local.take(writing, kernel, banner, &self.sha256)
            }
            Way::Compile(build) => build.fetch(writing, &store.config.debian, kernel, &self.sha256, progress),
            Way::Build(build) => build.fetch(writing, kernel, &self.sha256, progress),
            Way::Mainline(version) => {
                let local = Mainline::new(store.vng, store.cache.root())?.download(version, progress)?;
                let found = local.image_sha256()?;
                if found != self.sha256 {
                    let what = format!("mainline {version}");
                    return Err(KernelsError::Checksum { what, found, locked: self.sha256.clone() });
                }
                local.take(writing, kernel, &local.banner()?, &self.sha256)
            }
        }
    }
}

/// A package that only ties others together is the same while what it ties is not.
fn identity_of_package(sha256: &str, parts: &[Part]) -> String {
    if parts.is_empty() {
        return sha256.to_owned();
    }
    let mut identity = Identity::default();
    identity.add(sha256);
    for part in parts {
        identity.add(&part.package).add(&part.sha256);
    }
    identity.finish()
}

fn named(kernel: &Kernel, progress: &dyn Fn(&str)) -> impl Fn(&str) {
    move |message| progress(&format!("{}: {message}", kernel.id))
}

fn unpacked(kernel: &Kernel, finished: Finished) -> Unpacked {
    let Finished { dir, meta } = finished;
    let config = dir.join("config");
    Unpacked {
        id: kernel.id.clone(),
        class: kernel.class,
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

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
