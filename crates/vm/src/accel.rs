//! Chooses the accelerator of guests.
//!
//! An openable `/dev/kvm` is not enough: under some hypervisors QEMU aborts or the guest hangs as soon as it runs. KVM is used
//! only if a guest under KVM has sent a message. The result is cached for each boot of the host and each version of QEMU.

use super::{Accel, Guest, GuestSpec, Launcher, Recv, VmError};
use lab_base::file;
use lab_record::event::Accelerator;
use serde::{Deserialize, Serialize};
use std::{
    env, fs,
    fs::OpenOptions,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Environment variable that forces an accelerator: `kvm` or `tcg`.
pub const ACCEL_VARIABLE: &str = "NETKIT_LAB_ACCEL";

/// Maximum time to the agent's first message of a guest under KVM. A working one needs about a second.
const PROBE_TIME: Duration = Duration::from_secs(15);
/// Maximum wait for a virtual machine to end whose port has closed, so that its error output is complete.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Time from launch to first message for which the deadlines are written.
const REFERENCE_BOOT: Duration = Duration::from_millis(600);

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

/// Chooses the accelerator for guests like `spec`, ignoring the accelerator in `spec`.
///
/// Boots such a guest if there is no cached result; this takes about a second if KVM works or fails at once.
///
/// # Errors
/// [`VmError::AccelOverride`] if [`ACCEL_VARIABLE`] has another value, and errors that prevent any launch.
pub fn choose(
    launcher: &dyn Launcher,
    spec: &GuestSpec,
    qemu_version: &str,
    cache: &Path,
) -> Result<Acceleration, VmError> {
    let forced = env::var(ACCEL_VARIABLE).ok().filter(|value| !value.is_empty());
    if let Some(value) = forced {
        return forced_to(&value);
    }
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        return Ok(Acceleration { accel: Accel::Tcg, reason: format!("/dev/kvm: {error}") });
    }
    let memory = Memory::of(cache, qemu_version, spec);
    if let Some(verdict) = memory.recall() {
        return Ok(verdict);
    }
    let verdict = probe(launcher, spec)?;
    memory.keep(&verdict);
    Ok(verdict)
}

fn forced_to(value: &str) -> Result<Acceleration, VmError> {
    let accel = [Accel::Kvm, Accel::Tcg]
        .into_iter()
        .find(|accel| accel.name() == value)
        .ok_or_else(|| VmError::AccelOverride(value.chars().take(64).collect()))?;
    Ok(Acceleration { accel, reason: format!("{ACCEL_VARIABLE}={value}") })
}

/// Boots a guest under KVM and waits for its agent's first message.
fn probe(launcher: &dyn Launcher, spec: &GuestSpec) -> Result<Acceleration, VmError> {
    let spec = GuestSpec { name: "kvm-probe".to_owned(), accel: Accel::Kvm, ..spec.clone() };
    let begin = Instant::now();
    let mut guest = launcher.launch(&spec)?;
    let spoke = first_word(guest.as_mut(), begin + PROBE_TIME);
    let took = begin.elapsed();
    let verdict = match spoke {
        Ok(()) => {
            let reason = format!("a guest under KVM answered after {:.1} s", took.as_secs_f32());
            Acceleration { accel: Accel::Kvm, reason }
        }
        Err(problem) => Acceleration { accel: Accel::Tcg, reason: format!("/dev/kvm opens, but {problem}") },
    };
    guest.kill();
    Ok(verdict)
}

fn first_word(guest: &mut dyn Guest, deadline: Instant) -> Result<(), String> {
    let mut channel = match guest.connect(deadline) {
        Ok(channel) => channel,
        Err(VmError::Exited { exit, .. }) => return Err(format!("QEMU ended under KVM ({exit})")),
        Err(error) => return Err(error.to_string()),
    };
    let mut buf = [0; 1];
    let left = deadline.saturating_duration_since(Instant::now());
    match channel.recv(&mut buf, left) {
        Ok(Recv::Bytes(_)) => Ok(()),
        Ok(Recv::Timeout) => Err(format!("a guest under KVM sent nothing for {} s", PROBE_TIME.as_secs())),
        Err(error) => Err(format!("reading from a guest under KVM failed: {error}")),
        Ok(Recv::Closed) => {
            let deadline = Instant::now() + LAST_WORDS;
            loop {
                if let Some(exit) = guest.exited() {
                    return Err(format!("QEMU ended under KVM ({exit})"));
                }
                if Instant::now() >= deadline {
                    return Err("QEMU ended under KVM".to_owned());
                }
                thread::sleep(super::process::POLL);
            }
        }
    }
}

/// A result is valid for one boot of the host and one version of QEMU: a reboot or an upgrade may fix KVM.
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
    fn of(cache: &Path, qemu_version: &str, spec: &GuestSpec) -> Self {
        let chosen = spec.qemu.as_deref().unwrap_or(Path::new("")).display();
        Self {
            path: cache.join("accelerator.json"),
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            qemu: format!("{qemu_version} {chosen}"),
        }
    }

    /// An unreadable cache file counts as no result.
    fn recall(&self) -> Option<Acceleration> {
        let kept: Remembered = serde_json::from_slice(&fs::read(&self.path).ok()?).ok()?;
        if self.boot_id.is_empty() || kept.boot_id != self.boot_id || kept.qemu != self.qemu {
            return None;
        }
        let Acceleration { accel, reason } = kept.verdict;
        let reason = format!("{reason}; cached result; remove {} to probe again", self.path.display());
        Some(Acceleration { accel, reason })
    }

    /// Errors are ignored: a result that can't be written is probed again.
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
    use crate::fake::{FakeLauncher, specification};
    use lab_record::guest_exit::GuestExit;

    fn probed(launcher: &FakeLauncher) -> Acceleration {
        let dir = tempfile::tempdir().unwrap();
        probe(launcher, &specification(dir.path().to_owned())).unwrap()
    }

    #[test]
    fn kvm_is_used_only_if_a_guest_has_answered_under_it() {
        let works = FakeLauncher::new(|agent| {
            assert_eq!(agent.spec().accel, Accel::Kvm);
            agent.channel().send(b"hello").unwrap();
        });
        assert_eq!(probed(&works).accel, Accel::Kvm);

        let abort = "kvm_buf_set_msrs: Assertion failed";
        let dies = FakeLauncher::new(move |agent| {
            agent.set_exit(GuestExit { code: Some(1), signal: None, stderr: abort.to_owned() });
        });
        let verdict = probed(&dies);
        assert_eq!(verdict.accel, Accel::Tcg);
        assert_eq!(verdict.reason, format!("/dev/kvm opens, but QEMU ended under KVM (exit code 1: {abort})"));
    }

    #[test]
    fn a_cached_result_is_invalid_after_a_reboot_or_an_upgrade() {
        let cache = tempfile::tempdir().unwrap();
        let memory = |boot_id: &str, qemu: &str| Memory {
            path: cache.path().join("accelerator.json"),
            boot_id: boot_id.to_owned(),
            qemu: qemu.to_owned(),
        };
        assert_eq!(memory("a", "7.2").recall(), None);
        memory("a", "7.2").keep(&Acceleration { accel: Accel::Tcg, reason: "dead".to_owned() });
        assert!(memory("a", "7.2").recall().unwrap().reason.starts_with("dead; cached result; remove "));
        assert_eq!(memory("b", "7.2").recall(), None);
        assert_eq!(memory("a", "10.0").recall(), None);
        fs::write(cache.path().join("accelerator.json"), "{").unwrap();
        assert_eq!(memory("a", "7.2").recall(), None);
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
        assert_eq!(forced_to("xen").unwrap_err().to_string(), "NETKIT_LAB_ACCEL is `xen`; it takes `kvm` or `tcg`");
    }
}
