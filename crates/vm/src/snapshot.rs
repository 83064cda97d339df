//! Snapshots of guests: their content, their storage, and their validation.
//!
//! A snapshot is a directory: the guest's memory as a file, the devices' state, the console of the boot, and
//! `snapshot.json` with the command line and the checksums. The memory is never copied: the guest that becomes the
//! snapshot runs on a shared mapping of the file, and every restored guest on a private mapping.
//!
//! A snapshot is created in a temporary directory and renamed when it is complete, and renamed before it is deleted, so
//! that no process sees a partial one. Its key covers everything that it depends on. Verifying the checksum of half a
//! gigabyte would take longer than the restore. Therefore it is skipped as long as the host has not been rebooted and
//! the files' metadata is unchanged; otherwise the checksums decide.

use super::{
    Accel, GuestSpec, Recipe, VmError,
    lock::SnapshotLock,
    orphans,
    seal::{Sealed, Stamp, boot_id, give_back_holes, read_through, seal},
};
use lab_base::{facts::Facts, file, hex::hex};
use lab_guard::private;
use nix::fcntl::posix_fallocate;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

/// Format version: increase it if snapshots of older versions must not be used.
const FORMAT: u32 = 2;
const MEMORY: &str = "memory";
const STATE: &str = "state";
const META: &str = "snapshot.json";
const CONSOLE: &str = "console.log";
/// Maximum number of snapshots: a matrix and a few builds of the agent. A snapshot takes about 200 MB.
const KEPT: usize = 16;
/// Younger snapshots are never removed: another run may be about to use them.
const YOUNG: Duration = Duration::from_secs(600);
/// Maximum number of consecutive restored guests that do not answer although their kernels are alive.
const MOST_DOUBTS: u32 = 3;
/// Disk space that must remain free when a snapshot is started, bytes.
const RESERVE: u64 = 256 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    format: u32,
    key: String,
    boot_id: String,
    recipe: Recipe,
    /// Duration of the boot, milliseconds; missing in older snapshots.
    #[serde(default)]
    boot_ms: Option<u64>,
    /// Number of consecutive restored guests that did not answer although their kernels were alive.
    #[serde(default)]
    doubts: u32,
    memory: Sealed,
    state: Sealed,
}

/// A complete snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    dir: PathBuf,
    /// How to start it.
    pub recipe: Recipe,
    /// Time from launch to Hello of the guest, if known: a measure of the host's speed.
    pub boot: Option<Duration>,
    /// Number of consecutive restored guests that did not answer although their kernels were alive.
    doubts: u32,
}

impl Snapshot {
    /// What it depends on, as a hash.
    pub fn key(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Path of the guest's memory.
    pub fn memory(&self) -> PathBuf {
        self.dir.join(MEMORY)
    }

    /// Path of the devices' state.
    pub fn state(&self) -> PathBuf {
        self.dir.join(STATE)
    }

    /// Path of the boot's console.
    pub fn console(&self) -> PathBuf {
        self.dir.join(CONSOLE)
    }
}

/// SHA-256 over everything that a snapshot of this guest depends on, hexadecimal. `words` is the launcher's command
/// line without values that differ between launches.
///
/// # Errors
/// [`VmError::File`] if the kernel or the image can't be read.
pub fn fingerprint(spec: &GuestSpec, words: &[String], facts: Option<&Facts>) -> Result<String, VmError> {
    fingerprint_on(Path::new("/"), spec, words, facts)
}

/// As [`fingerprint`], for a host whose `/proc` and `/sys` are below `root`.
fn fingerprint_on(root: &Path, spec: &GuestSpec, words: &[String], facts: Option<&Facts>) -> Result<String, VmError> {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(&FORMAT.to_le_bytes());
    add(spec.tools.as_bytes());
    words.iter().for_each(|word| add(word.as_bytes()));
    for (what, path) in [("kernel", &spec.kernel), ("guest image", &spec.image)] {
        let file = |cause| VmError::File { what, path: path.clone(), cause };
        let checksum = || {
            let mut content = Sha256::new();
            read_through(path, |bytes| content.update(bytes)).map_err(file)?;
            Ok(hex(&content.finalize()))
        };
        let checksum: Result<String, VmError> = match facts {
            Some(facts) => facts.of_files("SHA-256", &[path], checksum),
            None => checksum(),
        };
        add(checksum?.as_bytes());
    }
    if spec.accel == Accel::Kvm {
        processor(root).iter().for_each(|word| add(word.as_bytes()));
    }
    Ok(hex(&hash.finalize()))
}

/// Everything that determines the processor that a guest sees under KVM: the host's processor, its microcode, the
/// host's kernel, and KVM's parameters. A guest must not be restored on a host where they differ.
fn processor(root: &Path) -> Vec<String> {
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let cpu = read(root.join("proc/cpuinfo"));
    let told = ["model name", "microcode", "flags"];
    let cpu = told.into_iter().filter_map(|key| cpu.lines().find(|line| line.starts_with(key))).map(str::to_owned);
    let mut set: Vec<String> = ["kvm", "kvm_amd", "kvm_intel"]
        .into_iter()
        .flat_map(|module| fs::read_dir(root.join(format!("sys/module/{module}/parameters"))).into_iter().flatten())
        .flatten()
        .map(|parameter| format!("{}={}", parameter.path().display(), read(parameter.path())))
        .collect();
    set.sort();
    cpu.chain([read(root.join("proc/version"))]).chain(set).collect()
}

/// Result of a lookup in the store.
#[derive(Debug)]
pub enum Found {
    /// A valid snapshot.
    Whole(Snapshot),
    /// The snapshot was invalid and has been removed; one line with the reason.
    Damaged(String),
    /// There is no snapshot.
    Absent,
}

/// The snapshots in a cache.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    dir: PathBuf,
}

impl SnapshotStore {
    /// The store in `<cache>/snapshots`.
    pub fn below(cache: &Path) -> Self {
        Self { dir: cache.join("snapshots") }
    }

    /// Removes temporary files of runs that were killed while they created a snapshot.
    pub fn sweep(&self) {
        orphans::sweep(&self.dir);
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let left = entries.flatten().map(|entry| entry.path()).filter(|path| path.extension() == Some("lock".as_ref()));
        // Dropping a lock removes its file; locks that are held can't be taken.
        left.for_each(|path| drop(SnapshotLock::try_take(&path)));
    }

    /// Whether there is a snapshot, whole or not.
    pub fn has(&self, key: &str) -> bool {
        self.dir.join(key).is_dir()
    }

    /// Looks up a snapshot, and removes it if it is damaged.
    pub fn find(&self, key: &str) -> Found {
        let dir = self.dir.join(key);
        match open(&dir, key) {
            Ok(snapshot) => {
                self.touch(&snapshot);
                Found::Whole(snapshot)
            }
            Err(_) if !dir.exists() => Found::Absent,
            Err(problem) => {
                remove(&dir);
                Found::Damaged(problem.to_string())
            }
        }
    }

    /// Updates a snapshot's time of use, so that no other run removes it.
    pub fn touch(&self, snapshot: &Snapshot) {
        let _ = File::open(&snapshot.dir).and_then(|dir| dir.set_modified(SystemTime::now()));
    }

    /// Removes a useless snapshot.
    pub fn discard(&self, snapshot: &Snapshot) {
        remove(&snapshot.dir);
    }

    /// Records that a restored guest was alive but did not answer in time, as on a busy host. Removes the snapshot
    /// after too many consecutive cases; returns whether the snapshot still exists.
    pub fn doubt(&self, snapshot: &Snapshot) -> bool {
        let doubts = snapshot.doubts + 1;
        let kept = doubts < MOST_DOUBTS && note_doubts(&snapshot.dir, doubts).is_ok();
        if !kept {
            self.discard(snapshot);
        }
        kept
    }

    /// Records that a restored guest has answered.
    pub fn trust(&self, snapshot: &Snapshot) {
        if snapshot.doubts > 0 {
            // Errors are ignored: at worst the snapshot is created again too early.
            let _ = note_doubts(&snapshot.dir, 0);
        }
    }

    /// Takes the lock for creating the snapshot of this key; `None` if another run holds it.
    ///
    /// # Errors
    /// The cache can't be written.
    pub fn claim(&self, key: &str) -> Result<Option<Claim>, VmError> {
        fs::create_dir_all(&self.dir).map_err(|error| problem(&self.dir, &error))?;
        let path = self.dir.join(format!(".{key}.lock"));
        let lock = SnapshotLock::try_take(&path).map_err(|error| problem(&path, &error))?;
        Ok(lock.map(|lock| Claim { store: self.clone(), key: key.to_owned(), _lock: lock }))
    }

    /// Removes snapshots that were not used for the longest time.
    fn prune(&self) {
        self.by_age().into_iter().skip(KEPT).for_each(|(used, path)| remove_idle(used, &path));
    }

    /// Frees space by removing unused snapshots, oldest first; returns the free space, bytes.
    fn make_room(&self, wanted: u64) -> Result<u64, VmError> {
        for (used, path) in self.by_age().into_iter().rev() {
            if self.free()? >= wanted {
                break;
            }
            remove_idle(used, &path);
        }
        self.free()
    }

    fn free(&self) -> Result<u64, VmError> {
        let stat = nix::sys::statvfs::statvfs(&self.dir).map_err(|errno| problem(&self.dir, &errno))?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    /// The snapshots with their time of use, latest first.
    fn by_age(&self) -> Vec<(SystemTime, PathBuf)> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let snapshots = entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
        let aged = |entry: fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
        let mut snapshots: Vec<_> = snapshots.filter_map(aged).collect();
        snapshots.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        snapshots
    }
}

/// A lock for creating one snapshot; released on drop.
#[derive(Debug)]
pub struct Claim {
    store: SnapshotStore,
    key: String,
    _lock: SnapshotLock,
}

impl Claim {
    /// Allocates the whole memory file, so that a full disk is noticed now, and not when a guest writes to its memory.
    ///
    /// # Errors
    /// There is not enough space.
    pub fn begin(self, memory_mib: u32) -> Result<Draft, VmError> {
        let size = u64::from(memory_mib) << 20;
        let place = &self.store.dir;
        let free = self.store.make_room(size + RESERVE)?;
        if free < size + RESERVE {
            return Err(problem(place, &format!("{} MiB free, {} MiB needed", free >> 20, (size + RESERVE) >> 20)));
        }
        let stage = stage(place)?;
        let path = stage.path().join(MEMORY);
        let memory = File::create_new(&path).map_err(|error| problem(&path, &error))?;
        let length = i64::try_from(size).map_err(|error| problem(&path, &error))?;
        posix_fallocate(&memory, 0, length).map_err(|errno| problem(&path, &errno))?;
        Ok(Draft { claim: self, stage, memory_len: size })
    }
}

/// An incomplete snapshot; removed on drop.
#[derive(Debug)]
pub struct Draft {
    claim: Claim,
    stage: TempDir,
    memory_len: u64,
}

impl Draft {
    /// Path of the guest's memory file.
    pub fn memory(&self) -> PathBuf {
        self.stage.path().join(MEMORY)
    }

    /// The directory that becomes the snapshot, for what else is kept with it.
    pub fn directory(&self) -> &Path {
        self.stage.path()
    }

    /// Path for the devices' state.
    pub fn state(&self) -> PathBuf {
        self.stage.path().join(STATE)
    }

    /// Completes the snapshot; `console` is the file with the boot's console, and the last argument the time that the
    /// boot took.
    ///
    /// # Errors
    /// The cache can't be written.
    pub fn publish(self, recipe: Recipe, console: &Path, boot: Option<Duration>) -> Result<Snapshot, VmError> {
        let (store, key) = (&self.claim.store, &self.claim.key);
        let dir = store.dir.join(key);
        let publish = || -> io::Result<()> {
            fs::copy(console, self.stage.path().join(CONSOLE))?;
            if fs::metadata(self.memory())?.len() != self.memory_len {
                return Err(io::Error::other("the memory file has another size than the memory"));
            }
            give_back_holes(&self.memory())?;
            let meta = Meta {
                format: FORMAT,
                key: key.clone(),
                boot_id: boot_id()?,
                recipe: recipe.clone(),
                boot_ms: boot.and_then(|boot| boot.as_millis().try_into().ok()),
                doubts: 0,
                memory: seal(&self.memory())?,
                state: seal(&self.state())?,
            };
            fs::write(self.stage.path().join(META), serde_json::to_vec(&meta)?)?;
            fs::rename(self.stage.path(), &dir)
        };
        publish().map_err(|error| problem(&dir, &error))?;
        store.prune();
        Ok(Snapshot { dir, recipe, boot, doubts: 0 })
    }
}

/// A directory that is no snapshot which guests can be restored from, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UnusableSnapshot(String);

impl From<String> for UnusableSnapshot {
    fn from(why: String) -> Self {
        Self(why)
    }
}

pub(crate) fn open(dir: &Path, key: &str) -> Result<Snapshot, UnusableSnapshot> {
    let text = fs::read(dir.join(META)).map_err(|error| format!("{META}: {error}"))?;
    let mut meta: Meta =
        serde_json::from_slice(&text).map_err(|error| format!("{META}: {}", lab_base::text::reason(&error)))?;
    if meta.format != FORMAT || meta.key != key {
        return Err(format!("{META} belongs to another snapshot").into());
    }
    let boot_id = boot_id().map_err(|error| format!("boot id: {error}"))?;
    let mut believed = meta.boot_id == boot_id;
    for (name, sealed) in [(MEMORY, &meta.memory), (STATE, &meta.state)] {
        let stamp = Stamp::of(&dir.join(name)).map_err(|error| format!("{name}: {error}"))?;
        if stamp.length != sealed.stamp.length {
            return Err(format!("{name} has {} bytes instead of {}", stamp.length, sealed.stamp.length).into());
        }
        believed &= stamp == sealed.stamp;
    }
    if !believed {
        for (name, sealed) in [(MEMORY, &mut meta.memory), (STATE, &mut meta.state)] {
            let now = seal(&dir.join(name)).map_err(|error| format!("{name}: {error}"))?;
            if now.crc32 != sealed.crc32 {
                return Err(format!("the checksum of {name} is wrong").into());
            }
            *sealed = now;
        }
        meta.boot_id = boot_id;
        // Errors are ignored: without the new stamp the checksums are verified again.
        let _ = rewrite(dir, &meta);
    }
    let boot = meta.boot_ms.map(Duration::from_millis);
    Ok(Snapshot { dir: dir.to_owned(), recipe: meta.recipe, boot, doubts: meta.doubts })
}

fn note_doubts(dir: &Path, doubts: u32) -> io::Result<()> {
    let meta: Meta = serde_json::from_slice(&fs::read(dir.join(META))?)?;
    rewrite(dir, &Meta { doubts, ..meta })
}

fn rewrite(dir: &Path, meta: &Meta) -> io::Result<()> {
    file::replace(&dir.join(META), &serde_json::to_vec(meta)?)
}

fn stage(parent: &Path) -> Result<TempDir, VmError> {
    Ok(private::temporary(&format!(".{}", orphans::mark()?), parent)?)
}

/// Removes a snapshot unless another run may be about to use it.
fn remove_idle(used: SystemTime, dir: &Path) {
    if used.elapsed().is_ok_and(|age| age > YOUNG) {
        remove(dir);
    }
}

/// Renames it first, so that no process sees a partial snapshot.
fn remove(dir: &Path) {
    let parent = dir.parent().unwrap_or(Path::new("."));
    let Ok(grave) = stage(parent) else { return };
    let _ = fs::rename(dir, grave.path().join("gone"));
}

fn problem(path: &Path, error: &dyn std::fmt::Display) -> VmError {
    VmError::Snapshot(format!("{}: {error}", path.display()))
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
