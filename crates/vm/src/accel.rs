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

/// The choice for guests of a size, if no guest has to be booted for it; otherwise see [`choose`].
///
/// # Errors
/// [`VmError::AccelOverride`] if [`ACCEL_VARIABLE`] has another value.
pub fn known(
    asking: &Asking<'_>,
    qemu: Option<&Path>,
    memory_mib: u32,
    cpus: u32,
) -> Result<Option<Acceleration>, VmError> {
    match forced() {
        Some(value) => forced_to(&value).map(Some),
        None => {
            let memory = Memory::of(asking.cache, asking.qemu_version, qemu).sized(memory_mib, cpus);
            Ok(untested(&memory, kvm::usable(), asking))
        }
    }
}

fn forced() -> Option<String> {
    env::var(ACCEL_VARIABLE).ok().filter(|value| !value.is_empty())
}

/// Chooses the accelerator for guests like `spec`, ignoring the accelerator in `spec`.
///
/// Boots such a guest if there is no cached result; this takes about a second if KVM works or fails at once.
///
/// # Errors
/// [`VmError::AccelOverride`] if [`ACCEL_VARIABLE`] has another value, and errors that prevent any launch.
pub fn choose(launcher: &dyn Launcher, spec: &GuestSpec, asking: &Asking<'_>) -> Result<Acceleration, VmError> {
    match forced() {
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
    let memory = Memory::of(asking.cache, asking.qemu_version, spec.qemu.as_deref()).sized(spec.memory_mib, spec.cpus);
    if let Some(verdict) = untested(&memory, device, asking) {
        return Ok(verdict);
    }
    let verdict = match probe::ask(launcher, spec, patience, asking.stop)? {
        Some(answer) => memory.learn(answer),
        None => Acceleration { accel: Accel::Tcg, reason: "the test of KVM was interrupted".to_owned() },
    };
    Ok(told(verdict, asking))
}

/// The choice that needs no test.
fn untested(memory: &Memory, device: Result<(), Unusable>, asking: &Asking<'_>) -> Option<Acceleration> {
    let verdict = match device {
        Err(absent @ Unusable::Absent(_)) => {
            return Some(Acceleration { accel: Accel::Tcg, reason: absent.to_string() });
        }
        Err(unusable) => {
            // A cached result says that KVM works, but it no longer does.
            memory.forget();
            Some(Acceleration { accel: Accel::Tcg, reason: unusable.to_string() })
        }
        Ok(()) => memory.recall(),
    };
    verdict.map(|verdict| told(verdict, asking))
}

/// Says that KVM is there and not used.
fn told(verdict: Acceleration, asking: &Asking<'_>) -> Acceleration {
    if verdict.accel == Accel::Tcg && !(asking.stop)() {
        (asking.say)(&format!(
            "KVM is not used; guests are emulated, which is several times slower: {}",
            verdict.reason
        ));
    }
    verdict
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
    // Errors are ignored: the failed run is reported anyway.
    let _ = Memory::change(&Memory::path(cache), |all| all.retain(|kept| kept.verdict.accel != Accel::Kvm));
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// All results of a cache, latest last. An unreadable file has none.
    pub(crate) fn parse(bytes: &[u8]) -> Vec<Self> {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// Whether the result counts without another probe.
    pub(crate) fn holds(&self) -> bool {
        self.slow.is_none_or(Slow::holds)
    }
}

/// Results that are kept: of the QEMUs and sizes that were used last.
const MOST: usize = 16;

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
        // The same QEMU may have many names: a cache may link to the tools of another.
        let chosen = qemu.unwrap_or(Path::new(""));
        let chosen = fs::canonicalize(chosen).unwrap_or_else(|_| chosen.to_owned());
        let chosen = chosen.display();
        Self {
            path: Self::path(cache),
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            qemu: format!("{qemu_version} {chosen}"),
            size: None,
        }
    }

    /// Only for guests with this memory and these processors.
    fn sized(self, memory_mib: u32, cpus: u32) -> Self {
        Self { size: Some(format!("{memory_mib} MiB, {cpus} processors")), ..self }
    }

    fn path(cache: &Path) -> PathBuf {
        cache.join("accelerator.json")
    }

    /// An unreadable cache file counts as no result.
    fn read(path: &Path) -> Vec<Remembered> {
        fs::read(path).map(|bytes| Remembered::parse(&bytes)).unwrap_or_default()
    }

    /// Replaces the cache's results.
    fn change(path: &Path, change: impl FnOnce(&mut Vec<Remembered>)) -> std::io::Result<()> {
        let mut all = Self::read(path);
        let before = all.clone();
        change(&mut all);
        if all == before {
            return Ok(());
        }
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        file::replace(path, &serde_json::to_vec(&all)?)
    }

    /// The cached result for this boot and this QEMU.
    fn current(&self) -> Option<Remembered> {
        Self::read(&self.path).into_iter().rfind(|kept| self.is_about(kept))
    }

    fn is_about(&self, kept: &Remembered) -> bool {
        let same_host = !self.boot_id.is_empty() && kept.boot_id == self.boot_id && kept.qemu == self.qemu;
        same_host && self.size.as_ref().is_none_or(|size| *size == kept.size)
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
        // If the file can't be written, the device is still checked before KVM is used.
        let _ = Self::change(&self.path, |all| all.retain(|kept| kept.verdict.accel != Accel::Kvm));
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
        let _ = Self::change(&self.path, |all| {
            // Nothing of an earlier boot is valid again.
            all.retain(|earlier| earlier.boot_id == self.boot_id && !self.is_about(earlier));
            all.push(kept);
            all.drain(..all.len().saturating_sub(MOST));
        });
    }
}

#[cfg(test)]
#[path = "accel_tests.rs"]
mod tests;
