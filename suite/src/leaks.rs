//! What a case left behind: programs, maps, links, pins, devices and namespaces, counted before and after.

use crate::fence;
use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What is still there after so many passes of the kernel's own clean-up, none of which freed any of it, stays.
///
/// The first waits for the devices of dead namespaces, the second for all else of theirs, and what they held (filters,
/// programs, maps of maps) goes by work items behind that.
const FENCES: u32 = 4;

/// Everything that outlives a case unless it is cleaned up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
    pins: BTreeSet<PathBuf>,
    devices: BTreeSet<String>,
    namespaces: BTreeSet<PathBuf>,
}

impl Inventory {
    /// Takes stock.
    ///
    /// # Errors
    /// Where the kernel does not let itself be asked.
    pub fn take(pins: &Path) -> Result<Self, String> {
        Ok(Self {
            programs: ids("programs", lab_bpf::prog_ids())?,
            maps: ids("maps", lab_bpf::map_ids())?,
            links: ids("links", lab_bpf::link_ids())?,
            pins: walk(pins).map_err(|error| format!("cannot walk {}: {error}", pins.display()))?,
            devices: devices().map_err(|error| format!("cannot list devices: {error}"))?,
            namespaces: namespaces(),
        })
    }

    /// Waits until nothing is left that was not there before; says what stayed otherwise. No time decides what a leak is:
    /// only a kernel whose clean-up does not get on is given up after `patience`.
    ///
    /// # Errors
    /// One line that names what leaked.
    pub fn settled(&self, pins: &Path, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        let mut before: Vec<String> = Vec::new();
        let mut passes = 0;
        loop {
            let leaks = self.leaks(&Self::take(pins)?);
            if leaks.is_empty() {
                return Ok(());
            }
            if leaks != before {
                passes = 0;
            }
            if passes == FENCES {
                return Err(leaks.join(", "));
            }
            if let Err(error) = fence::pass(deadline) {
                return Err(format!("{} ({error})", leaks.join(", ")));
            }
            before = leaks;
            passes += 1;
        }
    }

    fn leaks(&self, after: &Self) -> Vec<String> {
        let mut leaks = Vec::new();
        diff("program", &self.programs, &after.programs, &mut leaks);
        diff("map", &self.maps, &after.maps, &mut leaks);
        diff("link", &self.links, &after.links, &mut leaks);
        diff("device", &self.devices, &after.devices, &mut leaks);
        let paths = |set: &BTreeSet<PathBuf>| set.iter().map(|path| path.display().to_string()).collect();
        diff("pin", &paths(&self.pins), &paths(&after.pins), &mut leaks);
        diff::<String>("namespace", &paths(&self.namespaces), &paths(&after.namespaces), &mut leaks);
        leaks
    }
}

fn diff<T: Ord + fmt::Display>(what: &str, before: &BTreeSet<T>, after: &BTreeSet<T>, leaks: &mut Vec<String>) {
    leaks.extend(after.difference(before).map(|left| format!("{what} {left}")));
}

fn ids<E: fmt::Display>(what: &str, ids: Result<Vec<u32>, E>) -> Result<BTreeSet<u32>, String> {
    ids.map(|ids| ids.into_iter().collect()).map_err(|error| format!("cannot list {what}: {error}"))
}

fn walk(root: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // The iterator pins that the kernel preloads are symlink-free files of its own.
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    Ok(found)
}

/// Devices of the namespace the agent lives in: a case builds in namespaces of its own.
fn devices() -> std::io::Result<BTreeSet<String>> {
    fs::read_dir("/sys/class/net")?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Network namespaces that this process keeps alive, by a thread in them or a descriptor on them.
fn namespaces() -> BTreeSet<PathBuf> {
    let threads =
        fs::read_dir("/proc/self/task").into_iter().flatten().flatten().map(|task| task.path().join("ns/net"));
    let descriptors = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten().map(|fd| fd.path());
    threads
        .chain(descriptors)
        .filter_map(|link| fs::read_link(link).ok())
        .filter(|target| target.to_string_lossy().starts_with("net:["))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_stayed_and_ignores_what_went() {
        let before = Inventory { programs: [1, 2].into(), ..Inventory::default() };
        let after = Inventory {
            programs: [2, 7].into(),
            pins: [PathBuf::from("/sys/fs/bpf/p0")].into(),
            ..Inventory::default()
        };
        assert_eq!(before.leaks(&after), ["program 7", "pin /sys/fs/bpf/p0"]);
        assert!(after.leaks(&after.clone()).is_empty());
    }

    #[test]
    fn sees_a_namespace_that_a_descriptor_holds() {
        let own = namespaces();
        assert_eq!(own.len(), 1, "one namespace for all threads of the test: {own:?}");
    }
}
