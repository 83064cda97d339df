//! Guests: what the run loop may ask of a virtual machine, and who provides it.
//!
//! The run loop sees three traits. [`VngLauncher`] implements them with virtme-ng and QEMU; `fake` implements them with a
//! thread, so that the run loop's own tests take milliseconds and need no kernel. Nothing here knows the protocol: a
//! [`Channel`] carries bytes.
//!
//! Start with [`Launcher`], which boots a [`GuestSpec`]; [`snapshot`] keeps booted guests to be restored, [`accel`] decides
//! between KVM and TCG.
//!
//! *Architecture invariant:* this crate knows no plan and no cell, and neither parses nor writes a message of the agent.

pub mod accel;
mod channel;
mod command;
mod error;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
mod guest;
mod interrogation;
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
mod tools;
mod vng;

pub use accel::Acceleration;
pub use channel::SocketChannel;
pub use error::VmError;
pub use interrogation::Interrogation;
pub use recipe::{Places, Recipe};
pub use snapshot::Snapshot;
pub use tools::qemu_version;
pub use vng::VngLauncher;

use lab_record::guest_exit::GuestExit;
use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

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
    /// QEMU's name for it.
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

/// One guest to boot.
#[derive(Debug, Clone)]
pub struct GuestSpec {
    /// Unique among the guests that run at the same time: letters, digits, `.`, `_`, `-`, `+`.
    pub name: String,
    /// The kernel image (`vmlinuz`).
    pub kernel: PathBuf,
    /// The same kernel as an ELF file that QEMU enters directly, where there is one.
    pub direct: Option<PathBuf>,
    /// The initramfs from `lab-image`.
    pub image: PathBuf,
    /// Guest memory, MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// Kernel parameters beyond the launcher's own.
    pub cmdline: Vec<String>,
    /// The accelerator to use; no launcher falls back to another one by itself.
    pub accel: Accel,
    /// File that receives the serial console, created or truncated at launch.
    pub console: PathBuf,
    /// Existing directory for the guest's sockets. Short: a socket's path must stay below 108 bytes (`sun_path`).
    pub run_dir: PathBuf,
    /// The `vng` program.
    pub vng: PathBuf,
    /// The QEMU program; `None` leaves the choice to vng.
    pub qemu: Option<PathBuf>,
    /// Versions of both programs: a snapshot belongs to the pair that made it.
    pub tools: String,
    /// Directory of the host that the guest may read, and never write; unset exports an empty one.
    pub exported: Option<PathBuf>,
    /// File that holds the guest's memory, of the memory's size: what a guest needs to become a snapshot.
    pub memory_file: Option<PathBuf>,
}

/// Boots guests.
pub trait Launcher: Send + Sync {
    /// Starts a guest and returns without waiting for its kernel.
    ///
    /// # Errors
    /// [`VmError`] where the specification can't be launched or the program does not start. A kernel that never gets
    /// anywhere is no error here: see [`Guest::connect`] and [`Guest::exited`].
    fn launch(&self, spec: &GuestSpec) -> Result<Box<dyn Guest>, VmError>;

    /// Starts a guest where a snapshot of one like it left off. Its memory file is not written to.
    ///
    /// # Errors
    /// [`VmError`] where the snapshot's files are gone or the program does not start. State that the program refuses
    /// shows later, as a guest that has exited.
    fn restore(&self, spec: &GuestSpec, snapshot: &Snapshot) -> Result<Box<dyn Guest>, VmError>;

    /// All that a snapshot of this guest depends on, and nothing that differs from launch to launch.
    ///
    /// # Errors
    /// [`VmError`] where the specification can't be launched.
    fn fingerprint(&self, spec: &GuestSpec) -> Result<String, VmError>;
}

/// A running (or dead) guest. Dropping it kills it.
pub trait Guest: Send {
    /// Connects to the agent's port, waiting until the virtual machine offers it. That is before the agent is there:
    /// a connection proves nothing about the guest.
    ///
    /// # Errors
    /// [`VmError::Exited`] where the guest is gone, [`VmError::ConnectTimeout`] past the deadline.
    fn connect(&mut self, deadline: Instant) -> Result<Box<dyn Channel>, VmError>;

    /// Whether the guest is gone, and how. Does not block.
    fn exited(&mut self) -> Option<GuestExit>;

    /// Asks a guest that stands still what it is doing: its registers, its tasks and where its processors are. Takes at
    /// most `patience`, and ends early where `stop` says so. The guest may be of no use afterwards.
    fn interrogate(&mut self, patience: Duration, stop: &dyn Fn() -> bool) -> Interrogation;

    /// Ends every process of the guest and waits for them. Does nothing the second time.
    fn kill(&mut self);

    /// Processes of the guest that outlived [`Guest::kill`].
    fn survivors(&self) -> usize;

    /// Peak resident memory of the virtual machine's process, KiB (`VmHWM`), as far as it is known.
    fn peak_memory_kib(&self) -> Option<u64>;

    /// Writes the state of all devices to a file and ends the guest. With the memory file that makes a snapshot.
    ///
    /// # Errors
    /// [`VmError::Snapshot`] where the machine can't be saved; the guest is of no use then either.
    fn freeze(&mut self, state: &Path) -> Result<Recipe, VmError>;
}

/// What [`Channel::recv`] got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recv {
    /// This many bytes, at least one.
    Bytes(usize),
    /// Nothing within the timeout.
    Timeout,
    /// The other side is gone for good.
    Closed,
}

/// The bytes between host and agent.
pub trait Channel: Send {
    /// Waits for bytes, at most `timeout`.
    ///
    /// # Errors
    /// Anything but a timeout and a closed or reset connection, which are answers.
    fn recv(&mut self, buf: &mut [u8], timeout: Duration) -> io::Result<Recv>;

    /// Sends all of the bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] where the guest does not read for [`SEND_TIMEOUT`]; otherwise the socket's error.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// How long [`Channel::send`] waits for a guest that does not read.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);
