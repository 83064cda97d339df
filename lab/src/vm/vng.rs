//! Guests by virtme-ng.
//!
//! The process is a `std::process` one and not duct's: the guest is a tree of four processes (vng, a shell,
//! virtme-run, QEMU) that has to be its own process group, to be killed as one and to be out of reach of the
//! terminal's Ctrl-C, which the run loop answers in its own order.
//!
//! vng's exit code is not a verdict (255 is a panic, a signal, an abort of QEMU, or 255) and is never read as one.

use super::{
    Channel, Guest, GuestExit, GuestSpec, Launcher, SocketChannel, VmError,
    command::{Files, arguments},
    orphans,
    process::{Group, POLL},
};
use procfs::process::Process;
use std::{
    cell::Cell,
    env, fs,
    fs::{File, OpenOptions},
    io,
    os::unix::{net::UnixStream, process::CommandExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long QEMU may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(1);

/// Boots guests with virtme-ng and QEMU.
#[derive(Debug)]
pub struct VngLauncher(());

impl VngLauncher {
    /// Also ends guests that an earlier lab left behind when it was killed.
    pub fn new() -> Self {
        orphans::reap();
        Self(())
    }
}

impl Default for VngLauncher {
    fn default() -> Self {
        Self::new()
    }
}

impl Launcher for VngLauncher {
    fn launch(&self, spec: &GuestSpec) -> Result<Box<dyn Guest>, VmError> {
        Ok(Box::new(VngGuest::start(spec)?))
    }
}

/// A guest's processes and its files.
#[derive(Debug)]
struct VngGuest {
    name: String,
    child: Child,
    group: Group,
    files: Files,
    exit: Option<GuestExit>,
    /// Known once the port is.
    qemu: Option<Process>,
    peak_memory_kib: Cell<Option<u64>>,
    /// Removed when the guest is dropped.
    _dir: TempDir,
}

impl VngGuest {
    fn start(spec: &GuestSpec) -> Result<Self, VmError> {
        let file = |what, path: &Path| {
            let path = path.to_owned();
            move |source| VmError::File { what, path, source }
        };
        // A directory per launch: a guest never meets the sockets of the one before it.
        let dir = tempfile::Builder::new()
            .prefix("g")
            .tempdir_in(&spec.run_dir)
            .map_err(file("run directory", &spec.run_dir))?;
        let files = Files::below(dir.path());
        fs::create_dir(&files.root).map_err(file("guest root", &files.root))?;
        let arguments = arguments(spec, &files)?;
        let console = File::create(&spec.console).map_err(file("console", &spec.console))?;
        // QEMU opens standard error anew by its path and truncates it, so ours must not keep an offset.
        let stderr = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&files.stderr)
            .map_err(file("standard error", &files.stderr))?;
        let mut command = Command::new(&spec.vng);
        command
            .args(arguments)
            .stdin(Stdio::null())
            // vng connects the serial line to standard output.
            .stdout(console)
            .stderr(stderr)
            .process_group(0)
            // vng reads default options from the user's home, and any of them would change what is tested.
            .env("HOME", dir.path());
        // Where vng itself came from `pip install --user`, Python still has to find it.
        if let Some(home) = env::home_dir().filter(|_| env::var_os("PYTHONUSERBASE").is_none()) {
            command.env("PYTHONUSERBASE", home.join(".local"));
        }
        if let Some(path) = search_path(&spec.vng) {
            command.env("PATH", path);
        }
        let child = command.spawn().map_err(|source| VmError::Spawn { program: spec.vng.clone(), source })?;
        Ok(Self {
            name: spec.name.clone(),
            group: Group::led_by(child.id()),
            child,
            files,
            exit: None,
            qemu: None,
            peak_memory_kib: Cell::new(None),
            _dir: dir,
        })
    }

    /// What vng or QEMU said last, and first of all an error: a guest that stands still under KVM ends with a dump of
    /// its registers. Kernel messages are none of it: vng copies those to standard error too.
    fn last_words(&self) -> String {
        let text = fs::read(&self.files.stderr).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('[')).collect();
        let error = lines.iter().find(|line| line.to_ascii_lowercase().contains("error"));
        let line = error.or(lines.last()).copied().unwrap_or_default();
        line.chars().filter(|c| !c.is_control()).take(400).collect()
    }

    fn gone(&mut self, status: ExitStatus) -> GuestExit {
        // vng may have died alone.
        self.group.kill_all();
        let exit = GuestExit { code: status.code(), signal: status.signal(), stderr: self.last_words() };
        self.exit = Some(exit.clone());
        exit
    }
}

impl Guest for VngGuest {
    fn connect(&mut self, deadline: Instant) -> Result<Box<dyn Channel>, VmError> {
        let start = Instant::now();
        loop {
            let port = |source| VmError::Port { guest: self.name.clone(), source };
            match UnixStream::connect(&self.files.port) {
                Ok(stream) => {
                    self.qemu = self.group.qemu();
                    return Ok(Box::new(SocketChannel::new(stream).map_err(port)?));
                }
                // Not there yet, or there and not listening yet.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
                Err(error) => return Err(port(error)),
            }
            if let Some(exit) = self.exited() {
                return Err(VmError::Exited { guest: self.name.clone(), exit });
            }
            if Instant::now() >= deadline {
                return Err(VmError::ConnectTimeout { guest: self.name.clone(), waited: start.elapsed() });
            }
            thread::sleep(POLL);
        }
    }

    fn exited(&mut self) -> Option<GuestExit> {
        if self.exit.is_none() {
            // A guest that ends by itself takes the figure with it.
            self.peak_memory_kib();
            let status = self.child.try_wait().ok().flatten()?;
            self.gone(status);
        }
        self.exit.clone()
    }

    fn kill(&mut self) {
        // Once the leader is reaped, its pid may come to lead somebody else's group.
        if self.exited().is_some() {
            return;
        }
        if self.group.terminate_qemu() {
            let deadline = Instant::now() + GRACE;
            while Instant::now() < deadline {
                if self.exited().is_some() {
                    return;
                }
                thread::sleep(POLL);
            }
        }
        self.group.kill_all();
        if let Ok(status) = self.child.wait() {
            self.gone(status);
        }
    }

    fn peak_memory_kib(&self) -> Option<u64> {
        let now = self.qemu.as_ref().and_then(|qemu| qemu.status().ok()?.vmhwm);
        self.peak_memory_kib.set(now.or(self.peak_memory_kib.get()));
        self.peak_memory_kib.get()
    }

    fn qmp(&self) -> Option<&Path> {
        Some(&self.files.qmp)
    }
}

impl Drop for VngGuest {
    fn drop(&mut self) {
        self.kill();
    }
}

/// vng calls `virtme-run` by name: in a virtual environment that is next to vng, and nowhere else.
fn search_path(vng: &Path) -> Option<std::ffi::OsString> {
    let beside = vng.parent().filter(|dir| !dir.as_os_str().is_empty())?;
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(std::iter::once(PathBuf::from(beside)).chain(env::split_paths(&path))).ok()
}
