//! Kernels on this host: an image with its modules, or a built tree.

use super::{Bound, Job, KernelSource, Site, deb::Indexes};
use crate::{
    cache::{Finished, Writing, hex, sha256_of},
    config::Kernel,
    error::{KernelsError, Result},
    header::{self, Banner},
    lockfile::Locked,
    modules,
};
use lab_base::process;
use sha2::{Digest, Sha256};
use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

impl KernelSource for Local {
    fn is_locked(&self) -> bool {
        false
    }

    fn resolve(&self, _: &Site<'_>, _: &mut Indexes, _: &dyn Fn(&str)) -> Result<Option<Locked>> {
        Ok(None)
    }

    fn identity(&self, _: &Site<'_>, _: Option<&Locked>) -> Result<Bound> {
        Ok(Bound { version: self.banner()?.version, sha256: Self::identity(self)? })
    }

    fn fetch(&self, job: &Job<'_>) -> Result<Finished> {
        (job.progress)("copying into the cache");
        self.take(job.writing, job.kernel, &self.banner()?, &job.bound.sha256)
    }
}

/// The files of a kernel on this host.
pub(crate) struct Local {
    image: PathBuf,
    config: Option<PathBuf>,
    modules: Modules,
}

enum Modules {
    /// Everything is built in, or the user named none.
    None,
    Directory(PathBuf),
    /// A kernel tree, for `make modules_install`.
    Tree(PathBuf),
}

impl Local {
    /// An image with the other files that the user named.
    pub fn from_image(image: &Path, modules: Option<&Path>, config: Option<&Path>) -> Self {
        let modules = modules.map_or(Modules::None, |path| Modules::Directory(path.to_owned()));
        Self { image: image.to_owned(), config: config.map(Path::to_owned), modules }
    }

    /// The files of a built kernel tree.
    pub fn from_tree(tree: &Path) -> Self {
        let config = tree.join(".config");
        Self {
            image: tree.join("arch/x86/boot/bzImage"),
            config: Some(config),
            modules: Modules::Tree(tree.to_owned()),
        }
    }

    /// Version information of the image.
    ///
    /// # Errors
    /// The file does not exist or is not a kernel image.
    pub fn banner(&self) -> Result<Banner> {
        header::banner(&self.image)
    }

    /// SHA-256 of the image alone, the same on every host.
    ///
    /// # Errors
    /// The image can't be read.
    pub fn image_sha256(&self) -> Result<String> {
        sha256_of(&self.image)
    }

    /// Hash of the image and the modules. Modules are hashed by name, size and time, since a tree may have gigabytes of
    /// them.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn identity(&self) -> Result<String> {
        let mut hasher = Sha256::new();
        hasher.update(fs::read(&self.image).map_err(KernelsError::io(&self.image))?);
        let stamp = |path: &Path, hasher: &mut Sha256| -> Result<()> {
            let meta = fs::metadata(path).map_err(KernelsError::io(path))?;
            hasher.update(path.as_os_str().as_encoded_bytes());
            for part in [meta.len().cast_signed(), meta.mtime(), meta.mtime_nsec()] {
                hasher.update(part.to_le_bytes());
            }
            Ok(())
        };
        if let Some(config) = &self.config {
            stamp(config, &mut hasher)?;
        }
        match &self.modules {
            Modules::None => {}
            Modules::Directory(dir) => {
                for entry in walkdir::WalkDir::new(dir).sort_by_file_name() {
                    let entry = entry.map_err(|error| KernelsError::io(dir)(error.into()))?;
                    if entry.file_type().is_file() {
                        stamp(entry.path(), &mut hasher)?;
                    }
                }
            }
            Modules::Tree(tree) => {
                for module in modules_of(tree)? {
                    stamp(&tree.join(module), &mut hasher)?;
                }
            }
        }
        Ok(hex(hasher))
    }

    /// Copies all files into the cache, so that a later build can't change a kernel during a run.
    ///
    /// # Errors
    /// A file can't be copied, `make modules_install` or depmod fails, or the kernel does not belong to its class.
    pub fn take(&self, writing: &Writing<'_>, kernel: &Kernel, banner: &Banner, sha256: &str) -> Result<Finished> {
        let stage = writing.stage()?;
        let copy = |from: &Path, name: &str| modules::copy_file(from, &stage.path().join(name));
        copy(&self.image, "vmlinuz")?;
        if let Some(config) = &self.config {
            copy(config, "config")?;
        }
        match &self.modules {
            Modules::None => {}
            Modules::Directory(dir) => modules::copy(dir, stage.path(), &banner.release)?,
            Modules::Tree(tree) => install(tree, stage.path(), &banner.release)?,
        }
        modules::index(stage.path(), &banner.release)?;
        writing.finish(stage, kernel, banner.version, sha256)
    }
}

/// The modules in a tree's `modules.order`.
fn modules_of(tree: &Path) -> Result<Vec<PathBuf>> {
    let order = tree.join("modules.order");
    match fs::read_to_string(&order) {
        // Kernels before 6.2 list `.ko`, later ones `.o`.
        Ok(text) => Ok(text.lines().map(|line| Path::new(line).with_extension("ko")).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(KernelsError::io(order)(error)),
    }
}

/// Installs a tree's modules, or at least the list of built-in ones, where [`modules::index`] expects them.
///
/// # Errors
/// A file cannot be copied or `make modules_install` fails.
pub(crate) fn install(tree: &Path, stage: &Path, release: &str) -> Result<()> {
    if modules_of(tree)?.is_empty() {
        // Without modules there is nothing to install, but the list of built-in ones is still useful.
        let to = stage.join("root/lib/modules").join(release);
        fs::create_dir_all(&to).map_err(KernelsError::io(&to))?;
        for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
            let from = tree.join(name);
            if from.is_file() {
                modules::copy_file(&from, &to.join(name))?;
            }
        }
        return Ok(());
    }
    let mut path = OsString::from("INSTALL_MOD_PATH=");
    path.push(stage.join("root"));
    let args = ["-s".into(), "modules_install".into(), path, "INSTALL_MOD_STRIP=1".into(), "DEPMOD=true".into()];
    process::capture("make modules_install", "make", process::command("make", args).dir(tree))?;
    Ok(())
}
