//! Leak check: programs, maps, links, pins, devices and namespaces are counted before and after a case.

use crate::{
    error::HarnessError,
    fault::{WeakCheck, weak},
    fence,
};
use lab_bpf::BpfError;
use lab_topology::Netns;
use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Interval between counts: the kernel frees programs, maps and links later, after an RCU grace period and a work item.
const POLL: Duration = Duration::from_millis(1);
/// Time within which nearly everything is freed. After that, the check also waits for the clean-up of dead
/// namespaces, see [`FENCES`].
const SOON: Duration = Duration::from_millis(200);
/// Objects that still exist after this number of passes of the kernel's clean-up are leaks.
/// The first pass waits for the devices of dead namespaces, the second for their other objects; work items after that
/// free filters, programs and maps of maps.
const FENCES: u32 = 4;
/// Begin of the line of a report that has them.
pub const LEFT: &str = "left behind: ";
const DEVICES: &str = "/sys/class/net";

/// Objects that remain after a case unless they are cleaned up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    objects: Objects,
    pins: BTreeSet<PathBuf>,
    devices: BTreeSet<String>,
    namespaces: BTreeSet<PathBuf>,
}

/// Objects that the kernel frees asynchronously after the last reference is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Objects {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl Objects {
    fn take() -> Result<Self, HarnessError> {
        Ok(Self {
            programs: ids("programs", lab_bpf::prog_ids())?,
            maps: ids("maps", lab_bpf::map_ids())?,
            links: ids("links", lab_bpf::link_ids())?,
        })
    }

    /// What there was not before.
    fn since(&self, before: &Self) -> Self {
        let new = |now: &BTreeSet<u32>, old: &BTreeSet<u32>| now.difference(old).copied().collect();
        Self {
            programs: new(&self.programs, &before.programs),
            maps: new(&self.maps, &before.maps),
            links: new(&self.links, &before.links),
        }
    }

    fn leaks(&self, after: &Self) -> Vec<String> {
        let mut leaks = Vec::new();
        diff("program", &self.programs, &after.programs, &mut leaks);
        diff("map", &self.maps, &after.maps, &mut leaks);
        diff("link", &self.links, &after.links, &mut leaks);
        leaks
    }
}

impl Inventory {
    /// Runs `work`, whose programs, maps and links are not to be counted.
    ///
    /// # Errors
    /// The kernel refuses the query.
    pub fn except<R>(&mut self, work: impl FnOnce() -> R) -> Result<R, HarnessError> {
        let before = Objects::take()?;
        let done = work();
        let new = Objects::take()?.since(&before);
        self.objects.programs.extend(new.programs);
        self.objects.maps.extend(new.maps);
        self.objects.links.extend(new.links);
        Ok(done)
    }

    /// Counts the existing objects.
    ///
    /// # Errors
    /// The kernel refuses the query.
    pub fn take(pins: &Path) -> Result<Self, HarnessError> {
        Self::around(Objects::take()?, pins)
    }

    /// The objects that exist now and did not before, one entry each, without waiting for any of them to be deleted.
    ///
    /// # Errors
    /// Like [`Self::take`].
    pub fn since(&self, pins: &Path) -> Result<Vec<String>, HarnessError> {
        Ok(self.leaks(&Self::take(pins)?))
    }

    fn around(objects: Objects, pins: &Path) -> Result<Self, HarnessError> {
        Ok(Self {
            objects,
            pins: walk(pins).map_err(unreadable(pins))?,
            devices: devices().map_err(unreadable(Path::new(DEVICES)))?,
            namespaces: namespaces(),
        })
    }

    /// Waits until all objects that did not exist before are deleted, and returns the new count. A leak is not
    /// decided by time: `patience` only limits the duration of one pass of the kernel's clean-up.
    ///
    /// # Errors
    /// [`HarnessError::Leaks`] with what leaked, or a list that can't be read.
    pub fn settled(&self, pins: &Path, patience: Duration) -> Result<Self, HarnessError> {
        let begin = Instant::now();
        let (soon, deadline) = (begin + SOON.min(patience), begin + patience);
        let mut before: Vec<String> = Vec::new();
        let mut passes = 0;
        loop {
            let objects = Objects::take()?;
            let early = Instant::now() < soon;
            if early && !self.objects.leaks(&objects).is_empty() {
                // Nothing has leaked so far.
                std::thread::sleep(POLL);
                continue;
            }
            let now = Self::around(objects, pins)?;
            let leaks = self.leaks(&now);
            if leaks.is_empty() {
                return Ok(now);
            }
            if early {
                std::thread::sleep(POLL);
                continue;
            }
            if leaks != before {
                passes = 0;
            }
            if passes == FENCES {
                return Err(HarnessError::Leaks { left: leaks, stalled: None });
            }
            match fence::pass(deadline) {
                Ok(()) => passes += 1,
                Err(error) if Instant::now() > deadline => {
                    return Err(HarnessError::Leaks { left: leaks, stalled: Some(Box::new(error)) });
                }
                // Without devices to wait for the clean-up, only a time limit remains.
                Err(_) => std::thread::sleep(POLL),
            }
            before = leaks;
        }
    }

    fn leaks(&self, after: &Self) -> Vec<String> {
        let mut leaks = self.objects.leaks(&after.objects);
        diff("device", &self.devices, &after.devices, &mut leaks);
        let paths = |set: &BTreeSet<PathBuf>| set.iter().map(|path| path.display().to_string()).collect();
        diff("pin", &paths(&self.pins), &paths(&after.pins), &mut leaks);
        diff::<String>("namespace", &paths(&self.namespaces), &paths(&after.namespaces), &mut leaks);
        leaks
    }
}

fn diff<T: Ord + fmt::Display>(what: &'static str, before: &BTreeSet<T>, after: &BTreeSet<T>, leaks: &mut Vec<String>) {
    if weak(WeakCheck::LeaksUnseen(what)) {
        return;
    }
    leaks.extend(after.difference(before).map(|left| format!("{what} {left}")));
}

fn ids(what: &'static str, ids: Result<Vec<u32>, BpfError>) -> Result<BTreeSet<u32>, HarnessError> {
    ids.map(|ids| ids.into_iter().collect()).map_err(|error| HarnessError::List { what, error })
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> HarnessError {
    |error| HarnessError::Directory { path: path.to_owned(), error }
}

fn walk(root: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // The iterator pins that the kernel preloads are regular files, not symbolic links.
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    Ok(found)
}

/// Devices of the agent's namespace; cases build in other namespaces.
fn devices() -> std::io::Result<BTreeSet<String>> {
    fs::read_dir(DEVICES)?.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
}

/// Network namespaces that this process keeps by a thread or a descriptor, without those that are kept ready for
/// later cases.
fn namespaces() -> BTreeSet<PathBuf> {
    let threads =
        fs::read_dir("/proc/self/task").into_iter().flatten().flatten().map(|task| task.path().join("ns/net"));
    let descriptors = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten().map(|fd| fd.path());
    let found: BTreeSet<PathBuf> = threads
        .chain(descriptors)
        .filter_map(|link| fs::read_link(link).ok())
        .filter(|target| target.to_string_lossy().starts_with("net:["))
        .collect();
    // Read afterwards, so that none of the namespaces found above can be added to them later.
    let spares: Vec<PathBuf> =
        Netns::spare_inodes().into_iter().map(|inode| PathBuf::from(format!("net:[{inode}]"))).collect();
    found.into_iter().filter(|found| !spares.contains(found)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_objects_are_leaks_and_deleted_ones_are_ignored() {
        let objects = |programs: &[u32]| Objects { programs: programs.iter().copied().collect(), ..Objects::default() };
        let before = Inventory { objects: objects(&[1, 2]), ..Inventory::default() };
        let after = Inventory {
            objects: objects(&[2, 7]),
            pins: [PathBuf::from("/sys/fs/bpf/p0")].into(),
            ..Inventory::default()
        };
        assert_eq!(before.leaks(&after), ["program 7", "pin /sys/fs/bpf/p0"]);
        assert!(after.leaks(&after.clone()).is_empty());
    }

    #[test]
    fn pins_are_files_and_directories_at_every_depth() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        assert!(walk(root.path()).unwrap().is_empty());
        fs::create_dir_all(at("empty/deeper")).unwrap();
        fs::write(at("empty/pin"), "").unwrap();
        assert_eq!(walk(root.path()).unwrap(), ["empty", "empty/deeper", "empty/pin"].map(at).into());
    }

    #[test]
    fn sees_a_namespace_that_a_descriptor_holds() {
        let own = namespaces();
        assert_eq!(own.len(), 1, "one namespace for all threads of the test: {own:?}");
    }
}
