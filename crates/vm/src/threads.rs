//! The threads of QEMU that an emulated guest's processors run on.
//!
//! With a thread for each, a guest with two processors on a host without a free one takes up to three times as long: a processor that
//! waits for the other's spinlock, or for its answer to an interrupt, loops until the host lets that one run. On one thread QEMU goes
//! on with the other processor whenever one waits (`pause`, `hlt`). Alone on a host with free processors a guest is not slower with two
//! threads, and faster where both are busy. docs/speed.md has the figures.

use super::{Accel, GuestSpec, keeper::HELD};
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

/// Virtual machines of this host that may run. Those that are held are stopped until they take the place of another.
fn machines() -> usize {
    let is_machine = |entry: &fs::DirEntry| {
        let is_process = entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit);
        let is_qemu = || fs::read(entry.path().join("comm")).is_ok_and(|name| name.starts_with(QEMU.as_bytes()));
        is_process && is_qemu() && !fs::read(entry.path().join("cmdline")).is_ok_and(|words| is_held(&words))
    };
    fs::read_dir("/proc").map_or(0, |entries| entries.flatten().filter(is_machine).count())
}

/// Whether a machine with this command line is held.
fn is_held(words: &[u8]) -> bool {
    let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
    let at = words.iter().position(|word| *word == b"-name");
    let name = at.and_then(|at| words.get(at + 1));
    name.is_some_and(|name| name.windows(HELD.len()).any(|part| part == HELD.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_held_is_known_by_its_name() {
        let held = b"qemu-system-x86_64\0-name\0nkl.a.1.2.3.6.12-held-4\0-smp\0";
        assert!(is_held(held));
        for other in [&b""[..], b"qemu\0-name\0nkl.a.1.2.3.6.12-1\0", b"qemu\0-held-\0", b"qemu\0-name\0"] {
            assert!(!is_held(other), "{other:?}");
        }
    }
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
