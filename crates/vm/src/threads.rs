//! The threads of QEMU that an emulated guest's processors run on.
//!
//! With a thread for each, a guest with two processors on a host without a free one takes up to three times as long: a processor that
//! waits for the other's spinlock, or for its answer to an interrupt, loops until the host lets that one run. On one thread QEMU goes
//! on with the other processor whenever one waits (`pause`, `hlt`). Alone on a host with free processors a guest is not slower with two
//! threads, and faster where both are busy. docs/speed.md has the figures.

use super::{Accel, GuestSpec};
use std::{fs, thread::available_parallelism};

/// Begin of the name of a QEMU process (`/proc/PID/comm`), which is cut off after 15 characters.
const QEMU: &str = "qemu-system";

/// QEMU's options for the guest's processors. They are no part of the machine's state: a snapshot is restored with either.
pub fn options(spec: &GuestSpec) -> &'static [&'static str] {
    let processors = available_parallelism().map_or(1, usize::from);
    if shares_one(spec, processors, machines) { &["-accel", "tcg,thread=single"] } else { &[] }
}

/// Whether the guest's processors share a thread, on a host with this many processors and other machines: runs that somebody starts side by
/// side know nothing of each other.
fn shares_one(spec: &GuestSpec, processors: usize, others: impl FnOnce() -> usize) -> bool {
    let own = spec.cpus as usize;
    let too_many = |machines: usize| machines.saturating_mul(own) > processors;
    spec.accel == Accel::Tcg && own > 1 && (too_many(spec.at_once) || too_many(others().saturating_add(1)))
}

/// Virtual machines of this host.
fn machines() -> usize {
    let is_machine = |entry: &fs::DirEntry| {
        let is_process = entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit);
        is_process && fs::read(entry.path().join("comm")).is_ok_and(|name| name.starts_with(QEMU.as_bytes()))
    };
    fs::read_dir("/proc").map_or(0, |entries| entries.flatten().filter(is_machine).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::specification;

    #[test]
    fn only_guests_that_compete_for_processors_share_a_thread() {
        let spec = |cpus, at_once, accel| GuestSpec { cpus, at_once, accel, ..specification("/nonexistent".into()) };
        let two = |at_once| spec(2, at_once, Accel::Tcg);
        let shares = |spec: &GuestSpec, processors, others| shares_one(spec, processors, || others);
        assert!(!shares(&two(1), 2, 0), "alone");
        assert!(shares(&two(2), 2, 0), "two guests on two processors");
        assert!(!shares(&two(2), 4, 0), "two guests on four");
        assert!(shares(&two(1), 2, 1), "beside the guest of another run");
        assert!(!shares(&two(1), 8, 3), "beside others on a host with free processors");
        assert!(!shares(&spec(1, 9, Accel::Tcg), 2, 9), "there is one thread anyway");
        assert!(!shares(&spec(2, 9, Accel::Kvm), 2, 9), "KVM has no such choice");
    }
}
