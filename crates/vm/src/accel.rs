//! Chooses the accelerator of guests.
//!
//! An openable `/dev/kvm` is not enough: under some hypervisors QEMU aborts or the guest hangs as soon as it runs. KVM
//! is used only if a guest under KVM has sent a message. Whether the guest answered or QEMU ended is cached for each
//! boot of the host, each version of QEMU, and each size of a guest. After a timeout the next run probes again, since the host may have been
//! busy; after several timeouts in a row, probing pauses for some time.

use super::{
    Accel, GuestSpec, Launcher, VmError,
    kvm::{self, Unusable},
    probe::{self, KvmAnswer, PATIENCE, Patience},
};
use lab_base::file;
use lab_record::event::Accelerator;
use serde::{Deserialize, Serialize};
use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Environment variable that forces an accelerator: `kvm` or `tcg`.
pub const ACCEL_VARIABLE: &str = "NETKIT_LAB_ACCEL";

/// Time from launch to first message for which the deadlines are written.
const REFERENCE_BOOT: Duration = Duration::from_millis(600);

/// Pause after the second consecutive timeout; each further one doubles it.
const PAUSE: Duration = Duration::from_secs(300);
/// Maximum pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(86_400);

/// The accelerator, and why it was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceleration {
    pub accel: Accel,
    /// The reason, one line.
    pub reason: String,
}

impl From<&Acceleration> for Accelerator {
    fn from(chosen: &Acceleration) -> Self {
        let time_scale = chosen.time_scale(None);
        Self { name: chosen.accel.name().to_owned(), reason: chosen.reason.clone(), time_scale }
    }
}

impl Acceleration {
    /// Factor for all deadlines, before a guest has booted or after one took `boot` from launch to its first message.
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

/// Parameters of the choice: its cache, and callbacks.
pub struct Asking<'a> {
    /// The lab's cache directory.
    pub cache: &'a Path,
    /// QEMU's version: a cached result of another version is not used.
    pub qemu_version: &'a str,
    /// Receives a line if KVM exists but is not used.
    pub say: &'a dyn Fn(&str),
    /// Returns true if the user has interrupted the choice.
    pub stop: &'a dyn Fn() -> bool,
}

/// Chooses the accelerator for guests like `spec`, ignoring the accelerator in `spec`.
///
/// Boots such a guest if there is no cached result; this takes about a second if KVM works or fails at once.
///
/// # Errors
/// [`VmError::AccelOverride`] if [`ACCEL_VARIABLE`] has another value, and errors that prevent any launch.
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
    let memory = Memory::of(asking.cache, asking.qemu_version, spec.qemu.as_deref()).sized(spec);
    let verdict = match device {
        Err(absent @ Unusable::Absent(_)) => {
            return Ok(Acceleration { accel: Accel::Tcg, reason: absent.to_string() });
        }
        Err(unusable) => {
            // A cached result says that KVM works, but it no longer does.
            memory.forget();
            Acceleration { accel: Accel::Tcg, reason: unusable.to_string() }
        }
        Ok(()) => match memory.recall() {
            Some(verdict) => verdict,
            None => match probe::ask(launcher, spec, patience, asking.stop)? {
                Some(answer) => memory.learn(answer),
                None => Acceleration { accel: Accel::Tcg, reason: "the test of KVM was interrupted".to_owned() },
            },
        },
    };
    if verdict.accel == Accel::Tcg && !(asking.stop)() {
        (asking.say)(&format!(
            "KVM is not used; guests are emulated, which is several times slower: {}",
            verdict.reason
        ));
    }
    Ok(verdict)
}

/// The cached result for this boot of the host, without probing.
pub fn remembered(cache: &Path, qemu_version: &str, qemu: Option<&Path>) -> Option<Acceleration> {
    Memory::of(cache, qemu_version, qemu).verdict()
}

/// Path of the cached result.
pub fn kept_in(cache: &Path) -> PathBuf {
    Memory::path(cache)
}

/// Removes a cached "kvm", after guests under KVM did not boot. The next choice probes again.
pub fn distrust(cache: &Path) {
    let path = Memory::path(cache);
    if Memory::read(&path).is_some_and(|kept| kept.verdict.accel == Accel::Kvm) {
        // Errors are ignored: the failed run is reported anyway.
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

/// A result is valid for one boot of the host and one version of QEMU, since a reboot or an upgrade may fix KVM, and for
/// guests of one size: one that the host has no memory for says nothing about others.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    boot_id: String,
    qemu: String,
    /// Memory and processors of the guest.
    #[serde(default)]
    size: String,
    verdict: Acceleration,
    /// Timeouts of guests under KVM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slow: Option<Slow>,
}

impl Remembered {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Whether the result counts without another probe.
    pub(crate) fn holds(&self) -> bool {
        self.slow.is_none_or(Slow::holds)
    }
}

/// Consecutive timeouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Slow {
    /// Number of consecutive timeouts.
    times: u32,
    /// Time of the last timeout.
    since: SystemTime,
}

impl Slow {
    /// Time until the next probe.
    fn pause(self) -> Duration {
        match self.times {
            0 | 1 => Duration::ZERO,
            times => PAUSE.saturating_mul(1 << (times - 2).min(16)).min(LONGEST_PAUSE),
        }
    }

    /// Whether it is too early for another probe. If the clock was set back, it is not.
    fn holds(self) -> bool {
        self.since.elapsed().is_ok_and(|age| age < self.pause())
    }
}

struct Memory {
    path: PathBuf,
    boot_id: String,
    qemu: String,
    /// `None`: any size.
    size: Option<String>,
}

impl Memory {
    fn of(cache: &Path, qemu_version: &str, qemu: Option<&Path>) -> Self {
        let chosen = qemu.unwrap_or(Path::new("")).display();
        Self {
            path: Self::path(cache),
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            qemu: format!("{qemu_version} {chosen}"),
            size: None,
        }
    }

    /// Only for guests with the memory and the processors of this one.
    fn sized(self, spec: &GuestSpec) -> Self {
        Self { size: Some(format!("{} MiB, {} processors", spec.memory_mib, spec.cpus)), ..self }
    }

    fn path(cache: &Path) -> PathBuf {
        cache.join("accelerator.json")
    }

    /// An unreadable cache file counts as no result.
    fn read(path: &Path) -> Option<Remembered> {
        Remembered::parse(&fs::read(path).ok()?)
    }

    /// The cached result for this boot and this QEMU.
    fn current(&self) -> Option<Remembered> {
        let kept = Self::read(&self.path)?;
        let same_host = !self.boot_id.is_empty() && kept.boot_id == self.boot_id && kept.qemu == self.qemu;
        (same_host && self.size.as_ref().is_none_or(|size| *size == kept.size)).then_some(kept)
    }

    fn verdict(&self) -> Option<Acceleration> {
        self.current().filter(Remembered::holds).map(|kept| kept.verdict)
    }

    fn recall(&self) -> Option<Acceleration> {
        let Acceleration { accel, reason } = self.verdict()?;
        let reason = format!("{reason}; cached result; remove {} to probe again", self.path.display());
        Some(Acceleration { accel, reason })
    }

    fn forget(&self) {
        if Self::read(&self.path).is_some_and(|kept| kept.verdict.accel == Accel::Kvm) {
            // If the file can't be removed, the device is still checked before KVM is used.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// The accelerator that follows from a probe's answer.
    fn learn(&self, answer: KvmAnswer) -> Acceleration {
        let (accel, reason, slow) = match answer {
            KvmAnswer::Spoke(after) => {
                (Accel::Kvm, format!("a guest under KVM answered after {:.1} s", after.as_secs_f32()), None)
            }
            KvmAnswer::Died(how) => (Accel::Tcg, format!("/dev/kvm opens, but {how}"), None),
            KvmAnswer::Unclear(why) => {
                let before = self.current().and_then(|kept| kept.slow).map_or(0, |slow| slow.times);
                let slow = Slow { times: before.saturating_add(1), since: SystemTime::now() };
                let again = match slow.pause() {
                    Duration::ZERO => "the next run tests KVM again".to_owned(),
                    pause => {
                        format!("{} guests in a row; KVM is tested again in {} min", slow.times, pause.as_secs() / 60)
                    }
                };
                (Accel::Tcg, format!("/dev/kvm opens, but {why}; {again}"), Some(slow))
            }
        };
        let verdict = Acceleration { accel, reason };
        self.keep(&verdict, slow);
        verdict
    }

    /// Errors are ignored: a result that can't be written is probed again.
    fn keep(&self, verdict: &Acceleration, slow: Option<Slow>) {
        let size = self.size.clone().unwrap_or_default();
        let kept =
            Remembered { boot_id: self.boot_id.clone(), qemu: self.qemu.clone(), size, verdict: verdict.clone(), slow };
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
        let mut kept = Memory::read(&path).unwrap();
        kept.slow = kept.slow.map(|slow| Slow { since: SystemTime::now() - PAUSE, ..slow });
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
        assert!(
            refused.reason.contains("can't create a virtual machine: Device or resource busy"),
            "{}",
            refused.reason
        );
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
}
