//! A running virtual machine: its processes, its sockets, its end.

use super::{
    Channel, Guest, GuestSpec, Interrogation, Places, Recipe, SocketChannel, VmError,
    command::Files,
    confine::{Reach, confine},
    interrogation,
    keeper::{Keeper, Loan, ProcessEnd},
    orphans,
    process::{Group, POLL},
    qmp::Monitor,
    streams,
};
use lab_guard::private;
use lab_record::guest_exit::GuestExit;
use procfs::process::Process;
use std::{
    cell::Cell,
    fs,
    fs::{File, OpenOptions},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Maximum time from the first port to the others, on a busy host.
const FURTHER_PORTS: Duration = Duration::from_secs(30);
/// Maximum time for QEMU to end on request.
const GRACE: Duration = Duration::from_secs(1);
/// Maximum time for saving: the devices' state is half a megabyte.
const SAVING: Duration = Duration::from_secs(20);

/// Maximum bytes of standard error that are read for an error.
const LAST_WORDS: u64 = 64 << 10;

/// A guest's processes and files.
#[derive(Debug)]
pub struct MachineGuest {
    name: String,
    child: Keeper,
    group: Group,
    files: Files,
    console: PathBuf,
    memory_file: Option<PathBuf>,
    exit: Option<GuestExit>,
    /// Set once the port exists.
    qemu: Option<Process>,
    peak_memory_kib: Cell<Option<u64>>,
    /// Removed when the guest is dropped; another process removes that of a guest that it has lent.
    dir: Option<TempDir>,
}

/// Preparation of a launch: a directory for sockets, and output files.
#[derive(Debug)]
pub struct LaunchStage {
    /// Removed with the guest.
    pub dir: TempDir,
    /// Paths in the directory.
    pub files: Files,
    console: File,
    stderr: File,
}

impl LaunchStage {
    /// Creates the directory and the files.
    ///
    /// # Errors
    /// [`VmError::File`].
    pub fn set(spec: &GuestSpec) -> Result<Self, VmError> {
        let file = |what, path: &Path| {
            let path = path.to_owned();
            move |cause| VmError::File { what, path, cause }
        };
        // The file already has the console of the boot if the guest is restored.
        let console = OpenOptions::new().append(true).create(true).open(&spec.console);
        Self::with(spec, console.map_err(file("console", &spec.console))?)
    }

    /// As [`Self::set`], with a console that goes elsewhere.
    ///
    /// # Errors
    /// [`VmError::File`].
    pub fn with(spec: &GuestSpec, console: File) -> Result<Self, VmError> {
        let file = |what, path: &Path| {
            let path = path.to_owned();
            move |cause| VmError::File { what, path, cause }
        };
        // A directory per launch, so that a guest never finds the sockets of an earlier guest.
        let dir = private::temporary(&orphans::mark()?, &spec.run_dir)?;
        let files = Files::below(dir.path());
        fs::create_dir(&files.root).map_err(file("guest root", &files.root))?;
        // QEMU reopens standard error by path and truncates it, so ours must be opened for appending.
        let stderr = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&files.stderr)
            .map_err(file("standard error", &files.stderr))?;
        Ok(Self { dir, files, console, stderr })
    }

    /// Starts the program in its own process group.
    ///
    /// # Errors
    /// [`VmError::Spawn`].
    pub fn start(self, mut command: Command, spec: &GuestSpec, reach: &Reach) -> Result<MachineGuest, VmError> {
        // The serial line is connected to standard output.
        command.stdin(Stdio::null()).stdout(self.console).stderr(self.stderr).process_group(0);
        let program = PathBuf::from(command.get_program());
        confine(&mut command, reach).map_err(|cause| VmError::Spawn { program: program.clone(), cause })?;
        let child = command.spawn().map_err(|cause| VmError::Spawn { program, cause })?;
        Ok(MachineGuest {
            name: spec.name.clone(),
            group: Group::led_by(child.id()),
            child: Keeper::Own(child),
            files: self.files,
            console: spec.console.clone(),
            memory_file: spec.memory_file.clone(),
            exit: None,
            qemu: None,
            peak_memory_kib: Cell::new(None),
            dir: Some(self.dir),
        })
    }
}

/// How long the guest's processor was on a run queue of the host (`run_delay` in /proc/PID/task/TID/schedstat). Of QEMU's
/// threads it is the one that has run the longest; threads have names only if QEMU is asked for them.
fn waited(qemu: &Process) -> Option<Duration> {
    let times = qemu.tasks().ok()?.flatten().filter_map(|task| task.schedstat().ok());
    times.max_by_key(|times| times.sum_exec_runtime).map(|times| Duration::from_nanos(times.run_delay))
}

impl MachineGuest {
    /// Connects to a port, which may not exist yet, or not listen yet: QEMU makes one after the other.
    fn dial(&mut self, port: fn(&Files) -> &PathBuf, deadline: Instant) -> Result<UnixStream, VmError> {
        let start = Instant::now();
        loop {
            match private::connect(port(&self.files)) {
                Ok(stream) => return Ok(stream),
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error.into()),
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

    /// A guest of another process, which lends it.
    pub(super) fn lent(loan: Loan, line: UnixStream, spec: &GuestSpec) -> Self {
        Self {
            name: spec.name.clone(),
            child: Keeper::lent(line),
            group: Group::led_by(loan.leader),
            files: Files::below(&loan.dir),
            console: spec.console.clone(),
            memory_file: None,
            exit: None,
            qemu: None,
            peak_memory_kib: Cell::new(None),
            dir: None,
        }
    }

    /// What another process needs to use it; `None` if it is another's itself.
    pub(super) fn loan(&self) -> Option<Loan> {
        Some(Loan { dir: self.dir.as_ref()?.path().to_owned(), leader: self.child.leader()? })
    }

    /// Its monitor.
    pub(super) fn monitor(&self) -> Result<Monitor, VmError> {
        Monitor::connect(&self.files.qmp)
    }

    fn gone(&mut self, end: ProcessEnd) -> GuestExit {
        // A wrapper around QEMU may have left processes.
        self.group.kill_all();
        let ProcessEnd { code, signal } = end;
        let exit = GuestExit { code, signal, stderr: telling_line(&self.files.stderr) };
        self.exit = Some(exit.clone());
        exit
    }
}

/// The last line of vng or QEMU, preferably an error: a hung guest under KVM ends with a dump of its registers.
/// Kernel messages, which vng also copies to standard error, are left out.
pub(super) fn telling_line(stderr: &Path) -> String {
    let text = lab_guard::bounded::tail(stderr, LAST_WORDS).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = lab_base::text::told_lines(&text).into_iter().filter(|line| !line.starts_with('[')).collect();
    let error = lines.iter().find(|line| line.to_ascii_lowercase().contains("error"));
    let line = error.or(lines.last()).copied().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(400).collect()
}

impl Guest for MachineGuest {
    fn connect(&mut self, deadline: Instant) -> Result<Box<dyn Channel>, VmError> {
        let stream = self.dial(|files| &files.port, deadline)?;
        self.qemu = self.group.qemu();
        let port = |cause| VmError::Port { guest: self.name.clone(), cause };
        Ok(Box::new(SocketChannel::new(stream).map_err(port)?))
    }

    fn files(&mut self) -> Result<UnixStream, VmError> {
        self.dial(|files| &files.files, Instant::now() + FURTHER_PORTS)
    }

    fn services(&mut self) -> Result<UnixStream, VmError> {
        self.dial(|files| &files.services, Instant::now() + FURTHER_PORTS)
    }

    fn network(&mut self) -> Result<UnixStream, VmError> {
        self.dial(|files| &files.network, Instant::now() + FURTHER_PORTS)
    }

    fn stream_memory(&self) -> Result<Option<File>, VmError> {
        streams::open(&self.files)
    }

    fn exited(&mut self) -> Option<GuestExit> {
        if self.exit.is_none() {
            // The value is lost if the guest ends by itself.
            self.peak_memory_kib();
            let end = self.child.try_wait()?;
            self.gone(end);
        }
        self.exit.clone()
    }

    fn interrogate(&mut self, patience: Duration, stop: &dyn Fn() -> bool) -> Interrogation {
        interrogation::question(&self.files.qmp, &self.console, patience, stop)
    }

    fn kill(&mut self) {
        // After the leader has been reaped, its pid may become the id of a foreign group.
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
        if let Some(end) = self.child.wait() {
            self.gone(end);
        }
    }

    fn survivors(&self) -> usize {
        self.group.survivors()
    }

    fn overgrown(&self) -> Option<String> {
        super::overgrown(&self.console)
    }

    fn peak_memory_kib(&self) -> Option<u64> {
        let now = self.qemu.as_ref().and_then(|qemu| qemu.status().ok()?.vmhwm);
        self.peak_memory_kib.set(now.or(self.peak_memory_kib.get()));
        self.peak_memory_kib.get()
    }

    fn waited(&self) -> Option<Duration> {
        self.qemu.as_ref().and_then(waited)
    }

    fn freeze(&mut self, state: &Path) -> Result<Recipe, VmError> {
        let lost = |problem: &str| VmError::Snapshot(problem.to_owned());
        let memory = self.memory_file.as_deref().ok_or_else(|| lost("the guest's memory is not in a file"))?;
        let qemu = self.group.qemu().ok_or_else(|| lost("the guest has ended"))?;
        let program = qemu.exe().map_err(|error| lost(&error.to_string()))?;
        let arguments = qemu.cmdline().map_err(|error| lost(&error.to_string()))?;
        let name = arguments.iter().skip_while(|word| *word != "-name").nth(1);
        let name = name.ok_or_else(|| lost("QEMU has no -name"))?.clone();
        let dir = self.dir.as_ref().ok_or_else(|| lost("the guest is another process's"))?;
        let places = Places { dir: dir.path(), name: &name, memory };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::specification;

    #[test]
    fn a_wrapper_that_ends_leaves_no_process() {
        let dir = tempfile::tempdir().unwrap();
        let spec = specification(dir.path().to_owned());
        let mut wrapper = Command::new("sh");
        wrapper.args(["-c", "sleep 1000 & exit 3"]);
        let program = PathBuf::from("/bin/sh");
        let mut guest = LaunchStage::set(&spec).unwrap().start(wrapper, &spec, &Reach::of_program(&program)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let exit = loop {
            match guest.exited() {
                Some(exit) => break exit,
                None => assert!(Instant::now() < deadline, "the wrapper did not end"),
            }
            thread::sleep(POLL);
        };
        assert_eq!((exit.code, guest.survivors()), (Some(3), 0));
    }
}
