//! Stock virtme-ng: `vng --exec true` on the host's root, the baseline of `lab bench`.

use super::{
    Accel, VmError, orphans,
    process::{Group, POLL},
};
use lab_base::programs;
use std::{
    fs::{self, File},
    os::unix::{fs::symlink, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Maximum time of a stock boot.
const LIMIT: Duration = Duration::from_secs(180);

/// Parameters of a stock boot.
#[derive(Debug)]
pub struct Stock<'a> {
    /// The `vng` program.
    pub vng: &'a Path,
    /// QEMU; `None` for vng's own choice.
    pub qemu: Option<&'a Path>,
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

/// Result of a stock boot.
#[derive(Debug, Clone, Copy)]
pub struct StockBoot {
    /// From vng's start to its end.
    pub took: Duration,
    /// Peak resident memory of QEMU, KiB.
    pub peak_memory_kib: Option<u64>,
}

impl Stock<'_> {
    /// Boots once with the guest's whole output, and checks that `true` was run. Without udev in the guest, vng loses
    /// the exit code and returns 255, as after a panic, so that [`Self::boot`] could not detect a failure.
    ///
    /// # Errors
    /// As [`Self::boot`], and if the guest never ran the command.
    pub fn prove(&self) -> Result<(), VmError> {
        let failed = |problem: String| VmError::Tool { program: "vng --exec true".to_owned(), problem };
        let log = tempfile::NamedTempFile::new().map_err(|error| failed(error.to_string()))?;
        self.run(Some(log.path()))?;
        let said = lab_guard::bounded::tail(log.path(), 1 << 20).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        if said.contains("script exited with code 0") {
            return Ok(());
        }
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing").trim().to_owned();
        Err(failed(format!(
            "kernel {} did not run the command; its last output: {last} (a stock guest needs a kernel with 9p, and \
             busybox-static on the host, which `lab setup` installs)",
            self.release
        )))
    }

    /// Boots, runs `true`, and ends.
    ///
    /// # Errors
    /// [`VmError`] if vng does not start or exceeds its time limit.
    pub fn boot(&self) -> Result<StockBoot, VmError> {
        self.run(None)
    }

    fn run(&self, log: Option<&Path>) -> Result<StockBoot, VmError> {
        let failed = |problem: String| VmError::Tool { program: "vng --exec true".to_owned(), problem };
        let file = |error: std::io::Error| failed(error.to_string());
        // vng searches for modules in lib/modules/<release> above the kernel.
        let dir = orphans::scratch()?;
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
        if let Some(log) = log {
            let log = File::create(log).map_err(file)?;
            command.arg("--verbose").stdout(log.try_clone().map_err(file)?).stderr(log);
        }
        if let Some(qemu) = self.qemu {
            command.arg("--qemu").arg(qemu);
        }
        command.env("PATH", programs::search_path_behind(self.vng.parent()));
        let begin = Instant::now();
        super::confine::bound(&mut command);
        let spawned = command.process_group(0).spawn();
        let mut child = spawned.map_err(|cause| VmError::Spawn { program: self.vng.to_owned(), cause })?;
        let group = Group::led_by(child.id());
        let mut peak = None;
        while child.try_wait().map_err(file)?.is_none() {
            peak = peak.max(group.qemu().and_then(|qemu| qemu.status().ok()?.vmhwm));
            if begin.elapsed() > LIMIT {
                group.kill_all();
                let _ = child.wait();
                return Err(failed(format!("no end within {} s", LIMIT.as_secs())));
            }
            thread::sleep(POLL * 4);
        }
        let took = begin.elapsed();
        group.kill_all();
        Ok(StockBoot { took, peak_memory_kib: peak })
    }
}
