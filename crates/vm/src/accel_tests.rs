//! Tests of the choice of an accelerator.

use super::*;
use crate::{
    Recv,
    fake::{FakeLauncher, specification},
};
use lab_record::guest_exit::GuestExit;
use std::{cell::RefCell, io};

const SHORT: Patience =
    Patience { silent: Duration::from_millis(200), quiet: Duration::from_millis(200), most: Duration::from_secs(20) };

fn speaking() -> FakeLauncher {
    FakeLauncher::new(|agent| agent.channel().send(b"hello").unwrap())
}

fn dying() -> FakeLauncher {
    FakeLauncher::new(|agent| {
        agent.set_exit(GuestExit { code: Some(1), signal: None, stderr: "kvm: abort".to_owned() });
    })
}

fn mute() -> FakeLauncher {
    FakeLauncher::new(|agent| while agent.channel().recv(&mut [0; 8], SHORT.most).unwrap() != Recv::Closed {})
}

fn busy() -> Result<(), Unusable> {
    Err(Unusable::Refusing { device: "/dev/kvm".into(), cause: io::Error::from_raw_os_error(16) })
}

/// The choice, and the lines that were reported.
fn chosen(
    cache: &Path,
    launcher: &FakeLauncher,
    device: Result<(), Unusable>,
    stop: bool,
) -> (Acceleration, Vec<String>) {
    let said = RefCell::new(Vec::new());
    let say = |line: &str| said.borrow_mut().push(line.to_owned());
    let asking = Asking { cache, qemu_version: "10.0", say: &say, stop: &|| stop };
    let choice = unforced(launcher, &specification(cache.to_owned()), &asking, device, SHORT).unwrap();
    (choice, said.take())
}

#[test]
fn failures_and_successes_are_cached() {
    for (launcher, accel, reason, lines) in [
        (speaking(), Accel::Kvm, "a guest under KVM answered after 0.", 0),
        (dying(), Accel::Tcg, "/dev/kvm opens, but QEMU ended under KVM (exit code 1: kvm: abort)", 1),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let (first, said) = chosen(cache.path(), &launcher, Ok(()), false);
        assert_eq!((first.accel, said.len()), (accel, lines), "{first:?}");
        assert!(first.reason.starts_with(reason), "{}", first.reason);
        let (second, said) = chosen(cache.path(), &launcher, Ok(()), false);
        assert_eq!((second.accel, launcher.boots(), said.len()), (accel, 1, lines));
        assert!(second.reason.contains("; cached result; remove "), "{}", second.reason);
        assert_eq!(remembered(cache.path(), "10.0", None), Some(first));
    }
}

#[test]
fn a_single_timeout_is_reported_but_not_cached() {
    let (cache, slow) = (tempfile::tempdir().unwrap(), mute());
    let (first, said) = chosen(cache.path(), &slow, Ok(()), false);
    assert_eq!(first.accel, Accel::Tcg);
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("KVM is not used; guests are emulated"), "{said:?}");
    assert!(said[0].contains("sent nothing for 200ms; the next run tests KVM again"), "{said:?}");
    assert_eq!(remembered(cache.path(), "10.0", None), None);
    assert_eq!(chosen(cache.path(), &speaking(), Ok(()), false).0.accel, Accel::Kvm, "asked again");
}

#[test]
fn consecutive_timeouts_are_cached_for_some_time() {
    let cache = tempfile::tempdir().unwrap();
    let slow = mute();
    let boots = |launcher: &FakeLauncher| {
        let before = launcher.boots();
        let (choice, said) = chosen(cache.path(), launcher, Ok(()), false);
        assert_eq!((choice.accel, said.len()), (Accel::Tcg, 1));
        (launcher.boots() - before, choice.reason)
    };
    assert_eq!(boots(&slow).0, 1);
    let (tried, reason) = boots(&slow);
    assert!(tried == 1 && reason.ends_with("; 2 guests in a row; KVM is tested again in 5 min"), "{reason}");
    let (tried, reason) = boots(&slow);
    assert!(tried == 0 && reason.contains("tested again in 5 min; cached result; remove "), "{reason}");

    let path = Memory::path(cache.path());
    let mut kept = Memory::read(&path);
    kept[0].slow = kept[0].slow.map(|slow| Slow { since: SystemTime::now() - PAUSE, ..slow });
    fs::write(&path, serde_json::to_vec(&kept).unwrap()).unwrap();
    let (tried, reason) = boots(&slow);
    assert!(tried == 1 && reason.ends_with("; 3 guests in a row; KVM is tested again in 10 min"), "{reason}");
    let pause = |times| Slow { times, since: SystemTime::now() }.pause();
    assert_eq!((pause(1), pause(99)), (Duration::ZERO, LONGEST_PAUSE));
    let ahead = Slow { times: 2, since: SystemTime::now() + PAUSE };
    assert!(!ahead.holds(), "a clock that was set back");
}

#[test]
fn a_cached_kvm_is_not_used_if_it_stops_working() {
    let cache = tempfile::tempdir().unwrap();
    chosen(cache.path(), &speaking(), Ok(()), false);
    let (refused, said) = chosen(cache.path(), &speaking(), busy(), false);
    assert_eq!((refused.accel, said.len()), (Accel::Tcg, 1));
    assert!(refused.reason.contains("can't create a virtual machine: Device or resource busy"), "{}", refused.reason);
    assert_eq!(remembered(cache.path(), "10.0", None), None);

    chosen(cache.path(), &speaking(), Ok(()), false);
    distrust(cache.path());
    assert_eq!(chosen(cache.path(), &dying(), Ok(()), false).0.accel, Accel::Tcg, "asked again");
    distrust(cache.path());
    assert!(remembered(cache.path(), "10.0", None).is_some(), "a cached \"tcg\" is kept");
}

#[test]
fn nothing_is_reported_without_kvm_or_after_an_interrupt() {
    let cache = tempfile::tempdir().unwrap();
    let absent = Err(Unusable::Absent("/dev/kvm".into()));
    let (choice, said) = chosen(cache.path(), &speaking(), absent, false);
    assert_eq!((choice.accel, said.len()), (Accel::Tcg, 0));
    assert_eq!(chosen(cache.path(), &mute(), Ok(()), true).1.len(), 0);
    assert!(!Memory::path(cache.path()).exists());
}

#[test]
fn a_cached_result_is_invalid_after_a_reboot_or_an_upgrade() {
    let cache = tempfile::tempdir().unwrap();
    let memory = |boot_id: &str, qemu: &str| Memory {
        path: Memory::path(cache.path()),
        boot_id: boot_id.to_owned(),
        qemu: qemu.to_owned(),
        size: None,
    };
    assert_eq!(memory("a", "7.2").recall(), None);
    memory("a", "7.2").keep(&Acceleration { accel: Accel::Tcg, reason: "dead".to_owned() }, None);
    assert!(memory("a", "7.2").recall().unwrap().reason.starts_with("dead; cached result; remove "));
    assert_eq!(memory("b", "7.2").recall(), None);
    assert_eq!(memory("a", "10.0").recall(), None);
    memory("a", "10.0").keep(&Acceleration { accel: Accel::Tcg, reason: "slow".to_owned() }, None);
    let told = |boot_id: &str, qemu: &str| memory(boot_id, qemu).recall().map(|it| it.reason[..4].to_owned());
    assert_eq!(
        (told("a", "7.2").as_deref(), told("a", "10.0").as_deref()),
        (Some("dead"), Some("slow")),
        "both are kept"
    );
    memory("b", "7.2").keep(&Acceleration { accel: Accel::Tcg, reason: "dead".to_owned() }, None);
    assert_eq!((told("a", "7.2"), told("b", "7.2").as_deref()), (None, Some("dead")), "of the last boot alone");
    for number in 0..2 * MOST {
        memory("b", &number.to_string()).keep(&Acceleration { accel: Accel::Tcg, reason: "dead".to_owned() }, None);
    }
    assert_eq!(Memory::read(&Memory::path(cache.path())).len(), MOST);
    fs::write(Memory::path(cache.path()), "{").unwrap();
    assert_eq!(memory("a", "7.2").recall(), None);
}

/// A guest that is too large for the host does not decide for the others.
#[test]
fn a_cached_result_is_valid_for_guests_of_its_size() {
    let cache = tempfile::tempdir().unwrap();
    let choose = |launcher: &FakeLauncher, change: fn(&mut GuestSpec)| {
        let mut spec = specification(cache.path().to_owned());
        change(&mut spec);
        let asking = Asking { cache: cache.path(), qemu_version: "10.0", say: &|_| (), stop: &|| false };
        unforced(launcher, &spec, &asking, Ok(()), SHORT).unwrap().accel
    };
    assert_eq!(choose(&dying(), |spec| spec.memory_mib = 1 << 20), Accel::Tcg);
    assert_eq!(choose(&speaking(), |_| ()), Accel::Kvm);
    assert_eq!(choose(&dying(), |_| ()), Accel::Kvm, "cached");
    assert_eq!(choose(&dying(), |spec| spec.cpus += 1), Accel::Tcg);
    assert!(remembered(cache.path(), "10.0", None).is_some(), "the doctor shows whatever there is");
}

#[test]
fn deadlines_are_scaled_by_the_measured_boot_within_limits() {
    let scale = |accel, ms| {
        let acceleration = Acceleration { accel, reason: String::new() };
        acceleration.time_scale(Some(Duration::from_millis(ms)))
    };
    assert_eq!(scale(Accel::Kvm, 300), 1.0);
    assert_eq!(scale(Accel::Tcg, 300), 4.0);
    assert_eq!(scale(Accel::Tcg, 6000), 10.0);
    assert_eq!(scale(Accel::Tcg, 600_000), 40.0);
    assert_eq!(forced_to("xen").unwrap_err().to_string(), "NETKIT_LAB_ACCEL is `xen`; it must be `kvm` or `tcg`");
}
