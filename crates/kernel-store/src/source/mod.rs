//! Where kernels come from: a file per source, each with its [`KernelSource`].
//!
//! A new source is a file here and a line in [`of`], besides what `kernels.toml` says of it ([`Source`]) and what the lock keeps
//! of it ([`Locked`]).

mod deb;
mod git;
mod linux_source;
mod mainline;
mod path;

pub(crate) use deb::{Indexes, LockedPackage};
pub(crate) use linux_source::need_tools;
pub(crate) use path::install;

use crate::{
    cache::{Cache, CachedKernel, WritePurpose, Writing},
    config::{Debian, Kernel, Source},
    error::Result,
    lockfile::Locked,
};
use lab_protocol::KernelVersion;
use std::path::Path;

/// What sources need of the project and of this host.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    /// Where kernels are kept.
    pub cache: &'a Cache,
    /// Mirrors.
    pub debian: &'a Debian,
    /// virtme-ng's `vng`.
    pub vng: &'a Path,
}

/// What a kernel is bound to, known without network and processes.
pub(crate) struct Bound {
    /// Version of the kernel.
    pub version: KernelVersion,
    /// Changes whenever the kernel does.
    pub sha256: String,
}

/// A kernel that is to be brought into the cache.
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
    /// Whether `kernels.lock` binds it. What lies on this host changes under the person's hands.
    fn is_locked(&self) -> bool {
        true
    }

    /// What fetching is about: who downloads does not wait for a compiler.
    fn errand(&self) -> WritePurpose {
        WritePurpose::Fetch
    }

    /// What the source means today; none where it is never locked.
    ///
    /// # Errors
    /// The source can't be reached, or has no such kernel.
    fn resolve(&self, site: &Site<'_>, indexes: &mut Indexes, progress: &dyn Fn(&str)) -> Result<Option<Locked>>;

    /// What the kernel is bound to. Touches no network and starts no process.
    ///
    /// # Errors
    /// The lock holds something else, or a file can't be read.
    fn identity(&self, site: &Site<'_>, locked: Option<&Locked>) -> Result<Bound>;

    /// Changes with the bytes of all files, and is the same on every host; none where that holds of the identity.
    ///
    /// # Errors
    /// A file can't be read.
    fn content(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Brings the kernel into the cache.
    ///
    /// # Errors
    /// It has vanished, fails its checksum, or can't be unpacked, built or copied.
    fn fetch(&self, job: &Job<'_>) -> Result<CachedKernel>;

    /// Unpacks the sources that the kernel is compiled from into an empty directory; false where it comes as a binary.
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
        of(&self.source).errand() == WritePurpose::Build
    }
}

/// The implementation behind what `kernels.toml` names.
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
