//! virtme-ng as it comes: `vng --exec true` on the host's root, the yardstick of `lab bench`.

use super::{
    Accel, VmError,
    process::{Group, POLL},
};
use std::{
    fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A stock boot that takes longer is broken.
const LIMIT: Duration = Duration::from_secs(180);

/// What is booted.
#[derive(Debug)]
pub struct Stock<'a> {
    /// The `vng` program.
    pub vng: &'a Path,
    /// `vmlinuz`.
    pub kernel: &'a Path,
    /// The kernel's modules, among them 9p.
    pub modules: &'a Path,
    /// `uname -r`.
    pub release: &'a str,
    /// Guest memory, MiB.
    pub memory_mib: u32,
    /// The accelerator.
    pub accel: Accel,
}

/// One stock boot.
#[derive(Debug, Clone, Copy)]
pub struct StockBoot {
    /// From vng's start to its end.
    pub took: Duration,
    /// Peak resident memory of QEMU, KiB.
    pub peak_memory_kib: Option<u64>,
}

impl Stock<'_> {
    /// Boots, runs `true`, and ends.
    ///
    /// # Errors
    /// [`VmError`] where vng does not start, fails, or takes too long.
    pub fn boot(&self) -> Result<StockBoot, VmError> {
        let failed = |problem: String| VmError::Tool { program: "vng --exec true".to_owned(), problem };
        let file = |error: std::io::Error| failed(error.to_string());
        // vng looks for modules in lib/modules/<release> above the kernel.
        let dir = tempfile::tempdir().map_err(file)?;
        let boot = dir.path().join("boot");
        let modules = dir.path().join("lib/modules");
        fs::create_dir_all(&boot).and_then(|()| fs::create_dir_all(&modules)).map_err(file)?;
        let kernel = boot.join(format!("vmlinuz-{}", self.release));
        fs::copy(self.kernel, &kernel).map_err(file)?;
        symlink(self.modules, modules.join(self.release)).map_err(file)?;

        let mut command = Command::new(self.vng);
        command.arg("--run").arg(&kernel).args(["--cpus", "1", "--memory", &format!("{}M", self.memory_mib)]);
        if self.accel == Accel::Tcg {
            command.arg("--disable-kvm");
        }
        command.args(["--exec", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(path) = super::vng::search_path(self.vng) {
            command.env("PATH", path);
        }
        let begin = Instant::now();
        let spawned = command.process_group(0).spawn();
        let mut child = spawned.map_err(|source| VmError::Spawn { program: self.vng.to_owned(), source })?;
        let group = Group::led_by(child.id());
        let mut peak = None;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(file)? {
                break status;
            }
            peak = peak.max(group.qemu().and_then(|qemu| qemu.status().ok()?.vmhwm));
            if begin.elapsed() > LIMIT {
                group.kill_all();
                let _ = child.wait();
                return Err(failed(format!("no end within {} s", LIMIT.as_secs())));
            }
            thread::sleep(POLL * 4);
        };
        let took = begin.elapsed();
        group.kill_all();
        if status.success() {
            Ok(StockBoot { took, peak_memory_kib: peak })
        } else {
            Err(failed(format!(
                "{status} for kernel {}; a stock guest needs 9p, which cloud kernels lack",
                self.release
            )))
        }
    }
}
