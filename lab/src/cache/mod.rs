//! The cache as a whole: its entries, and one rule for removing them.
//! Everything in the cache can be fetched or built again. Most entries are never used again after their inputs change,
//! for example when a kernel of this host is rebuilt. Therefore each use of an entry updates its time stamp; entries
//! that were not used for a long time are removed, and if the cache is too large also the least recently used ones.

mod policy;

pub use policy::{CachePolicy, PruneDecision, judge};

use crate::error::Error;
use lab_base::git::git;
use lab_kernel_store::Cache;
use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Kind of an entry. Its name is the name of its directory, also shown by `lab cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheKind {
    /// Unpacked kernels.
    Kernels,
    /// Guest images, and kernels unpacked for a direct start.
    Images,
    /// Snapshots of booted guests.
    Snapshots,
    /// Worktrees and built commits of bisections.
    Bisect,
    /// Worktrees of kernels that come from git.
    Trees,
    /// Package indexes.
    Apt,
    /// Built programs for guests, of read-only projects.
    Build,
    /// Downloads of virtme-ng.
    VngHome,
    /// Roots of foreign programs, unpacked.
    Roots,
    /// Sources of kernels, for their selftests.
    Sources,
    /// Programs that `lab setup` installed.
    Tools,
}

impl CacheKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Kernels,
        Self::Images,
        Self::Snapshots,
        Self::Bisect,
        Self::Trees,
        Self::Apt,
        Self::Build,
        Self::VngHome,
        Self::Roots,
        Self::Sources,
        Self::Tools,
    ];

    /// Its directory below the cache.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernels => "kernels",
            Self::Images => "images",
            Self::Snapshots => "snapshots",
            Self::Bisect => "bisect",
            Self::Trees => "trees",
            Self::Apt => "apt",
            Self::Build => "build",
            Self::VngHome => "vng-home",
            Self::Roots => crate::world::unpack::DIRECTORY,
            Self::Sources => lab_kernel_store::SOURCES,
            Self::Tools => "tools",
        }
    }

    /// Short description.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Kernels => "unpacked kernels",
            Self::Images => "guest images",
            Self::Snapshots => "snapshots of booted guests",
            Self::Bisect => "commits built by bisections, and their checkouts",
            Self::Trees => "checkouts of kernels from git",
            Self::Apt => "package indexes",
            Self::Build => "programs for guests, of read-only projects",
            Self::VngHome => "downloads of virtme-ng",
            Self::Tools => "tools that `lab setup` installed; never removed",
            Self::Roots => "unpacked roots of foreign programs",
            Self::Sources => "sources of kernels, for their selftests",
        }
    }

    /// Whether the policy may remove it.
    pub const fn removable(self) -> bool {
        !matches!(self, Self::Tools)
    }
}

/// An entry, which is kept or removed as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// Its kind.
    pub kind: CacheKind,
    /// Its path relative to the cache.
    pub name: String,
    /// Its absolute path.
    pub path: PathBuf,
    /// Size on the disk, bytes.
    pub size: u64,
    /// When it was last used.
    pub used: SystemTime,
}

/// All entries of the cache. Unreadable entries are ignored: another process may be removing them.
pub fn entries(cache: &Path) -> Vec<CacheEntry> {
    let mut entries = Vec::new();
    for kind in CacheKind::ALL {
        for path in places(cache, kind) {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            let name = path.strip_prefix(cache).unwrap_or(&path).to_string_lossy().into_owned();
            let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            entries.push(CacheEntry { kind, name, size: size(&path), used, path });
        }
    }
    entries
}

/// The entries of a kind. Names of locks and unfinished entries begin with a dot; these are not included.
fn places(cache: &Path, kind: CacheKind) -> Vec<PathBuf> {
    let below = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let shown = entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
        let mut paths: Vec<PathBuf> = shown.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let dir = cache.join(kind.name());
    match kind {
        // Per repository a checkout and many built commits, which can be removed separately.
        CacheKind::Bisect => {
            let repositories = below(&dir).into_iter();
            repositories.flat_map(|place| [vec![place.join("tree")], below(&place.join("products"))].concat()).collect()
        }
        CacheKind::VngHome => below(&dir.join(".cache/virtme-ng")),
        _ => below(&dir),
    }
}

/// Size on the disk of a file or directory, bytes. It may be less than the apparent size: a snapshot's memory is a
/// sparse file.
fn size(path: &Path) -> u64 {
    let files = walkdir::WalkDir::new(path).into_iter().flatten();
    files.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
}

/// Removes an entry. It is renamed first, so that no process sees a partly removed entry.
///
/// # Errors
/// The system's answer.
fn remove(cache: &Path, entry: &CacheEntry) -> Result<(), Error> {
    let failed = |error| Error::file("remove", &entry.path)(error);
    let is_tree = matches!(entry.kind, CacheKind::Trees) || entry.path.ends_with("tree");
    if is_tree && let Ok(common) = git(&entry.path, ["rev-parse", "--path-format=absolute", "--git-common-dir"]) {
        // The user's repository has a list of its worktrees.
        let words = ["worktree", "remove", "--force", "--force"].map(OsString::from);
        let _ = git(Path::new(common.trim()), words.into_iter().chain([entry.path.clone().into_os_string()]));
    }
    let mut doomed = OsString::from(".pruned-");
    doomed.push(entry.path.file_name().unwrap_or_default());
    let doomed = entry.path.with_file_name(doomed);
    match fs::rename(&entry.path, &doomed) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    }
    let gone = if doomed.is_dir() { fs::remove_dir_all(&doomed) } else { fs::remove_file(&doomed) };
    gone.map_err(failed)?;
    debug_assert!(entry.path.starts_with(cache));
    Ok(())
}

/// Result of pruning.
#[derive(Debug)]
pub struct Pruned {
    /// All entries, each with the decision.
    pub verdicts: Vec<PruneDecision>,
    /// Whether nothing was removed because another lab process uses the cache.
    pub busy: bool,
}

impl Pruned {
    /// Number of removed entries, and their size in bytes.
    pub fn gone(&self) -> (usize, u64) {
        let gone = self.verdicts.iter().filter(|verdict| verdict.goes.is_some());
        gone.fold((0, 0), |(count, size), verdict| (count + 1, size + verdict.entry.size))
    }
}

/// Applies a policy. Nothing is removed while another lab process uses the cache.
///
/// # Errors
/// An entry can't be removed.
pub fn prune(cache: &Cache, policy: CachePolicy, only: Option<CacheKind>, dry: bool) -> Result<Pruned, Error> {
    let Some(_alone) = cache.alone() else { return Ok(Pruned { verdicts: Vec::new(), busy: true }) };
    let all = entries(cache.root());
    let verdicts = judge(all, policy, only, SystemTime::now());
    if !dry {
        for verdict in verdicts.iter().filter(|verdict| verdict.goes.is_some()) {
            remove(cache.root(), &verdict.entry)?;
        }
    }
    Ok(Pruned { verdicts, busy: false })
}

/// Marks the time of the last sweep.
const SWEPT: &str = "swept";
/// Time until the next one. A cache has a hundred thousand files: looking at them all takes longer than a short command.
const SWEPT_FOR: Duration = Duration::from_secs(3600);

/// Whether nobody has swept the cache for [`SWEPT_FOR`]; from now on somebody has.
fn is_due(cache: &Path) -> bool {
    let mark = cache.join(SWEPT);
    let swept = fs::metadata(&mark).and_then(|found| found.modified());
    // A mark of the future, from before the clock was set, says nothing.
    if swept.is_ok_and(|swept| swept.elapsed().is_ok_and(|age| age < SWEPT_FOR)) {
        return false;
    }
    // A cache without a mark is swept each time.
    let _ = fs::write(&mark, []);
    true
}

/// Prunes automatically at the end of a command that filled the cache, once an hour. Returns a line to print, if any.
pub fn sweep(cache: &Cache, project: &Path) -> Option<String> {
    if !is_due(cache.root()) {
        return None;
    }
    match CachePolicy::load(project).and_then(|policy| prune(cache, policy, None, false).map(|pruned| (pruned, policy)))
    {
        Ok((pruned, policy)) => {
            let (count, size) = pruned.gone();
            let entries = if count == 1 { "entry" } else { "entries" };
            (count > 0).then(|| format!("removed {count} {entries} of the cache, {} ({policy})", bytes(size)))
        }
        Err(error) => Some(format!("the cache could not be pruned: {error}")),
    }
}

/// Formats a size.
pub fn bytes(size: u64) -> String {
    let mib = size as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_swept_once_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_due(dir.path()));
        assert!(!is_due(dir.path()));
        let dated = |at: SystemTime| fs::File::open(dir.path().join(SWEPT)).unwrap().set_modified(at).unwrap();
        dated(SystemTime::now() - SWEPT_FOR - Duration::from_secs(1));
        assert!(is_due(dir.path()) && !is_due(dir.path()));
        dated(SystemTime::now() + SWEPT_FOR);
        assert!(is_due(dir.path()), "the clock was wrong");
    }

    #[test]
    fn every_entry_is_found_and_removed_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path();
        for file in [
            "kernels/6.12-6.12.1-abc/vmlinuz",
            "kernels/.lock",
            "images/a.cpio",
            "bisect/repo/tree/Makefile",
            "bisect/repo/products/key/vmlinuz",
            "bisect/repo/products/.stage-1/half",
            "bisect/repo/lock",
            "vng-home/.cache/virtme-ng/v6.12/x",
            "tools/virtme-ng",
        ] {
            let path = cache.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![1; 10_000]).unwrap();
        }
        let found = entries(cache);
        let names: Vec<&str> = found.iter().map(|entry| &*entry.name).collect();
        assert_eq!(
            names,
            [
                "kernels/6.12-6.12.1-abc",
                "images/a.cpio",
                "bisect/repo/tree",
                "bisect/repo/products/key",
                "vng-home/.cache/virtme-ng/v6.12",
                "tools/virtme-ng"
            ]
        );
        assert!(found.iter().all(|entry| entry.size >= 10_000), "{found:?}");
        for entry in &found {
            remove(cache, entry).unwrap();
            assert!(!entry.path.exists());
            remove(cache, entry).unwrap();
        }
        assert_eq!(entries(cache), []);
        assert!(cache.join("kernels/.lock").exists() && cache.join("bisect/repo/lock").exists());
    }
}
