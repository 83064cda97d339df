//! Prebuilt mainline kernels, downloaded by vng.

use super::{Bound, Job, KernelSource, Site, deb::Indexes, path::Local};
use crate::{
    cache::Finished,
    error::{KernelsError, Result},
    lockfile::Locked,
};
use lab_base::process;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A version that vng can download.
pub(super) struct Prebuilt<'a> {
    pub version: &'a str,
}

impl KernelSource for Prebuilt<'_> {
    fn resolve(&self, site: &Site<'_>, _: &mut Indexes, progress: &dyn Fn(&str)) -> Result<Option<Locked>> {
        let local = Mainline::new(site.vng, site.cache.root())?.download(self.version, progress)?;
        let (sha256, kernel) = (local.image_sha256()?, local.banner()?.version);
        Ok(Some(Locked::Mainline { version: self.version.to_owned(), sha256, kernel }))
    }

    fn identity(&self, _: &Site<'_>, locked: Option<&Locked>) -> Result<Bound> {
        let Some(Locked::Mainline { sha256, kernel, .. }) = locked else { return Err(KernelsError::Unlocked) };
        Ok(Bound { version: *kernel, sha256: sha256.clone() })
    }

    fn fetch(&self, job: &Job<'_>) -> Result<Finished> {
        let local = Mainline::new(job.site.vng, job.site.cache.root())?.download(self.version, job.progress)?;
        let found = local.image_sha256()?;
        if found != job.bound.sha256 {
            let what = format!("mainline {}", self.version);
            return Err(KernelsError::Checksum { what, found, locked: job.bound.sha256.clone() });
        }
        local.take(job.writing, job.kernel, &local.banner()?, &job.bound.sha256)
    }
}

/// vng and the directory of its downloads.
pub(crate) struct Mainline<'a> {
    pub vng: &'a Path,
    /// Its home directory.
    pub home: PathBuf,
}

impl<'a> Mainline<'a> {
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
