//! Prebuilt mainline kernels, downloaded by vng.

use super::{
    Bound, ConfiguredSource, Indexes, Job, KernelSource, LockEntry, Locked, Site, SourceTable, checksum, path::Local,
};
use crate::{
    cache::CachedKernel,
    error::{KernelsError, Result},
};
use lab_base::{process, strict_toml::ConfigError};
use lab_protocol::KernelVersion;
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// `source.mainline`: a prebuilt kernel that vng downloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mainline {
    /// `v6.12.43`.
    pub version: String,
}

/// A prebuilt mainline kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedMainline {
    /// Version in vng's format.
    pub version: String,
    /// SHA-256 of the image, hexadecimal.
    #[serde(deserialize_with = "checksum")]
    pub sha256: String,
    /// Version in the image.
    pub kernel: KernelVersion,
}

impl ConfiguredSource for Mainline {
    const KEYS: &'static [&'static str] = &["version"];

    fn read(table: &SourceTable<'_>) -> std::result::Result<Self, ConfigError> {
        let version = table.table.required("version")?;
        if !is_mainline_tag(version) {
            let message = format!("{version:?} in {} must look like v6.12.43 or v6.12-rc1", table.kernel);
            return Err(table.table.error_at("version", message));
        }
        Ok(Self { version: version.to_owned() })
    }
}

/// A version as vng understands it; `vng --run` would take other text as the path of an image.
fn is_mainline_tag(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let release = text.strip_prefix('v').map(|rest| rest.split_once("-rc").unwrap_or((rest, "0")));
    release.is_some_and(|(numbers, candidate)| {
        numbers.split('.').all(digits) && digits(candidate) && numbers.parse::<KernelVersion>().is_ok()
    })
}

impl fmt::Display for Mainline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mainline {}", self.version)
    }
}

impl fmt::Display for LockedMainline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mainline {}", self.version)
    }
}

impl LockEntry for LockedMainline {
    fn kernel(&self) -> KernelVersion {
        self.kernel
    }
}

impl KernelSource for Mainline {
    fn promised(&self) -> Option<KernelVersion> {
        self.version.parse().ok()
    }

    fn is_resolved_by(&self, locked: &Locked) -> bool {
        matches!(locked, Locked::Mainline(it) if it.version == self.version)
    }

    fn resolve(&self, site: &Site<'_>, _: &mut Indexes, progress: &dyn Fn(&str)) -> Result<Option<Locked>> {
        let local = Vng::new(site.vng, site.cache.root())?.download(&self.version, progress)?;
        let (sha256, kernel) = (local.image_sha256()?, local.banner()?.version);
        Ok(Some(Locked::Mainline(LockedMainline { version: self.version.clone(), sha256, kernel })))
    }

    fn identity(&self, _: &Site<'_>, locked: Option<&Locked>) -> Result<Bound> {
        let Some(Locked::Mainline(locked)) = locked else { return Err(KernelsError::Unlocked) };
        Ok(Bound { version: locked.kernel, sha256: locked.sha256.clone() })
    }

    fn fetch(&self, job: &Job<'_>) -> Result<CachedKernel> {
        let local = Vng::new(job.site.vng, job.site.cache.root())?.download(&self.version, job.progress)?;
        let found = local.image_sha256()?;
        if found != job.bound.sha256 {
            return Err(KernelsError::Checksum { what: self.to_string(), found, locked: job.bound.sha256.clone() });
        }
        local.take(job.writing, job.target, &local.banner()?, &job.bound.sha256)
    }
}

/// vng and the directory of its downloads.
pub(crate) struct Vng<'a> {
    pub vng: &'a Path,
    /// Its home directory.
    pub home: PathBuf,
}

impl<'a> Vng<'a> {
    /// Uses vng's default directory.
    ///
    /// # Errors
    /// The cache can't be written.
    pub fn new(vng: &'a Path, cache: &Path) -> Result<Self> {
        Ok(Self { vng, home: process::vng_home(cache)? })
    }

    /// Lets vng download a version, unless it is already there. `--dry-run` downloads but starts no guest.
    ///
    /// # Errors
    /// vng fails, or has no such version.
    pub fn download(&self, version: &str, progress: &dyn Fn(&str)) -> Result<Local> {
        // The directory of vng's downloads can't be configured otherwise.
        let dir = self.home.join(".cache/virtme-ng").join(version).join("amd64");
        if files(&dir.join("boot"), "vmlinuz-").is_empty() {
            progress(&format!("vng is downloading mainline {version}"));
            let command = process::vng(self.vng, &self.home, ["--run", version, "--dry-run"]);
            process::capture(&format!("vng --run {version} --dry-run"), "virtme-ng", command)?;
        }
        let boot = dir.join("boot");
        let [image] = &*files(&boot, "vmlinuz-") else {
            return Err(KernelsError::BadKernel {
                path: boot,
                reason: format!(
                    "must contain exactly one vmlinuz-* for {version}: remove the directory and fetch again"
                ),
            });
        };
        // Directory and image are named after the release; newer packages have them in usr.
        let release = image.file_name().and_then(|name| name.to_str()?.strip_prefix("vmlinuz-")).unwrap_or_default();
        let modules = ["lib/modules", "usr/lib/modules"].map(|path| dir.join(path).join(release));
        let modules = modules.iter().find(|path| path.is_dir());
        let config = boot.join(format!("config-{release}"));
        Ok(Local::from_image(image, modules.map(PathBuf::as_path), config.is_file().then_some(&*config)))
    }
}

fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()));
    named.map(|entry| entry.path()).collect()
}

#[cfg(test)]
#[path = "mainline_tests.rs"]
mod tests;
