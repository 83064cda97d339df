//! The directory of unpacked kernels: they are written under a lock, renamed when complete, and checked on every use.

use super::{
    class::ClassRule,
    error::{KernelsError, Result},
    header,
};
use lab_base::{arch::Architecture, facts::Facts, interrupt::Interrupt};
use lab_guard::{
    Id,
    private::{self, Untrusted},
};
use lab_protocol::KernelVersion;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

/// Interval at which a lock of another run is tried again.
const POLL: Duration = Duration::from_millis(50);

/// Purpose of a write. Each purpose has its own lock and temporary directories, so that fetching a package never waits
/// for a compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WritePurpose {
    /// Downloading or copying.
    Fetch,
    /// Compiling a kernel: it uses all processors, and takes up to hours.
    Build,
    /// Compiling programs in unpacked sources, in minutes.
    Programs,
}

impl WritePurpose {
    const fn lock(self) -> &'static str {
        match self {
            Self::Fetch => ".lock",
            Self::Build => ".lock-build",
            Self::Programs => ".lock-programs",
        }
    }

    const fn stage(self) -> &'static str {
        match self {
            Self::Fetch => ".stage-",
            Self::Build => ".build-",
            Self::Programs => ".programs-",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Fetch => "waiting for another lab run that is fetching kernels",
            Self::Build => "waiting for another lab run that is building a kernel",
            Self::Programs => "waiting for another lab run that is building the programs of selftests",
        }
    }
}

/// A kernel of the matrix, as far as it matters for what is written.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub id: Id,
    /// The source as text.
    pub origin: String,
    /// What its version must be.
    pub rule: ClassRule,
    pub architecture: Architecture,
}

impl Target {
    /// Refuses a version that does not belong to the class.
    pub fn check(&self, version: KernelVersion) -> Result<()> {
        if self.rule.fits(version) {
            return Ok(());
        }
        Err(KernelsError::WrongClass { version, class: self.rule.class.clone() })
    }
}

/// The directory of unpacked kernels.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    /// Takes a shared lock while this process uses the cache; `None` if the cache is not writable.
    used: Option<Arc<File>>,
}

impl Cache {
    /// Opens the directory [`lab_base::paths::cache_dir`].
    ///
    /// # Errors
    /// There is no such directory, or it can't be created.
    pub fn open() -> Result<Self> {
        Self::at(lab_base::paths::cache_dir()?)
    }

    /// Opens a cache at the given path.
    ///
    /// # Errors
    /// The path is relative or has characters that the configuration of apt or vng does not support, the directory
    /// can't be created, or other users can write to it.
    pub fn at(root: PathBuf) -> Result<Self> {
        if !root.is_absolute() {
            return Err(KernelsError::BadCache { path: root });
        }
        lab_base::paths::usable(&root)?;
        private::keep(&root).map_err(|error| match error {
            Untrusted::Io { error, .. } => unwritable(&root)(error),
            other => other.into(),
        })?;
        fs::create_dir_all(root.join("kernels")).map_err(unwritable(&root))?;
        let used = File::options().create(true).append(true).open(root.join("in-use.lock")).ok();
        let used = used.filter(|file| file.lock_shared().is_ok()).map(Arc::new);
        Ok(Self { root, used })
    }

    /// Path of the directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// An exclusive lock for removing entries; `None` while another lab process uses the cache.
    pub fn alone(&self) -> Option<Alone<'_>> {
        let file = self.used.as_deref()?;
        if file.try_lock().is_err() {
            // Linux releases a lock while converting it (flock(2)).
            let _ = file.lock_shared();
            return None;
        }
        Some(Alone(file))
    }

    /// The unpacked kernel with this identity, if it exists and is complete.
    pub(super) fn find(&self, id: &str, version: KernelVersion, sha256: &str) -> Option<CachedKernel> {
        let facts = Facts::below(&self.root);
        let finished = CachedKernel::read(&self.place(id, version, sha256), Some(&facts))?;
        (finished.meta.sha256 == sha256 && finished.meta.id == id).then_some(finished)
    }

    fn place(&self, id: &str, version: KernelVersion, sha256: &str) -> PathBuf {
        let short = &sha256[..sha256.len().min(12)];
        self.root.join("kernels").join(format!("{id}-{version}-{short}"))
    }

    /// Waits until no other run writes for the same purpose, then removes temporary files of killed runs.
    ///
    /// # Errors
    /// The lock file can't be used, or temporary files can't be removed.
    pub(super) fn write(&self, purpose: WritePurpose, progress: &dyn Fn(&str)) -> Result<Writing<'_>> {
        let path = self.root.join("kernels").join(purpose.lock());
        let file = File::options().create(true).append(true).open(&path).map_err(unwritable(&self.root))?;
        let mut refusals = 0;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Interrupt::raised().is_some() => {
                    return Err(KernelsError::Interrupted { what: purpose.words().to_owned() });
                }
                Err(TryLockError::WouldBlock) => {
                    refusals += 1;
                    // At the first one the holder may be a child of this process, which has the lock from fork to exec.
                    if refusals == 2 {
                        progress(purpose.words());
                    }
                    std::thread::sleep(POLL);
                }
                Err(TryLockError::Error(error)) => return Err(KernelsError::io(&path)(error)),
            }
        }
        let writing = Writing { cache: self, purpose, lock: file };
        writing.clear_leftovers()?;
        Ok(writing)
    }
}

/// The error for a cache in which nothing can be created.
fn unwritable(root: &Path) -> impl FnOnce(io::Error) -> KernelsError {
    let path = root.to_owned();
    move |error| match error.kind() {
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => KernelsError::Unwritable { path, error },
        _ => KernelsError::io(path)(error),
    }
}

/// An exclusive lock of the cache, for removing entries; released on drop.
#[derive(Debug)]
pub struct Alone<'a>(&'a File);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let _ = self.0.lock_shared();
    }
}

/// A lock for writing into the cache; released on drop.
pub(super) struct Writing<'a> {
    cache: &'a Cache,
    purpose: WritePurpose,
    lock: File,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // A child that another thread has forked holds a copy of the descriptor, and with it the lock, until it executes its
        // program (flock(2)).
        let _ = self.lock.unlock();
    }
}

impl Writing<'_> {
    /// The cache's directory.
    pub fn root(&self) -> &Path {
        self.cache.root()
    }

    /// Only the holder of the lock has temporary directories, so all existing ones belong to killed runs.
    fn clear_leftovers(&self) -> Result<()> {
        let dir = self.root().join("kernels");
        for entry in fs::read_dir(&dir).map_err(KernelsError::io(&dir))? {
            let entry = entry.map_err(KernelsError::io(&dir))?;
            if entry.file_name().as_encoded_bytes().starts_with(self.purpose.stage().as_bytes()) {
                fs::remove_dir_all(entry.path()).map_err(KernelsError::io(entry.path()))?;
            }
        }
        Ok(())
    }

    /// An empty temporary directory on the cache's file system; removed on drop unless it is finished.
    pub fn stage(&self) -> Result<TempDir> {
        let dir = self.root().join("kernels");
        Ok(private::temporary(self.purpose.stage(), &dir)?)
    }

    /// Checks that the disk has `need` bytes of free space.
    pub fn reserve(&self, need: u64) -> Result<()> {
        reserve(self.root(), need)
    }

    /// Moves a temporary directory with `vmlinuz`, `modules/` and optionally `config` into the cache.
    ///
    /// # Errors
    /// The image is invalid, its version or class differs from `kernels.toml`, or it can't be moved.
    pub fn finish(
        &self,
        stage: TempDir,
        target: &Target,
        version: KernelVersion,
        sha256: &str,
    ) -> Result<CachedKernel> {
        let image = stage.path().join("vmlinuz");
        let banner = header::banner(&image, target.architecture)?;
        if banner.version != version {
            let reason = format!("is kernel {}, but {version} was expected", banner.version);
            return Err(KernelsError::BadKernel { path: image, reason });
        }
        target.check(banner.version)?;
        let meta = Meta {
            id: target.id.to_string(),
            release: banner.release,
            version: banner.version,
            origin: target.origin.clone(),
            sha256: sha256.to_owned(),
            image_sha256: sha256_of(&image)?,
            image_size: fs::metadata(&image).map_err(KernelsError::io(&image))?.len(),
        };
        let path = stage.path().join("meta.toml");
        let text = toml::to_string(&meta).map_err(|error| KernelsError::io(&path)(io::Error::other(error)))?;
        fs::write(&path, text).map_err(KernelsError::io(&path))?;
        let place = self.cache.place(&target.id, meta.version, sha256);
        if place.exists() {
            // An existing directory has been checked before, and is damaged.
            fs::remove_dir_all(&place).map_err(KernelsError::io(&place))?;
        }
        fs::rename(stage.keep(), &place).map_err(KernelsError::io(&place))?;
        Ok(CachedKernel { dir: place, meta })
    }
}

/// Checks that a directory's disk has `need` bytes of free space.
///
/// # Errors
/// There is less.
pub(super) fn reserve(path: &Path, need: u64) -> Result<()> {
    let stat = nix::sys::statvfs::statvfs(path).map_err(|errno| KernelsError::io(path)(errno.into()))?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    if free < need {
        let need = format!(" ({} MiB free, {} MiB needed)", free >> 20, need.div_ceil(1 << 20));
        return Err(KernelsError::NoSpace { path: path.to_owned(), need });
    }
    Ok(())
}

/// `meta.toml` of an unpacked kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub id: String,
    /// `uname -r`.
    pub release: String,
    /// The upstream version behind the distribution's numbering.
    pub version: KernelVersion,
    /// The source as text.
    pub origin: String,
    /// Identity: the hash of the package, or of what it was built or copied from.
    pub sha256: String,
    /// Hash of `vmlinuz`.
    pub image_sha256: String,
    /// Size of `vmlinuz`, bytes.
    pub image_size: u64,
}

/// An unpacked kernel in the cache.
pub(super) struct CachedKernel {
    pub dir: PathBuf,
    pub meta: Meta,
}

impl CachedKernel {
    /// `None` if anything is missing, or if the image was changed. With `facts`, an image that has not been touched since it was read
    /// is not read again.
    pub fn read(dir: &Path, facts: Option<&Facts>) -> Option<Self> {
        let meta: Meta = toml::from_str(&fs::read_to_string(dir.join("meta.toml")).ok()?).ok()?;
        let image = dir.join("vmlinuz");
        let whole = fs::metadata(&image).ok()?.len() == meta.image_size
            && dir.join("modules/modules.dep").is_file()
            && match facts {
                Some(facts) => facts.of_files("SHA-256", &[&image], || sha256_of(&image)),
                None => sha256_of(&image),
            }
            .ok()?
                == meta.image_sha256;
        whole.then(|| Self { dir: dir.to_owned(), meta })
    }
}

/// SHA-256 of a file, hexadecimal.
pub fn sha256_of(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut file = lab_guard::bounded::open(path).map_err(KernelsError::io(path))?;
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer).map_err(KernelsError::io(path))? {
            0 => return Ok(hex(hasher)),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Formats a finished hash, hexadecimal.
pub(super) fn hex(hasher: Sha256) -> String {
    lab_base::hex::hex(&hasher.finalize())
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
