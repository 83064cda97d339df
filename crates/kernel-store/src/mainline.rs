//! Prebuilt mainline kernels, downloaded by vng.

use super::{
    error::{KernelsError, Result},
    local::Local,
};
use lab_base::process;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// vng and its download directory.
pub(super) struct Mainline<'a> {
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
        // vng takes no other place.
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
                    "should hold exactly one vmlinuz-* for {version}: remove the directory and fetch again"
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
