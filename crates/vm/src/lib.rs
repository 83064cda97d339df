//! Virtual machines: the interface that the run loop uses, and its implementations.
//!
//! The interface consists of three traits. [`VngLauncher`] implements them with virtme-ng and QEMU; `fake` implements
//! them with threads, so that tests of the run loop take milliseconds and need no kernel. This crate does not use the
//! protocol: a [`Channel`] transfers bytes.
//!
//! Start with [`Launcher`], which boots a [`GuestSpec`]; [`snapshot`] stores booted guests to be restored, [`accel`]
//! chooses between KVM and TCG.
//!
//! *Architecture invariant:* this crate does not depend on plans or cells, and neither parses nor writes messages of
//! the agent.

pub mod accel;
mod channel;
mod command;
mod compose;
mod confine;
mod error;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
#[cfg(test)]
mod fuzz;
mod guest;
pub mod held;
mod interrogation;
mod keeper;
pub mod kvm;
mod lock;
mod orphans;
mod probe;
mod process;
mod qmp;
mod recipe;
mod restore;
mod seal;
pub mod snapshot;
pub mod stock;
mod streams;
mod threads;
mod tools;
mod vng;

pub use accel::Acceleration;
pub use channel::SocketChannel;
pub use compose::has_sandbox;
pub use error::VmError;
pub use interrogation::Interrogation;
pub use orphans::{hidden_scratch, scratch};
pub use recipe::{Places, Recipe};
pub use snapshot::Snapshot;
pub use streams::has_stream_memory;
pub use tools::{DEFAULT_QEMU, has_right_cmpxchg16b, qemu_version};
pub use vng::VngLauncher;

use lab_base::arch::Architecture;
use lab_record::guest_exit::GuestExit;
use std::{
    fmt,
    fs::File,
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Maximum size of a guest's console, bytes. A run of the whole suite with all kernel messages needs a hundredth of it.
pub const CONSOLE_LIMIT: u64 = 32 << 20;

/// Describes a console that has exceeded its size limit.
fn overgrown(console: &Path) -> Option<String> {
    let length = std::fs::metadata(console).map_or(0, |found| found.len());
    (length > CONSOLE_LIMIT).then(|| format!("its console grew beyond {} MiB", CONSOLE_LIMIT >> 20))
}

/// How the guest's instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By QEMU's translator.
    Tcg,
}

impl Accel {
    /// QEMU's name of the accelerator.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Specification of a guest.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct GuestSpec {
    /// Unique among the guests that run at the same time: letters, digits, `.`, `_`, `-`, `+`.
    pub name: String,
    /// The architecture of the machine. One that is not the host's is emulated.
    pub architecture: Architecture,
    /// The kernel image (`vmlinuz`).
    pub kernel: PathBuf,
    /// The same kernel as an ELF file that QEMU can start directly, if there is one.
    pub direct: Option<PathBuf>,
    /// The initramfs from `lab-image`.
    pub image: PathBuf,
    /// Guest memory, MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// Guests that the run has at the same time, this one included, as far as it knows.
    pub at_once: usize,
    /// Kernel parameters beyond the launcher's own.
    pub cmdline: Vec<String>,
    /// The accelerator; launchers never fall back to another one.
    pub accel: Accel,
    /// File that receives the serial console, created or truncated at launch.
    pub console: PathBuf,
    /// Existing directory for the guest's sockets. Short: a socket's path must stay below 108 bytes (`sun_path`).
    pub run_dir: PathBuf,
    /// The `vng` program.
    pub vng: PathBuf,
    /// The QEMU program; `None` leaves the choice to vng.
    pub qemu: Option<PathBuf>,
    /// Whether to use QEMU's sandbox; QEMU must support it.
    pub sandbox: bool,
    /// Versions of both programs: a snapshot can only be restored with the versions that created it.
    pub tools: String,
    /// Whether an emulated guest's processor has cmpxchg16b, see [`has_right_cmpxchg16b`].
    pub cx16: bool,
    /// Whether the machine has a network device, see [`Guest::network`].
    pub network: bool,
    /// Whether a restored machine has memory for a program's streams, see [`Guest::stream_memory`].
    pub stream_memory: bool,
    /// File for the guest's memory, required for snapshots; its size is the memory's.
    pub memory_file: Option<PathBuf>,
}

/// Boots guests.
pub trait Launcher: Send + Sync {
    /// Starts a guest and returns without waiting for its kernel.
    ///
    /// # Errors
    /// [`VmError`] if the specification is invalid or the program does not start. A kernel that does not boot is not an
    /// error here: see [`Guest::connect`] and [`Guest::exited`].
    fn launch(&self, spec: &GuestSpec) -> Result<Box<dyn Guest>, VmError>;

    /// Restores a guest from a snapshot. The snapshot's memory file is not modified.
    ///
    /// # Errors
    /// [`VmError`] if the snapshot's files are missing or the program does not start. If the program refuses the state,
    /// the guest exits later.
    fn restore(&self, spec: &GuestSpec, snapshot: &Snapshot) -> Result<Box<dyn Guest>, VmError>;

    /// Everything that a snapshot of this guest depends on, without values that differ between launches.
    ///
    /// # Errors
    /// [`VmError`] if the specification is invalid.
    fn fingerprint(&self, spec: &GuestSpec) -> Result<String, VmError>;
}

/// A running or ended guest. Dropping it kills it.
pub trait Guest: Send {
    /// Connects to the agent's port, waiting until the virtual machine offers it. The port exists before the agent
    /// runs, so a connection says nothing about the guest.
    ///
    /// # Errors
    /// [`VmError::Exited`] if the guest has ended, [`VmError::ConnectTimeout`] after the deadline.
    fn connect(&mut self, deadline: Instant) -> Result<Box<dyn Channel>, VmError>;

    /// Connects to the port for files, on which the guest's kernel sends its requests once the agent mounts the file system.
    /// The virtual machine offers it together with the agent's port, so call this after [`Guest::connect`].
    ///
    /// # Errors
    /// The guest has ended, or its port is in use.
    fn files(&mut self) -> Result<UnixStream, VmError>;

    /// Connects to the port for connections to services of the host; otherwise as [`Guest::files`].
    ///
    /// # Errors
    /// As [`Guest::files`].
    fn services(&mut self) -> Result<UnixStream, VmError>;

    /// Connects to the machine's network device: each frame behind its length, 4 bytes in network order, as passt and QEMU
    /// exchange them. Otherwise as [`Guest::files`].
    ///
    /// # Errors
    /// As [`Guest::files`].
    fn network(&mut self) -> Result<UnixStream, VmError>;

    /// The memory for a program's streams, [`lab_protocol::work::STREAM_MEMORY`] bytes, where the machine has it. All of it is the guest's
    /// to write to: what the host reads is as little to be believed as what comes from a port.
    ///
    /// # Errors
    /// Its file can't be opened.
    fn stream_memory(&self) -> Result<Option<File>, VmError>;

    /// How the guest ended; `None` while it runs. Does not block.
    fn exited(&mut self) -> Option<GuestExit>;

    /// Queries a hanging guest for its registers, its tasks and the places of its processors. Takes at most `patience`,
    /// and ends early if `stop` returns true. The guest may be unusable afterwards.
    fn interrogate(&mut self, patience: Duration, stop: &dyn Fn() -> bool) -> Interrogation;

    /// Ends every process of the guest and waits for them. Further calls do nothing.
    fn kill(&mut self);

    /// The file of the guest that has exceeded its size limit, one line; `None` if there is none. Does not block.
    fn overgrown(&self) -> Option<String>;

    /// Number of processes of the guest that survived [`Guest::kill`].
    fn survivors(&self) -> usize;

    /// Peak resident memory of the virtual machine's process, KiB (`VmHWM`), if known.
    fn peak_memory_kib(&self) -> Option<u64>;

    /// How long its processors have been ready to run without a processor of the host, since its start: what a guest under
    /// KVM counts as steal. `None` if the host does not tell.
    fn waited(&self) -> Option<Duration>;

    /// Writes the state of all devices to a file and ends the guest. Together with the memory file this is a snapshot.
    ///
    /// # Errors
    /// [`VmError::Snapshot`] if the machine can't be saved; the guest is unusable then.
    fn freeze(&mut self, state: &Path) -> Result<Recipe, VmError>;
}

/// Result of [`Channel::recv`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recv {
    /// Number of bytes received, at least one.
    Bytes(usize),
    /// Nothing was received within the timeout.
    Timeout,
    /// The connection has ended.
    Closed,
}

/// The byte stream between host and agent.
pub trait Channel: Send {
    /// Waits at most `timeout` for bytes.
    ///
    /// # Errors
    /// Any error but a timeout and a closed or reset connection, which are results.
    fn recv(&mut self, buf: &mut [u8], timeout: Duration) -> io::Result<Recv>;

    /// Sends all bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] if the guest does not read for [`SEND_TIMEOUT`]; otherwise the socket's error.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Maximum time that [`Channel::send`] waits for a guest that does not read.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);
