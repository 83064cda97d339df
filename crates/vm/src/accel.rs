//! Which accelerator guests can have.
//!
//! A `/dev/kvm` that opens proves nothing: under some hypervisors QEMU aborts, or the guest stands still, as soon as
//! it runs. So KVM is believed when a guest has spoken under it, and not before. The verdict is remembered per boot
//! of the host and version of QEMU.

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

/// Forces an accelerator: `kvm` or `tcg`.
pub const ACCEL_VARIABLE: &str = "NETKIT_LAB_ACCEL";

/// How long a guest under KVM may take to its agent's first word. A working one takes about a second.
const PROBE_TIME: Duration = Duration::from_secs(15);
/// How long a virtual machine whose port has closed may take to be gone, so that its last words are complete.
const LAST_WORDS: Duration = Duration::from_secs(2);

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

/// Chooses the accelerator for guests like `spec` (whose own accelerator does not count).
///
/// Boots one such guest where nobody has decided before; that takes about a second where KVM works or fails at once.
///
/// # Errors
/// [`VmError::AccelOverride`] for a value of [`ACCEL_VARIABLE`] that names no accelerator, and what prevents any
/// launch.
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

/// Boots a guest under KVM and waits for its agent's first word.
fn probe(launcher: &dyn Launcher, spec: &GuestSpec) -> Result<Acceleration, VmError> {
    let spec = GuestSpec { name: "kvm-probe".to_owned(), accel: Accel::Kvm, ..spec.clone() };
    let begin = Instant::now();
    let mut guest = launcher.launch(&spec)?;
    let spoke = first_word(guest.as_mut(), begin + PROBE_TIME);
    let took = begin.elapsed();
    let verdict = match spoke {
        Ok(()) => {
            let reason = format!("a guest spoke under KVM after {:.1} s", took.as_secs_f32());
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
        Err(VmError::Exited { exit, .. }) => return Err(format!("the guest died under it ({exit})")),
        Err(error) => return Err(error.to_string()),
    };
    let mut buf = [0; 1];
    let left = deadline.saturating_duration_since(Instant::now());
    match channel.recv(&mut buf, left) {
        Ok(Recv::Bytes(_)) => Ok(()),
        Ok(Recv::Timeout) => Err(format!("a guest under it said nothing for {} s", PROBE_TIME.as_secs())),
        Err(error) => Err(format!("a guest under it could not be heard: {error}")),
        Ok(Recv::Closed) => {
            let deadline = Instant::now() + LAST_WORDS;
            loop {
                if let Some(exit) = guest.exited() {
                    return Err(format!("the guest died under it ({exit})"));
                }
                if Instant::now() >= deadline {
                    return Err("the guest died under it".to_owned());
                }
                thread::sleep(super::process::POLL);
            }
        }
    }
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
    fn of(cache: &Path, qemu_version: &str, spec: &GuestSpec) -> Self {
        let chosen = spec.qemu.as_deref().unwrap_or(Path::new("")).display();
        Self {
            path: cache.join("accelerator.json"),
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            qemu: format!("{qemu_version} {chosen}"),
        }
    }

    /// Whatever is unreadable counts as forgotten.
    fn recall(&self) -> Option<Acceleration> {
        let kept: Remembered = serde_json::from_slice(&fs::read(&self.path).ok()?).ok()?;
        if self.boot_id.is_empty() || kept.boot_id != self.boot_id || kept.qemu != self.qemu {
            return None;
        }
        let Acceleration { accel, reason } = kept.verdict;
        let reason = format!("{reason}; found earlier, remove {} to try again", self.path.display());
        Some(Acceleration { accel, reason })
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
    use crate::fake::{FakeLauncher, specification};
    use lab_record::guest_exit::GuestExit;

    fn probed(launcher: &FakeLauncher) -> Acceleration {
        let dir = tempfile::tempdir().unwrap();
        probe(launcher, &specification(dir.path().to_owned())).unwrap()
    }

    #[test]
    fn kvm_is_believed_once_a_guest_has_spoken_under_it() {
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
        assert_eq!(verdict.reason, format!("/dev/kvm opens, but the guest died under it (exit code 1: {abort})"));
    }

    #[test]
    fn a_verdict_is_forgotten_after_a_reboot_or_an_upgrade() {
        let cache = tempfile::tempdir().unwrap();
        let memory = |boot_id: &str, qemu: &str| Memory {
            path: cache.path().join("accelerator.json"),
            boot_id: boot_id.to_owned(),
            qemu: qemu.to_owned(),
        };
        assert_eq!(memory("a", "7.2").recall(), None);
        memory("a", "7.2").keep(&Acceleration { accel: Accel::Tcg, reason: "dead".to_owned() });
        assert!(memory("a", "7.2").recall().unwrap().reason.starts_with("dead; found earlier, remove "));
        assert_eq!(memory("b", "7.2").recall(), None);
        assert_eq!(memory("a", "10.0").recall(), None);
        fs::write(cache.path().join("accelerator.json"), "{").unwrap();
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
