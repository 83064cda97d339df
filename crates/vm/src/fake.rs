//! Guests without a virtual machine: a closure on a thread acts as the agent.
//!
//! ```
//! use lab_vm::{Launcher, fake::FakeLauncher};
//! let launcher = FakeLauncher::new(|agent| {
//!     agent.console("Linux version 6.12\n");
//!     agent.channel().send(b"hello").unwrap();
//! });
//! # fn specification() -> lab_vm::GuestSpec { lab_vm::fake::specification(std::env::temp_dir()) }
//! let guest = launcher.launch(&specification()).unwrap();
//! ```

mod stand_in;

pub use stand_in::{PROGRAM, StandIn};

use super::{
    Accel, Channel, Guest, GuestSpec, Interrogation, Launcher, Places, Recipe, Snapshot, SocketChannel, VmError,
};
use lab_record::guest_exit::GuestExit;
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Answers of a hanging guest: QEMU's, and the function in which its processor is.
const REGISTERS: &str = "RIP=ffffffff81000000";
const PLACE: &str = "fake_spin+0x1/0x2";

/// What a hanging guest's kernel writes to the console when it is asked for its tasks.
fn tasks() -> String {
    format!("sysrq: Show State\n{}Kernel panic - not syncing: NMI\n", "task:fake\n".repeat(10_000))
}

type Script = dyn Fn(&mut FakeAgent) + Send + Sync;

/// Launches threads instead of virtual machines.
pub struct FakeLauncher {
    script: Arc<Script>,
    boots: AtomicU32,
    listening: bool,
    freezing: bool,
    survivors: usize,
    port_after: Duration,
}

impl FakeLauncher {
    /// Every guest runs `script`; the guest ends when it returns or panics.
    ///
    /// After the host kills the guest, the script's channel returns [`super::Recv::Closed`]: a script that simulates a hang
    /// waits for this.
    pub fn new(script: impl Fn(&mut FakeAgent) + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(script),
            boots: AtomicU32::new(0),
            listening: true,
            freezing: true,
            survivors: 0,
            port_after: Duration::ZERO,
        }
    }

    /// Guests whose virtual machine exits before it offers the agent's port; `script` still runs.
    #[must_use]
    pub fn never_listening(mut self) -> Self {
        self.listening = false;
        self
    }

    /// Guests whose virtual machine takes this long to start.
    #[must_use]
    pub fn offering_its_port_after(mut self, start: Duration) -> Self {
        self.port_after = start;
        self
    }

    /// Guests that can't be saved.
    #[must_use]
    pub fn never_freezing(mut self) -> Self {
        self.freezing = false;
        self
    }

    /// Guests of which this many processes survive the kill.
    #[must_use]
    pub fn surviving(mut self, processes: usize) -> Self {
        self.survivors = processes;
        self
    }

    /// Number of guests that were launched or restored.
    pub fn boots(&self) -> u32 {
        self.boots.load(Ordering::SeqCst)
    }
}

impl Launcher for FakeLauncher {
    fn launch(&self, spec: &GuestSpec) -> Result<Box<dyn Guest>, VmError> {
        self.start(spec, false)
    }

    fn restore(&self, spec: &GuestSpec, _snapshot: &Snapshot) -> Result<Box<dyn Guest>, VmError> {
        self.start(spec, true)
    }

    fn fingerprint(&self, _spec: &GuestSpec) -> Result<String, VmError> {
        Ok("fake".to_owned())
    }
}

impl FakeLauncher {
    /// A guest that was restored before it is asked for.
    ///
    /// # Errors
    /// As of [`Launcher::restore`].
    pub fn held(&self, spec: &GuestSpec) -> Result<Box<dyn Guest>, VmError> {
        self.start(spec, true)
    }

    fn start(&self, spec: &GuestSpec, restored: bool) -> Result<Box<dyn Guest>, VmError> {
        let boot = self.boots.fetch_add(1, Ordering::SeqCst);
        let file = |cause| VmError::File { what: "console", path: spec.console.clone(), cause };
        fs::write(&spec.console, []).map_err(file)?;
        let port = |cause| VmError::Port { guest: spec.name.clone(), cause };
        let (host, guest) = UnixStream::pair().map_err(port)?;
        let power = guest.try_clone().map_err(port)?;
        let port_end = guest.try_clone().map_err(port)?;
        let exit = Arc::new(Mutex::new(None));
        let waited_us = Arc::new(AtomicU64::new(0));
        let mut agent = FakeAgent {
            spec: spec.clone(),
            boot,
            restored,
            channel: SocketChannel::new(guest).map_err(port)?,
            console: Console::File(spec.console.clone()),
            kernel: None,
            exit: GuestExit { code: Some(0), signal: None, stderr: String::new() },
            waited_us: Arc::clone(&waited_us),
        };
        let script = Arc::clone(&self.script);
        let end = Arc::clone(&exit);
        let thread = thread::spawn(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| script(&mut agent)));
            if result.is_err() {
                agent.exit = GuestExit { code: Some(255), signal: None, stderr: "the script panicked".to_owned() };
            }
            *end.lock().expect("no panic while held") = Some(agent.exit.clone());
            // The guest may hold other handles of the socket, so it is shut down explicitly.
            let _ = port_end.shutdown(Shutdown::Both);
        });
        Ok(Box::new(FakeGuest {
            name: spec.name.clone(),
            console: spec.console.clone(),
            host: self.listening.then_some(host),
            power,
            exit,
            thread: Some(thread),
            freezing: self.freezing,
            survivors: self.survivors,
            port_at: Instant::now() + self.port_after,
            waited_us,
        }))
    }
}

/// The script's side of a fake guest.
#[derive(Debug)]
pub struct FakeAgent {
    spec: GuestSpec,
    boot: u32,
    restored: bool,
    channel: SocketChannel,
    console: Console,
    kernel: Option<String>,
    exit: GuestExit,
    waited_us: Arc<AtomicU64>,
}

/// Where the console of a guest goes.
#[derive(Debug)]
enum Console {
    /// A file that exists.
    File(PathBuf),
    /// Standard output of the process, to which the lab has connected the file.
    Output,
}

impl Console {
    fn write(&self, text: &str) -> io::Result<()> {
        match self {
            Self::File(path) => OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes()),
            Self::Output => {
                let mut output = io::stdout().lock();
                output.write_all(text.as_bytes())?;
                output.flush()
            }
        }
    }
}

impl FakeAgent {
    /// The specification of the guest.
    pub fn spec(&self) -> &GuestSpec {
        &self.spec
    }

    /// Number of guests that were launched before: 0 for the first one.
    pub fn boot(&self) -> u32 {
        self.boot
    }

    /// The version of its kernel, if the plan has a certain one.
    pub fn kernel(&self) -> Option<&str> {
        self.kernel.as_deref()
    }

    /// Whether the guest was restored from a snapshot.
    pub fn restored(&self) -> bool {
        self.restored
    }

    /// The agent's end of the port.
    pub fn channel(&mut self) -> &mut dyn Channel {
        &mut self.channel
    }

    /// Appends to the console.
    ///
    /// # Panics
    /// It can't be written.
    pub fn console(&self, text: &str) {
        self.console.write(text).expect("console is writable");
    }

    /// The guest's processor waits for one of the host.
    pub fn wait_for_host(&self, micros: u64) {
        self.waited_us.fetch_add(micros, Ordering::SeqCst);
    }

    /// Sets the exit status that the host sees after the script returns; 0 by default.
    pub fn set_exit(&mut self, exit: GuestExit) {
        self.exit = exit;
    }
}

struct FakeGuest {
    name: String,
    console: PathBuf,
    host: Option<UnixStream>,
    power: UnixStream,
    exit: Arc<Mutex<Option<GuestExit>>>,
    thread: Option<thread::JoinHandle<()>>,
    freezing: bool,
    survivors: usize,
    port_at: Instant,
    waited_us: Arc<AtomicU64>,
}

impl Guest for FakeGuest {
    fn connect(&mut self, deadline: Instant) -> Result<Box<dyn Channel>, VmError> {
        let begin = Instant::now();
        thread::sleep(deadline.min(self.port_at).saturating_duration_since(begin));
        if Instant::now() < self.port_at {
            return Err(VmError::ConnectTimeout { guest: self.name.clone(), waited: begin.elapsed() });
        }
        let Some(host) = self.host.take() else {
            let exit = self.exited().unwrap_or(GuestExit { code: Some(1), signal: None, stderr: String::new() });
            return Err(VmError::Exited { guest: self.name.clone(), exit });
        };
        let channel = SocketChannel::new(host).map_err(|cause| VmError::Port { guest: self.name.clone(), cause })?;
        Ok(Box::new(channel))
    }

    /// A port at which nobody is.
    fn files(&mut self) -> Result<UnixStream, VmError> {
        let (host, _) = UnixStream::pair().map_err(|cause| VmError::Port { guest: self.name.clone(), cause })?;
        Ok(host)
    }

    fn services(&mut self) -> Result<UnixStream, VmError> {
        self.files()
    }

    fn network(&mut self) -> Result<UnixStream, VmError> {
        self.files()
    }

    fn stream_memory(&self) -> Result<Option<fs::File>, VmError> {
        Ok(None)
    }

    fn exited(&mut self) -> Option<GuestExit> {
        self.exit.lock().expect("no panic while held").clone()
    }

    /// Writes a long task list to the console, as a real kernel does.
    fn interrogate(&mut self, _patience: Duration, _stop: &dyn Fn() -> bool) -> Interrogation {
        let tasks = tasks();
        let _ = Console::File(self.console.clone()).write(&tasks);
        Interrogation {
            findings: vec![("registers", REGISTERS.to_owned()), ("tasks", tasks)],
            place: Some(PLACE.to_owned()),
            alive: true,
        }
    }

    fn kill(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Both directions: the script's next receive or send fails, as after a power-off.
            let _ = self.power.shutdown(Shutdown::Both);
            thread.join().expect("the script's panic was caught");
        }
    }

    fn survivors(&self) -> usize {
        self.survivors
    }

    fn overgrown(&self) -> Option<String> {
        super::overgrown(&self.console)
    }

    fn peak_memory_kib(&self) -> Option<u64> {
        None
    }

    fn waited(&self) -> Option<Duration> {
        Some(Duration::from_micros(self.waited_us.load(Ordering::SeqCst)))
    }

    fn freeze(&mut self, state: &Path) -> Result<Recipe, VmError> {
        let full = || VmError::Snapshot("No space left on device".to_owned());
        self.kill();
        fs::write(state, "devices").ok().filter(|()| self.freezing).ok_or_else(full)?;
        let places = Places { dir: Path::new("/launch"), name: &self.name, memory: Path::new("/memory") };
        Ok(Recipe::record("/nonexistent/qemu".into(), &[], &places))
    }
}

impl Drop for FakeGuest {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A specification for a fake guest that writes its console to `dir`.
pub fn specification(dir: PathBuf) -> GuestSpec {
    GuestSpec {
        name: "fake".to_owned(),
        architecture: lab_base::arch::Architecture::default(),
        kernel: "/nonexistent/vmlinuz".into(),
        direct: None,
        image: "/nonexistent/image".into(),
        memory_mib: 1,
        cpus: 1,
        at_once: 1,
        cmdline: Vec::new(),
        accel: Accel::Tcg,
        console: dir.join("console.log"),
        run_dir: dir,
        vng: "/nonexistent/vng".into(),
        qemu: None,
        sandbox: false,
        tools: "fake".to_owned(),
        cx16: true,
        network: false,
        stream_memory: false,
        memory_file: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recv;
    use std::time::Duration;

    #[test]
    fn a_killed_guest_ends_a_script_that_hangs() {
        let dir = tempfile::tempdir().unwrap();
        let launcher = FakeLauncher::new(|agent| {
            agent.console("booted\n");
            let mut buf = [0; 16];
            while agent.channel().recv(&mut buf, Duration::from_secs(60)).unwrap() != Recv::Closed {}
        });
        let mut guest = launcher.launch(&specification(dir.path().to_owned())).unwrap();
        let _channel = guest.connect(Instant::now()).unwrap();
        assert_eq!(guest.exited(), None);
        guest.kill();
        assert_eq!(guest.exited().unwrap().code, Some(0));
        assert_eq!(fs::read_to_string(dir.path().join("console.log")).unwrap(), "booted\n");
        assert_eq!(launcher.boots(), 1);
    }

    #[test]
    fn the_host_sees_the_end_of_the_script() {
        let dir = tempfile::tempdir().unwrap();
        let launcher = FakeLauncher::new(|agent| agent.channel().send(b"last words").unwrap());
        let mut guest = launcher.launch(&specification(dir.path().to_owned())).unwrap();
        let mut channel = guest.connect(Instant::now()).unwrap();
        let mut buf = [0; 16];
        assert_eq!(channel.recv(&mut buf, Duration::from_secs(5)).unwrap(), Recv::Bytes(10));
        drop(launcher);
        let answer = channel.recv(&mut buf, Duration::from_secs(5)).unwrap();
        assert_eq!(answer, Recv::Closed, "a guest that is gone closes its port");
    }
}
