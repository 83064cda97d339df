//! The cache as a whole: what lies in it, and one rule for what goes.
//!
//! Everything in it can be fetched or built again. Its parts are kept by what they are made from, and nobody asks for most of
//! them twice: a kernel of this host that was built anew, a commit that a bisection tried. So each is dated when it is used,
//! and what has not been used for long goes, or what was used longest ago where all of it together is too large.

mod policy;

pub use policy::{Policy, Verdict, judge};

use crate::error::Error;
use lab_base::git::git;
use lab_kernel_store::Cache;
use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// What an entry is for. The name is that of its directory, and what `lab cache` calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
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
    /// Guests' programs of projects that are read-only.
    Build,
    /// What virtme-ng downloaded.
    VngHome,
    /// Roots of foreign programs, unpacked.
    Roots,
    /// Programs that `lab setup` installed.
    Tools,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Kernels,
        Self::Images,
        Self::Snapshots,
        Self::Bisect,
        Self::Trees,
        Self::Apt,
        Self::Build,
        Self::VngHome,
        Self::Roots,
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
            Self::Tools => "tools",
        }
    }

    /// In a few words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Kernels => "unpacked kernels",
            Self::Images => "guest images",
            Self::Snapshots => "snapshots of booted guests",
            Self::Bisect => "commits built by bisections, and their checkouts",
            Self::Trees => "checkouts of kernels from git",
            Self::Apt => "package indexes",
            Self::Build => "guests' programs of read-only projects",
            Self::VngHome => "downloads of virtme-ng",
            Self::Roots => "unpacked roots of foreign programs",
            Self::Tools => "what `lab setup` installed; never removed",
        }
    }

    /// Whether the policy may remove it.
    pub const fn removable(self) -> bool {
        !matches!(self, Self::Tools)
    }
}

/// One thing that is kept or goes as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is for.
    pub kind: Kind,
    /// Its place below the cache.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes that it takes on the disk.
    pub size: u64,
    /// When it was last used.
    pub used: SystemTime,
}

/// Everything that the cache holds. What can't be read counts for nothing: it may be going just now.
pub fn entries(cache: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    for kind in Kind::ALL {
        for path in places(cache, kind) {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            let name = path.strip_prefix(cache).unwrap_or(&path).to_string_lossy().into_owned();
            let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            entries.push(Entry { kind, name, size: size(&path), used, path });
        }
    }
    entries
}

/// The entries of a kind. Locks and what is just being made have names that begin with a dot.
fn places(cache: &Path, kind: Kind) -> Vec<PathBuf> {
    let below = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let shown = entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
        let mut paths: Vec<PathBuf> = shown.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let dir = cache.join(kind.name());
    match kind {
        // Per repository a checkout and many built commits, each of which is of use without the others.
        Kind::Bisect => {
            let repositories = below(&dir).into_iter();
            repositories.flat_map(|place| [vec![place.join("tree")], below(&place.join("products"))].concat()).collect()
        }
        Kind::VngHome => below(&dir.join(".cache/virtme-ng")),
        _ => below(&dir),
    }
}

/// Bytes that a file, or all below a directory, take on the disk. A snapshot's memory has holes.
fn size(path: &Path) -> u64 {
    let files = walkdir::WalkDir::new(path).into_iter().flatten();
    files.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
}

/// Removes an entry: renamed away first, so that nobody meets half of it.
///
/// # Errors
/// The system's answer.
fn remove(cache: &Path, entry: &Entry) -> Result<(), Error> {
    let failed = |error| Error::file("remove", &entry.path)(error);
    let is_tree = matches!(entry.kind, Kind::Trees) || entry.path.ends_with("tree");
    if is_tree && let Ok(common) = git(&entry.path, ["rev-parse", "--path-format=absolute", "--git-common-dir"]) {
        // The person's repository keeps a list of its worktrees.
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

/// What a pruning did, or would do.
#[derive(Debug)]
pub struct Pruned {
    /// Every entry, and whether it goes.
    pub verdicts: Vec<Verdict>,
    /// Whether another lab uses the cache, and nothing was removed for its sake.
    pub busy: bool,
}

impl Pruned {
    /// How many entries go, and their bytes.
    pub fn gone(&self) -> (usize, u64) {
        let gone = self.verdicts.iter().filter(|verdict| verdict.goes.is_some());
        gone.fold((0, 0), |(count, size), verdict| (count + 1, size + verdict.entry.size))
    }
}

/// Applies a policy. Nothing is removed while another lab is at work in the cache.
///
/// # Errors
/// An entry can't be removed.
pub fn prune(cache: &Cache, policy: Policy, only: Option<Kind>, dry: bool) -> Result<Pruned, Error> {
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

/// What happens by itself at the end of a command that filled the cache. Gives the line to tell, if any.
pub fn sweep(cache: &Cache, project: &Path) -> Option<String> {
    match Policy::load(project).and_then(|policy| prune(cache, policy, None, false).map(|pruned| (pruned, policy))) {
        Ok((pruned, policy)) => {
            let (count, size) = pruned.gone();
            let entries = if count == 1 { "entry" } else { "entries" };
            (count > 0).then(|| format!("{count} {entries} of the cache removed, {} ({policy})", bytes(size)))
        }
        Err(error) => Some(format!("the cache is left as it is: {error}")),
    }
}

/// Bytes for people.
pub fn bytes(size: u64) -> String {
    let mib = size as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_found_and_goes_whole() {
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
