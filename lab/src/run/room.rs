//! Memory budget of parallel guests.
//!
//! On a host without free memory the kernel kills a process, and a killed guest gives no verdict on its own kernel.
//! Therefore a guest waits for others to end if there is a free processor but not enough memory.

use lab_base::{
    interrupt::Interrupt,
    lock::{lock, wait},
};
use procfs::{Current, Meminfo, process::Process};
use std::{
    fs,
    path::Path,
    sync::{Condvar, Mutex},
    time::Duration,
};

/// Memory of a virtual machine in addition to its guest's, MiB: QEMU itself and its translation buffer.
const OVERHEAD_MIB: u64 = 160;
/// Memory that is left to other programs, MiB.
const RESERVE_MIB: u64 = 512;
/// Mount point of control groups (cgroup v2).
const CGROUPS: &str = "/sys/fs/cgroup";
/// Interval at which a waiting guest checks whether the run was interrupted.
const POLL: Duration = Duration::from_millis(100);

/// The memory that all guests together may use.
#[derive(Debug)]
pub struct Room {
    budget_mib: u64,
    taken_mib: Mutex<u64>,
    left: Condvar,
}

impl Room {
    /// Creates a budget of this much memory, MiB.
    pub const fn of(budget_mib: u64) -> Self {
        Self { budget_mib, taken_mib: Mutex::new(0), left: Condvar::new() }
    }

    /// Creates a budget without a limit.
    pub const fn unlimited() -> Self {
        Self::of(u64::MAX)
    }

    /// The budget of this host now: its available memory (`MemAvailable`), or the rest of the limit of a control group
    /// of this process if that is less. Unlimited if neither can be read.
    pub fn of_host() -> Self {
        let available = Meminfo::current().ok().and_then(|memory| memory.mem_available).map(|bytes| bytes >> 20);
        let own = Process::myself().and_then(|process| process.cgroups()).ok();
        let own = own.and_then(|groups| groups.into_iter().find(|group| group.hierarchy == 0));
        let group = least_left(Path::new(CGROUPS), own.as_ref().map_or("/", |group| &*group.pathname));
        let least = available.into_iter().chain(group).min();
        least.map_or_else(Self::unlimited, |mib| Self::of(mib.saturating_sub(RESERVE_MIB)))
    }

    /// Waits until a guest of this size fits beside the running ones; a single guest always fits. Calls `waits` once if
    /// it has to wait. Returns `None` if the run is interrupted.
    pub fn enter(&self, memory_mib: u32, interrupt: &Interrupt, waits: impl FnOnce(String)) -> Option<GuestMemory<'_>> {
        let mib = u64::from(memory_mib) + OVERHEAD_MIB;
        let mut waits = Some(waits);
        let mut taken = lock(&self.taken_mib);
        while *taken > 0 && taken.saturating_add(mib) > self.budget_mib {
            if let Some(waits) = waits.take() {
                waits(format!(
                    "a guest waits for another to end: it needs {mib} MiB, and {taken} of {} MiB are in use (--jobs \
                     overrides)",
                    self.budget_mib
                ));
            }
            if interrupt.is_over() {
                return None;
            }
            taken = wait(&self.left, taken, POLL);
        }
        *taken += mib;
        Some(GuestMemory { room: self, mib })
    }
}

/// The memory of one guest; released on drop.
#[derive(Debug)]
pub struct GuestMemory<'a> {
    room: &'a Room,
    mib: u64,
}

impl Drop for GuestMemory<'_> {
    fn drop(&mut self) {
        *lock(&self.room.taken_mib) -= self.mib;
        self.room.left.notify_all();
    }
}

/// The lowest rest of a limit among a control group and its ancestors, MiB: systemd sets limits of slices and users on
/// ancestors of the process's group.
fn least_left(root: &Path, group: &str) -> Option<u64> {
    let own = root.join(group.trim_start_matches('/'));
    let groups = own.ancestors().take_while(|group| group.starts_with(root));
    let read = |group: &Path, file: &str| fs::read_to_string(group.join(file)).ok();
    groups.filter_map(|group| left_of(&read(group, "memory.max")?, &read(group, "memory.current")?)).min()
}

/// The rest of a control group's limit (`memory.max`, `memory.current` of cgroup v2), MiB; `None` without a limit.
fn left_of(max: &str, current: &str) -> Option<u64> {
    let bytes = |text: &str| text.trim().parse::<u64>().ok();
    Some(bytes(max)?.saturating_sub(bytes(current)?) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, thread};

    #[test]
    fn guests_share_the_budget_and_a_single_one_always_fits() {
        let room = Room::of(2 * (512 + OVERHEAD_MIB));
        let interrupt = Interrupt::default();
        let never = |_| panic!("there is enough memory");
        let (first, second) = (room.enter(512, &interrupt, never), room.enter(512, &interrupt, never));
        assert!(first.is_some() && second.is_some());
        let said = Cell::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(POLL / 2);
                drop(first);
            });
            let third = room.enter(512, &interrupt, |why| {
                assert!(why.contains("it needs 672 MiB, and 1344 of 1344 MiB are in use"), "{why}");
                said.set(true);
            });
            assert!(third.is_some() && said.get());
        });
        assert!(Room::of(1).enter(512, &interrupt, never).is_some());
    }

    #[test]
    fn an_interrupt_ends_the_wait_for_memory() {
        let room = Room::of(1);
        let interrupt = Interrupt::default();
        let _first = room.enter(512, &interrupt, |_| {});
        let flag = interrupt.clone();
        assert!(room.enter(512, &interrupt, move |_| flag.raise(2)).is_none());
    }

    #[test]
    fn the_limit_of_a_slice_also_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("user.slice/session.scope");
        fs::create_dir_all(&group).unwrap();
        let set = |group: &Path, max: &str, now: &str| {
            fs::write(group.join("memory.max"), max).unwrap();
            fs::write(group.join("memory.current"), now).unwrap();
        };
        let left = || least_left(root.path(), "/user.slice/session.scope");
        assert_eq!(left(), None, "no limit anywhere");
        set(&group, "max\n", "1048576\n");
        assert_eq!(left(), None);
        set(&root.path().join("user.slice"), "4294967296\n", "1073741824\n");
        assert_eq!(left(), Some(3072));
        set(&group, "2147483648\n", "1073741824\n");
        assert_eq!(left(), Some(1024));
        set(&root.path().join("user.slice"), "4294967296\n", "3758096384\n");
        assert_eq!(left(), Some(512), "the slice has less left than the group");
        assert_eq!(least_left(root.path(), "/"), None);
    }

    #[test]
    fn used_memory_is_subtracted_from_a_limit() {
        assert_eq!(left_of("1073741824\n", "268435456\n"), Some(768));
        assert_eq!(left_of("1048576\n", "2097152\n"), Some(0));
        assert_eq!(left_of("max\n", "268435456\n"), None);
    }
}
