//! Which accelerator guests can have.
//!
//! A `/dev/kvm` that opens proves nothing: under some hypervisors QEMU aborts, or the guest stands still, as soon as
//! it runs. So KVM is believed when a guest has spoken under it, and not before. That one spoke, or died, is remembered
//! per boot of the host and version of QEMU. That one was too slow is not: the host may have been busy.

use super::{
    Accel, GuestSpec, Launcher, VmError,
    kvm::{self, Unusable},
    probe::{self, Answer, PATIENCE, Patience},
};
use lab_base::file;
use lab_record::event::Accelerator;
use serde::{Deserialize, Serialize};
use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Forces an accelerator: `kvm` or `tcg`.
pub const ACCEL_VARIABLE: &str = "NETKIT_LAB_ACCEL";

/// The launch-to-first-word time for which deadlines are written.
const REFERENCE_BOOT: Duration = Duration::from_millis(600);

/// The accelerator, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceleration {
    /// The accelerator.
    pub accel: Accel,
    /// For people: one line.
    pub reason: String,
}

impl From<&Acceleration> for Accelerator {
    fn from(chosen: &Acceleration) -> Self {
        let time_scale = chosen.time_scale(None);
        Self { name: chosen.accel.name().to_owned(), reason: chosen.reason.clone(), time_scale }
    }
}

impl Acceleration {
    /// Factor on every deadline, before a guest has booted or after one took `boot` from launch to its first word.
    ///
    /// An unloaded 2-core host under TCG boots in 2.2 to 2.7 s, and in 8 to 12 s with three guests at once.
    pub fn time_scale(&self, boot: Option<Duration>) -> f32 {
        let (least, usual, most) = match self.accel {
            Accel::Kvm => (1.0, 2.0, 8.0),
            Accel::Tcg => (4.0, 10.0, 40.0),
        };
        boot.map_or(usual, |boot| (boot.as_secs_f32() / REFERENCE_BOOT.as_secs_f32()).clamp(least, most))
    }
}

/// Where a choice is remembered, and how the caller takes part in it.
pub struct Asking<'a> {
    /// The lab's cache directory.
    pub cache: &'a Path,
    /// QEMU's version: another one is asked anew.
    pub qemu_version: &'a str,
    /// Takes one line where KVM is there and is not used.
    pub say: &'a dyn Fn(&str),
    /// Whether the user can't wait.
    pub stop: &'a dyn Fn() -> bool,
}

/// Chooses the accelerator for guests like `spec` (whose own accelerator does not count).
///
/// Boots one such guest where nothing is remembered; that takes about a second where KVM works or fails at once.
///
/// # Errors
/// [`VmError::AccelOverride`] for a value of [`ACCEL_VARIABLE`] that names no accelerator, and what prevents any
/// launch.
pub fn choose(launcher: &dyn Launcher, spec: &GuestSpec, asking: &Asking<'_>) -> Result<Acceleration, VmError> {
    let forced = env::var(ACCEL_VARIABLE).ok().filter(|value| !value.is_empty());
    match forced {
        Some(value) => forced_to(&value),
        None => unforced(launcher, spec, asking, kvm::usable(), PATIENCE),
    }
}

fn unforced(
    launcher: &dyn Launcher,
    spec: &GuestSpec,
    asking: &Asking<'_>,
    device: Result<(), Unusable>,
    patience: Patience,
) -> Result<Acceleration, VmError> {
    let memory = Memory::of(asking.cache, asking.qemu_version, spec.qemu.as_deref());
    let verdict = match device {
        Err(absent @ Unusable::Absent(_)) => {
            return Ok(Acceleration { accel: Accel::Tcg, reason: absent.to_string() });
        }
        Err(unusable) => {
            // It worked once, and does not any more.
            memory.forget();
            Acceleration { accel: Accel::Tcg, reason: unusable.to_string() }
        }
        Ok(()) => match memory.recall() {
            Some(verdict) => verdict,
            None => memory.learn(probe::ask(launcher, spec, patience, asking.stop)?),
        },
    };
    if verdict.accel == Accel::Tcg && !(asking.stop)() {
        (asking.say)(&format!("KVM is not used, guests are emulated and several times slower: {}", verdict.reason));
    }
    Ok(verdict)
}

/// What an earlier choice on this boot of the host has found, for who only wants to show it.
pub fn remembered(cache: &Path, qemu_version: &str, qemu: Option<&Path>) -> Option<Acceleration> {
    Memory::of(cache, qemu_version, qemu).verdict()
}

/// Where a choice is remembered.
pub fn kept_in(cache: &Path) -> PathBuf {
    Memory::path(cache)
}

/// Takes a remembered "kvm" back, after guests under it did not get anywhere. The next choice asks again.
pub fn distrust(cache: &Path) {
    let path = Memory::path(cache);
    if Memory::read(&path).is_some_and(|kept| kept.verdict.accel == Accel::Kvm) {
        // What can't be removed is looked at once more by whoever reads the failed run.
        let _ = fs::remove_file(path);
    }
}

fn forced_to(value: &str) -> Result<Acceleration, VmError> {
    let accel = [Accel::Kvm, Accel::Tcg]
        .into_iter()
        .find(|accel| accel.name() == value)
        .ok_or_else(|| VmError::AccelOverride(value.chars().take(64).collect()))?;
    Ok(Acceleration { accel, reason: format!("{ACCEL_VARIABLE}={value}") })
}

/// A verdict holds for one boot of the host and one QEMU; a reboot or an upgrade may mend KVM.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    boot_id: String,
    qemu: String,
    verdict: Acceleration,
}

struct Memory {
    path: PathBuf,
    boot_id: String,
    qemu: String,
}

impl Memory {
    fn of(cache: &Path, qemu_version: &str, qemu: Option<&Path>) -> Self {
        let chosen = qemu.unwrap_or(Path::new("")).display();
        Self {
            path: Self::path(cache),
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            qemu: format!("{qemu_version} {chosen}"),
        }
    }

    fn path(cache: &Path) -> PathBuf {
        cache.join("accelerator.json")
    }

    /// Whatever is unreadable counts as forgotten.
    fn read(path: &Path) -> Option<Remembered> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn verdict(&self) -> Option<Acceleration> {
        let kept = Self::read(&self.path)?;
        let current = !self.boot_id.is_empty() && kept.boot_id == self.boot_id && kept.qemu == self.qemu;
        current.then_some(kept.verdict)
    }

    fn recall(&self) -> Option<Acceleration> {
        let Acceleration { accel, reason } = self.verdict()?;
        let reason = format!("{reason}; found earlier, remove {} to try again", self.path.display());
        Some(Acceleration { accel, reason })
    }

    fn forget(&self) {
        if self.verdict().is_some_and(|verdict| verdict.accel == Accel::Kvm) {
            // Where it stays, the device is looked at before it is believed.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// The verdict that follows from an answer, which is kept where it will be the same the next time.
    fn learn(&self, answer: Answer) -> Acceleration {
        let (accel, reason, lasting) = match answer {
            Answer::Spoke(after) => {
                (Accel::Kvm, format!("a guest spoke under KVM after {:.1} s", after.as_secs_f32()), true)
            }
            Answer::Died(how) => (Accel::Tcg, format!("/dev/kvm opens, but {how}"), true),
            Answer::Unclear(why) => {
                let again = format!("the next run tries again, unless {ACCEL_VARIABLE} is set");
                (Accel::Tcg, format!("/dev/kvm opens, but {why}; {again}"), false)
            }
        };
        let verdict = Acceleration { accel, reason };
        if lasting {
            self.keep(&verdict);
        }
        verdict
    }

    /// Best effort: what can't be kept is probed again.
    fn keep(&self, verdict: &Acceleration) {
        let kept = Remembered { boot_id: self.boot_id.clone(), qemu: self.qemu.clone(), verdict: verdict.clone() };
        let write = || -> std::io::Result<()> {
            let dir = self.path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(dir)?;
            file::replace(&self.path, &serde_json::to_vec(&kept)?)
        };
        let _ = write();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Recv,
        fake::{FakeLauncher, specification},
    };
    use lab_record::guest_exit::GuestExit;
    use std::{cell::RefCell, io};

    const SHORT: Patience = Patience {
        silent: Duration::from_millis(200),
        quiet: Duration::from_millis(200),
        most: Duration::from_secs(20),
    };

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
        Err(Unusable::Refusing { device: "/dev/kvm".into(), source: io::Error::from_raw_os_error(16) })
    }

    /// The choice, and what was said.
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
    fn deaths_and_successes_are_remembered() {
        for (launcher, accel, reason, lines) in [
            (speaking(), Accel::Kvm, "a guest spoke under KVM after 0.", 0),
            (dying(), Accel::Tcg, "/dev/kvm opens, but the guest died under it (exit code 1: kvm: abort)", 1),
        ] {
            let cache = tempfile::tempdir().unwrap();
            let (first, said) = chosen(cache.path(), &launcher, Ok(()), false);
            assert_eq!((first.accel, said.len()), (accel, lines), "{first:?}");
            assert!(first.reason.starts_with(reason), "{}", first.reason);
            let (second, said) = chosen(cache.path(), &launcher, Ok(()), false);
            assert_eq!((second.accel, launcher.boots(), said.len()), (accel, 1, lines));
            assert!(second.reason.contains("; found earlier, remove "), "{}", second.reason);
            assert_eq!(remembered(cache.path(), "10.0", None), Some(first));
        }
    }

    #[test]
    fn a_probe_that_was_too_slow_is_not_remembered_and_told() {
        let (cache, slow) = (tempfile::tempdir().unwrap(), mute());
        let (first, said) = chosen(cache.path(), &slow, Ok(()), false);
        assert_eq!(first.accel, Accel::Tcg);
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("KVM is not used, guests are emulated"), "{said:?}");
        assert!(said[0].contains("said nothing for 200ms; the next run tries again"), "{said:?}");
        assert_eq!(remembered(cache.path(), "10.0", None), None);
        assert_eq!(chosen(cache.path(), &speaking(), Ok(()), false).0.accel, Accel::Kvm, "asked again");
    }

    #[test]
    fn a_remembered_kvm_is_taken_back_when_it_stops_working() {
        let cache = tempfile::tempdir().unwrap();
        chosen(cache.path(), &speaking(), Ok(()), false);
        let (refused, said) = chosen(cache.path(), &speaking(), busy(), false);
        assert_eq!((refused.accel, said.len()), (Accel::Tcg, 1));
        assert!(refused.reason.contains("makes no virtual machine: Device or resource busy"), "{}", refused.reason);
        assert_eq!(remembered(cache.path(), "10.0", None), None);

        chosen(cache.path(), &speaking(), Ok(()), false);
        distrust(cache.path());
        assert_eq!(chosen(cache.path(), &dying(), Ok(()), false).0.accel, Accel::Tcg, "asked again");
        distrust(cache.path());
        assert!(remembered(cache.path(), "10.0", None).is_some(), "a remembered \"tcg\" stays");
    }

    #[test]
    fn a_host_without_kvm_has_nothing_to_be_told_and_neither_has_who_breaks_off() {
        let cache = tempfile::tempdir().unwrap();
        let absent = Err(Unusable::Absent("/dev/kvm".into()));
        let (choice, said) = chosen(cache.path(), &speaking(), absent, false);
        assert_eq!((choice.accel, said.len()), (Accel::Tcg, 0));
        assert_eq!(chosen(cache.path(), &mute(), Ok(()), true).1.len(), 0);
    }

    #[test]
    fn a_verdict_is_forgotten_after_a_reboot_or_an_upgrade() {
        let cache = tempfile::tempdir().unwrap();
        let memory = |boot_id: &str, qemu: &str| Memory {
            path: Memory::path(cache.path()),
            boot_id: boot_id.to_owned(),
            qemu: qemu.to_owned(),
        };
        assert_eq!(memory("a", "7.2").recall(), None);
        memory("a", "7.2").keep(&Acceleration { accel: Accel::Tcg, reason: "dead".to_owned() });
        assert!(memory("a", "7.2").recall().unwrap().reason.starts_with("dead; found earlier, remove "));
        assert_eq!(memory("b", "7.2").recall(), None);
        assert_eq!(memory("a", "10.0").recall(), None);
        fs::write(Memory::path(cache.path()), "{").unwrap();
        assert_eq!(memory("a", "7.2").recall(), None);
    }

    #[test]
    fn deadlines_follow_the_measured_boot_within_reason() {
        let scale = |accel, ms| {
            let acceleration = Acceleration { accel, reason: String::new() };
            acceleration.time_scale(Some(Duration::from_millis(ms)))
        };
        assert_eq!(scale(Accel::Kvm, 300), 1.0);
        assert_eq!(scale(Accel::Tcg, 300), 4.0);
        assert_eq!(scale(Accel::Tcg, 6000), 10.0);
        assert_eq!(scale(Accel::Tcg, 600_000), 40.0);
        assert_eq!(forced_to("xen").unwrap_err().to_string(), "NETKIT_LAB_ACCEL is `xen`; it takes `kvm` or `tcg`");
    }
}
