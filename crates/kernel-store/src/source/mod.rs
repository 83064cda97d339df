//! Sources of kernels: a file per source, with its keys in `kernels.toml`, its entry in `kernels.lock`, and its
//! [`KernelSource`].
//!
//! A new source is a file here, and two lines below: its `mod` and its line in `sources!`.

mod apt;
mod deb;
mod git;
mod indexes;
mod linux_source;
mod mainline;
mod oci;
mod path;
mod rpm;

pub(crate) use apt::AptArchive;
#[cfg(test)]
pub(crate) use deb::{LockedDeb, PackagePart};
pub(crate) use deb::{LockedPackage, of_suite};
#[cfg(test)]
pub(crate) use git::{GitCommit, LockedCommit};
pub(crate) use indexes::Indexes;
#[cfg(test)]
pub(crate) use linux_source::LinuxSource;
pub(crate) use linux_source::{build_options, need_configuration_tools, need_tools};
pub use path::LocalKernel;
pub(crate) use path::install;

use crate::{
    cache::{Cache, CachedKernel, Target, WritePurpose, Writing},
    debian::Debian,
    error::{KernelsError, Result},
    recipe::BuildOptions,
};
use lab_base::{
    arch::Architecture,
    strict_toml::{ConfigError, Section},
};
use lab_protocol::KernelVersion;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Makes [`Source`] and [`Locked`] of the list of all sources: variant, name in both files, type, and type of the
/// lock's entry.
macro_rules! sources {
    ($($variant:ident: $name:literal, $source:ty, $locked:ty;)+) => {
        /// The source of a kernel, as `kernels.toml` states it.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Source {
            $(#[doc = concat!("`source.", $name, "`")] $variant($source),)+
        }

        /// The resolved source of a kernel: its entry in `kernels.lock`.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "source")]
        pub enum Locked {
            $(#[doc = concat!("`source = \"", $name, "\"`")] #[serde(rename = $name)] $variant($locked),)+
        }

        const NAMES: &[&str] = &[$($name),+];

        impl Source {
            /// The implementation of the source.
            pub(crate) fn get(&self) -> &dyn KernelSource {
                match self {
                    $(Self::$variant(source) => source,)+
                }
            }

            /// Reads the table of the source called `name`; none where there is no such source.
            fn named(name: &str, all: &Section<'_>, kernel: &str, dir: &Path) -> std::result::Result<Option<Self>, ConfigError> {
                match name {
                    $($name => {
                        let title = format!("`{name}` source of {kernel}");
                        let table = all.section(name, title, <$source as ConfiguredSource>::KEYS)?;
                        let table = SourceTable { table: table.ok_or_else(|| all.missing(name))?, all, name, kernel, dir };
                        <$source as ConfiguredSource>::read(&table).map(|source| Some(Self::$variant(source)))
                    })+
                    _ => Ok(None),
                }
            }
        }

        impl Locked {
            /// The entry itself.
            pub(crate) fn get(&self) -> &dyn LockEntry {
                match self {
                    $(Self::$variant(entry) => entry,)+
                }
            }
        }
    };
}

sources! {
    Deb: "deb", deb::Deb, deb::LockedDeb;
    Apt: "apt", apt::AptArchive, apt::LockedApt;
    Rpm: "rpm", rpm::RpmRepository, rpm::LockedRpm;
    Oci: "oci", oci::OciImage, oci::LockedOci;
    LinuxSource: "linux-source", linux_source::LinuxSource, linux_source::LockedSources;
    Path: "path", path::LocalKernel, path::NeverLocked;
    Git: "git", git::GitCommit, git::LockedCommit;
    Mainline: "mainline", mainline::Mainline, mainline::LockedMainline;
}

impl Source {
    /// Reads `source` of a kernel's table. `kernel` is its name in messages, `dir` the base of relative paths.
    pub(crate) fn read(section: &Section<'_>, kernel: &str, dir: &Path) -> std::result::Result<Self, ConfigError> {
        let all = section.section("source", format!("`source` of {kernel}"), NAMES)?;
        let all = all.ok_or_else(|| section.missing("source"))?;
        let mut names = all.keys();
        let source = match (names.next(), names.next()) {
            (Some(name), None) => Self::named(name, &all, kernel, dir)?,
            _ => None,
        };
        source.ok_or_else(|| {
            let message = format!("`source` of {kernel} must have exactly one of: {}", NAMES.join(", "));
            section.error_at("source", message)
        })
    }
}

impl Source {
    /// The same kernel compiled with more; `None` if the lab can't compile it, or not so.
    pub(crate) fn rebuilt(&self, with: &BuildOptions) -> Option<Self> {
        match self {
            // Debian builds image and sources from one source package: the sources of the same series in the same suite.
            Self::Deb(deb) if deb.arch.is_own() => Some(Self::LinuxSource(linux_source::LinuxSource {
                suite: deb.suite.clone(),
                package: format!("linux-source-{}", deb.series()?),
                options: with.clone(),
                patch: None,
            })),
            Self::LinuxSource(source) => Some(Self::LinuxSource(source.with(with))),
            Self::Git(commit) if !with.has_modules() => Some(Self::Git(commit.with(&with.fragments))),
            _ => None,
        }
    }

    /// The suite of a package of an apt archive.
    pub(crate) fn suite_of_archive(&self, archive: &str) -> Option<&str> {
        match self {
            Self::Apt(source) if source.archive == archive => Some(&source.suite),
            _ => None,
        }
    }

    /// The suite of a package of Debian's own archive.
    pub(crate) fn suite_of_debian(&self) -> Option<&str> {
        match self {
            Self::Deb(source) => Some(&source.suite),
            _ => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// The table of a source in `kernels.toml`, and what errors about it name.
pub(crate) struct SourceTable<'a> {
    pub table: Section<'a>,
    /// The table's name in messages: `[kernels."6.12"]`.
    pub kernel: &'a str,
    all: &'a Section<'a>,
    name: &'a str,
    pub dir: &'a Path,
}

impl SourceTable<'_> {
    /// A path, relative to the directory of `kernels.toml`.
    pub fn path(&self, key: &str) -> std::result::Result<Option<PathBuf>, ConfigError> {
        Ok(self.table.text(key)?.map(|path| self.dir.join(path)))
    }

    /// An error about the table as a whole.
    pub fn error(&self, message: String) -> ConfigError {
        self.all.error_at(self.name, message)
    }
}

/// How `kernels.toml` writes a source.
pub(crate) trait ConfiguredSource: KernelSource + Sized {
    /// The keys of its table; another one is an error.
    const KEYS: &'static [&'static str];

    /// Reads its table.
    ///
    /// # Errors
    /// A value is missing or invalid.
    fn read(table: &SourceTable<'_>) -> std::result::Result<Self, ConfigError>;
}

/// What `kernels.lock` keeps of a source. Its text names version and origin for a person.
pub(crate) trait LockEntry: fmt::Display {
    /// Version of the kernel.
    fn kernel(&self) -> KernelVersion;

    /// Whether it is an older package than that of an earlier entry of the same archive, whose versions only rise.
    ///
    /// # Errors
    /// The versions can't be compared.
    fn is_older_than(&self, _before: &Locked) -> Result<bool> {
        Ok(false)
    }

    /// What has changed since an earlier entry with the same text.
    fn difference(&self, _before: &Locked) -> String {
        "the same version with a different checksum".to_owned()
    }
}

/// Reads hexadecimal digits: parts of a checksum become names of directories.
pub(crate) fn checksum<'de, D: serde::Deserializer<'de>>(input: D) -> std::result::Result<String, D::Error> {
    let text = String::deserialize(input)?;
    let is_hex = !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { Ok(text) } else { Err(serde::de::Error::custom(format!("{text:?} is not a hexadecimal checksum"))) }
}

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

/// Version and identity of a kernel, determined without network access.
pub(crate) struct Bound {
    /// Version of the kernel.
    pub version: KernelVersion,
    /// Identity, which changes whenever the kernel does.
    pub sha256: String,
}

/// Packages of one version in a suite.
pub(crate) struct Packages<'a> {
    pub suite: &'a str,
    pub arch: Architecture,
    pub version: &'a str,
    pub names: Vec<&'a str>,
}

/// A kernel to fetch into the cache.
pub(crate) struct Job<'a> {
    pub site: &'a Site<'a>,
    pub writing: &'a Writing<'a>,
    pub target: &'a Target,
    pub locked: Option<&'a Locked>,
    pub bound: &'a Bound,
    pub progress: &'a dyn Fn(&str),
}

/// A source of kernels. Its text is the source as a person would name it: `deb linux-image-6.12 (trixie)`.
pub(crate) trait KernelSource: fmt::Display {
    /// The version that follows from the configuration alone, if any.
    fn promised(&self) -> Option<KernelVersion> {
        None
    }

    /// The architecture of the kernel.
    fn architecture(&self) -> Architecture {
        Architecture::default()
    }

    /// Whether `kernels.lock` binds it. Files on this host are not bound: the user changes them.
    fn is_locked(&self) -> bool {
        true
    }

    /// Whether it is a published binary that `lab bisect` steps over without being asked.
    fn is_published(&self) -> bool {
        false
    }

    /// What fetching is: a download does not wait for a compiler.
    fn purpose(&self) -> WritePurpose {
        WritePurpose::Fetch
    }

    /// Whether an entry of the lock is one for this source, and not for what `kernels.toml` said before.
    fn is_resolved_by(&self, locked: &Locked) -> bool;

    /// The current version of the source; `None` if it is never locked.
    ///
    /// # Errors
    /// The source can't be reached, or has no such kernel.
    fn resolve(&self, site: &Site<'_>, indexes: &mut Indexes, progress: &dyn Fn(&str)) -> Result<Option<Locked>>;

    /// Version of the kernel. Uses no network and starts no process.
    ///
    /// # Errors
    /// The lock has an entry of another kind, or a file can't be read.
    fn version(&self, site: &Site<'_>, locked: Option<&Locked>) -> Result<KernelVersion> {
        self.identity(site, locked).map(|bound| bound.version)
    }

    /// Version and identity of the kernel. Uses no network; that of a kernel from sources depends on the compiler, which is asked
    /// for its version.
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

    /// The archive's packages that fetching downloads; `None` if it downloads none.
    fn packages<'b>(&'b self, _locked: Option<&'b Locked>) -> Option<Packages<'b>> {
        None
    }

    /// Fetches the kernel into the cache.
    ///
    /// # Errors
    /// It no longer exists, its checksum is wrong, or it can't be unpacked, built or copied.
    fn fetch(&self, job: &Job<'_>) -> Result<CachedKernel>;

    /// Unpacks the kernel's sources into an empty directory; returns false if it is not compiled from sources.
    ///
    /// # Errors
    /// The sources can't be fetched or unpacked.
    fn unpack(&self, _: &Site<'_>, _: Option<&Locked>, _: &Path, _: &dyn Fn(&str)) -> Result<bool> {
        Ok(false)
    }

    /// The changelog of the locked package.
    ///
    /// # Errors
    /// It is no package, can't be fetched, or has none.
    fn changelog(&self, _: &Site<'_>, _: &Locked, _: &dyn Fn(&str)) -> Result<String> {
        Err(KernelsError::Archive { archive: self.to_string(), reason: "only packages have changelogs".to_owned() })
    }
}
