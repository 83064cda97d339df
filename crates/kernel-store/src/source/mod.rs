//! Sources of kernels: a file per source, each with its [`KernelSource`].
//! A new source needs a file here, a line in [`of`], its keys in `kernels.toml` ([`Source`]) and its entry in the lock
//! ([`Locked`]).

mod deb;
mod git;
mod linux_source;
mod mainline;
mod path;

pub(crate) use deb::{Indexes, Wanted};
pub(crate) use linux_source::need_tools;
pub(crate) use path::install;

use crate::{
    cache::{Cache, Errand, Finished, Writing},
    config::{Debian, Kernel, Source},
    error::Result,
    lockfile::Locked,
};
use lab_protocol::KernelVersion;
use std::path::Path;

/// Settings of the project and this host that sources need.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    /// The cache of kernels.
    pub cache: &'a Cache,
    /// Mirrors.
    pub debian: &'a Debian,
    /// virtme-ng's `vng`.
    pub vng: &'a Path,
}

/// Version and identity of a kernel, determined without network access or other programs.
pub(crate) struct Bound {
    /// Version of the kernel.
    pub version: KernelVersion,
    /// Identity, which changes whenever the kernel does.
    pub sha256: String,
}

/// A kernel to fetch into the cache.
pub(crate) struct Job<'a> {
    pub site: &'a Site<'a>,
    pub writing: &'a Writing<'a>,
    pub kernel: &'a Kernel,
    pub locked: Option<&'a Locked>,
    pub bound: &'a Bound,
    pub progress: &'a dyn Fn(&str),
}

/// A source of kernels.
pub(crate) trait KernelSource {
    /// Whether `kernels.lock` has an entry for it. Files of this host have none, because the user may change them at
    /// any time.
    fn is_locked(&self) -> bool {
        true
    }

    /// Kind of work, which selects the lock: a download does not wait for a compiler.
    fn errand(&self) -> Errand {
        Errand::Fetch
    }

    /// The current version of the source; `None` if it is never locked.
    ///
    /// # Errors
    /// The source can't be reached, or has no such kernel.
    fn resolve(&self, site: &Site<'_>, indexes: &mut Indexes, progress: &dyn Fn(&str)) -> Result<Option<Locked>>;

    /// Version and identity of the kernel. Uses no network and starts no process.
    ///
    /// # Errors
    /// The lock has an entry of another kind, or a file can't be read.
    fn identity(&self, site: &Site<'_>, locked: Option<&Locked>) -> Result<Bound>;

    /// A hash of all files' content, which is the same on every host; `None` if the identity already is such a hash.
    ///
    /// # Errors
    /// A file can't be read.
    fn content(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Fetches the kernel into the cache.
    ///
    /// # Errors
    /// It no longer exists, its checksum is wrong, or it can't be unpacked, built or copied.
    fn fetch(&self, job: &Job<'_>) -> Result<Finished>;

    /// Unpacks the kernel's sources into an empty directory; returns false if it is not compiled from sources.
    ///
    /// # Errors
    /// The sources can't be fetched or unpacked.
    fn unpack(&self, _: &Site<'_>, _: Option<&Locked>, _: &Path, _: &dyn Fn(&str)) -> Result<bool> {
        Ok(false)
    }
}

impl Kernel {
    /// Whether the lab compiles it.
    pub fn is_built(&self) -> bool {
        of(&self.source).errand() == Errand::Build
    }
}

/// The implementation of a source in `kernels.toml`.
pub(crate) fn of(source: &Source) -> Box<dyn KernelSource + '_> {
    match source {
        Source::Deb { suite, package } => Box::new(deb::Deb { suite, package }),
        Source::LinuxSource { suite, package, fragment } => {
            Box::new(linux_source::LinuxSource { suite, package, fragment: fragment.as_deref() })
        }
        Source::Image { image, modules, config } => {
            Box::new(path::Local::from_image(image, modules.as_deref(), config.as_deref()))
        }
        Source::Tree { tree } => Box::new(path::Local::from_tree(tree)),
        Source::Git { tree, reference, fragment } => {
            Box::new(git::Git { tree, reference, fragment: fragment.as_deref() })
        }
        Source::Mainline { version } => Box::new(mainline::Prebuilt { version }),
    }
}
