//! Memory budget of parallel guests.
//!
//! On a host without free memory the kernel kills a process, and a killed guest gives no verdict on its own kernel.
//! Therefore a guest waits for others to end if there is a free processor but not enough memory.

use lab_base::{interrupt::Interrupt, lock::lock};
use procfs::{Current, Meminfo};
use std::{
    fs,
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// Memory of a virtual machine in addition to its guest's, MiB: QEMU itself and its translation buffer.
const OVERHEAD_MIB: u64 = 160;
/// Memory that is left to other programs, MiB.
const RESERVE_MIB: u64 = 512;
/// Interval at which a waiting guest checks for an interrupt.
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

    /// The memory that the host has now: `MemAvailable`, or what remains of the control group's limit if that is less.
    /// Unlimited if neither can be read.
    pub fn of_host() -> Self {
        let available = Meminfo::current().ok().and_then(|memory| memory.mem_available).map(|bytes| bytes >> 20);
        let group = |file: &str| fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok();
        let group = group("memory.max").zip(group("memory.current")).and_then(|(max, now)| left_of(&max, &now));
        let least = available.into_iter().chain(group).min();
        least.map_or_else(Self::unlimited, |mib| Self::of(mib.saturating_sub(RESERVE_MIB)))
    }

    /// Waits until a guest of this size fits beside the running ones; a single guest always fits. Calls `waits` once if it
    /// has to wait. Returns `None` if the run is interrupted.
    pub fn enter(&self, memory_mib: u32, interrupt: &Interrupt, waits: impl FnOnce(String)) -> Option<Place<'_>> {
        let mib = u64::from(memory_mib) + OVERHEAD_MIB;
        let mut waits = Some(waits);
        let mut taken = lock(&self.taken_mib);
        while *taken > 0 && taken.saturating_add(mib) > self.budget_mib {
            if let Some(waits) = waits.take() {
                waits(format!(
                    "a guest waits for another to end: it takes {mib} MiB, and of {} MiB {taken} are taken (--jobs \
                     overrides)",
                    self.budget_mib
                ));
            }
            if interrupt.is_over() {
                return None;
            }
            taken = self.left.wait_timeout(taken, POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken += mib;
        Some(Place { room: self, mib })
    }
}

/// The memory of one guest; released on drop.
#[derive(Debug)]
pub struct Place<'a> {
    room: &'a Room,
    mib: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *lock(&self.room.taken_mib) -= self.mib;
        self.room.left.notify_all();
    }
}

/// Remaining memory of a control group (`memory.max`, `memory.current` of cgroup v2), MiB; `None` without a limit.
fn left_of(max: &str, current: &str) -> Option<u64> {
    let bytes = |text: &str| text.trim().parse::<u64>().ok();
    Some(bytes(max)?.saturating_sub(bytes(current)?) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, thread};

    #[test]
    fn guests_share_what_there_is_and_one_alone_always_fits() {
        let room = Room::of(2 * (512 + OVERHEAD_MIB));
        let interrupt = Interrupt::default();
        let never = |_| panic!("there is room");
        let (first, second) = (room.enter(512, &interrupt, never), room.enter(512, &interrupt, never));
        assert!(first.is_some() && second.is_some());
        let said = Cell::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(POLL / 2);
                drop(first);
            });
            let third = room.enter(512, &interrupt, |why| {
                assert!(why.contains("it takes 672 MiB, and of 1344 MiB 1344 are taken"), "{why}");
                said.set(true);
            });
            assert!(third.is_some() && said.get());
        });
        assert!(Room::of(1).enter(512, &interrupt, never).is_some());
    }

    #[test]
    fn who_waits_for_memory_hears_the_interrupt() {
        let room = Room::of(1);
        let interrupt = Interrupt::default();
        let _first = room.enter(512, &interrupt, |_| {});
        let flag = interrupt.clone();
        assert!(room.enter(512, &interrupt, move |_| flag.raise(2)).is_none());
    }

    #[test]
    fn a_limit_counts_less_what_is_used_of_it() {
        assert_eq!(left_of("1073741824\n", "268435456\n"), Some(768));
        assert_eq!(left_of("1048576\n", "2097152\n"), Some(0));
        assert_eq!(left_of("max\n", "268435456\n"), None);
    }
}
