//! A running virtual machine, whoever started it: its processes, its sockets, its end.

use super::{
    Channel, Guest, GuestSpec, Interrogation, Places, Recipe, SocketChannel, VmError,
    command::Files,
    interrogation, orphans,
    process::{Group, POLL},
    qmp::Monitor,
};
use lab_record::guest_exit::GuestExit;
use procfs::process::Process;
use std::{
    cell::Cell,
    fs,
    fs::{File, OpenOptions},
    io,
    os::unix::{
        net::UnixStream,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long QEMU may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(1);
/// How long saving may take: the devices' state is half a megabyte.
const SAVING: Duration = Duration::from_secs(20);

/// A guest's processes and its files.
#[derive(Debug)]
pub struct MachineGuest {
    name: String,
    child: Child,
    group: Group,
    files: Files,
    console: PathBuf,
    memory_file: Option<PathBuf>,
    exit: Option<GuestExit>,
    /// Known once the port is.
    qemu: Option<Process>,
    peak_memory_kib: Cell<Option<u64>>,
    /// Removed when the guest is dropped.
    dir: TempDir,
}

/// What every launch needs before its program: a directory with the sockets' places, and files for its output.
#[derive(Debug)]
pub struct Stage {
    /// Removed with the guest.
    pub dir: TempDir,
    /// What is in it.
    pub files: Files,
    console: File,
    stderr: File,
}

impl Stage {
    /// Makes the directory and the files.
    ///
    /// # Errors
    /// [`VmError::File`].
    pub fn set(spec: &GuestSpec) -> Result<Self, VmError> {
        let file = |what, path: &Path| {
            let path = path.to_owned();
            move |source| VmError::File { what, path, source }
        };
        // A directory per launch: a guest never meets the sockets of the one before it.
        let dir = tempfile::Builder::new()
            .prefix(&orphans::mark()?)
            .tempdir_in(&spec.run_dir)
            .map_err(file("run directory", &spec.run_dir))?;
        let files = Files::below(dir.path());
        fs::create_dir(&files.root).map_err(file("guest root", &files.root))?;
        // What a restored guest has said before is in the file already.
        let console = OpenOptions::new().append(true).create(true).open(&spec.console);
        let console = console.map_err(file("console", &spec.console))?;
        // QEMU opens standard error anew by its path and truncates it, so ours must not keep an offset.
        let stderr = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&files.stderr)
            .map_err(file("standard error", &files.stderr))?;
        Ok(Self { dir, files, console, stderr })
    }

    /// Starts the program in a process group of its own.
    ///
    /// # Errors
    /// [`VmError::Spawn`].
    pub fn start(self, mut command: Command, spec: &GuestSpec) -> Result<MachineGuest, VmError> {
        // The serial line is connected to standard output.
        command.stdin(Stdio::null()).stdout(self.console).stderr(self.stderr).process_group(0);
        let program = PathBuf::from(command.get_program());
        let child = command.spawn().map_err(|source| VmError::Spawn { program, source })?;
        Ok(MachineGuest {
            name: spec.name.clone(),
            group: Group::led_by(child.id()),
            child,
            files: self.files,
            console: spec.console.clone(),
            memory_file: spec.memory_file.clone(),
            exit: None,
            qemu: None,
            peak_memory_kib: Cell::new(None),
            dir: self.dir,
        })
    }
}

impl MachineGuest {
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

impl Guest for MachineGuest {
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

    fn interrogate(&mut self, patience: Duration, stop: &dyn Fn() -> bool) -> Interrogation {
        interrogation::question(&self.files.qmp, &self.console, patience, stop)
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

    fn survivors(&self) -> usize {
        self.group.survivors()
    }

    fn peak_memory_kib(&self) -> Option<u64> {
        let now = self.qemu.as_ref().and_then(|qemu| qemu.status().ok()?.vmhwm);
        self.peak_memory_kib.set(now.or(self.peak_memory_kib.get()));
        self.peak_memory_kib.get()
    }

    fn freeze(&mut self, state: &Path) -> Result<Recipe, VmError> {
        let lost = |problem: &str| VmError::Snapshot(problem.to_owned());
        let memory = self.memory_file.as_deref().ok_or_else(|| lost("the guest's memory is in no file"))?;
        let qemu = self.group.qemu().ok_or_else(|| lost("the guest is gone"))?;
        let program = qemu.exe().map_err(|error| lost(&error.to_string()))?;
        let arguments = qemu.cmdline().map_err(|error| lost(&error.to_string()))?;
        let name = arguments.iter().skip_while(|word| *word != "-name").nth(1);
        let name = name.ok_or_else(|| lost("QEMU has no -name"))?.clone();
        let places = Places { dir: self.dir.path(), name: &name, memory };
        let recipe = Recipe::record(program, arguments.get(1..).unwrap_or_default(), &places);
        let file = File::create(state).map_err(|error| lost(&format!("{}: {error}", state.display())))?;
        let mut monitor = Monitor::connect(&self.files.qmp)?;
        monitor.ignore_shared_memory()?;
        monitor.save(&file, Instant::now() + SAVING)?;
        self.kill();
        Ok(recipe)
    }
}

impl Drop for MachineGuest {
    fn drop(&mut self) {
        self.kill();
    }
}
