//! Errors of starting and controlling guests.

use lab_record::guest_exit::GuestExit;
use std::{io, path::PathBuf, time::Duration};

/// Each error is one line, with the fix if there is one.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A file that the guest needs.
    #[error("{what} {}: {cause}", path.display())]
    File {
        /// Kind of the file.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// vng passes its arguments through a shell and through QEMU's comma-separated options.
    #[error(
        "{what} `{value}` contains {found:?}, which virtme-ng can't pass to QEMU; use letters, digits and `/._-+:=@%` only{mend}"
    )]
    Unquotable {
        /// Kind of the value.
        what: &'static str,
        value: String,
        /// The first character that is not allowed.
        found: char,
        /// How to fix it, with a leading separator; empty if this is obvious.
        mend: &'static str,
    },
    /// `sun_path` is 108 bytes.
    #[error("socket path {} has {length} bytes, at most 107 are allowed; choose a shorter run directory (TMPDIR)", path.display())]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Other users could access the guest.
    #[error(transparent)]
    Untrusted(#[from] lab_guard::private::Untrusted),
    /// A program did not start.
    #[error("can't start {}: {cause}; `lab doctor` shows what is missing", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// A helper program failed.
    #[error("{program}: {problem}")]
    Tool {
        program: String,
        /// The reason, one line.
        problem: String,
    },
    /// A script that was named as QEMU starts one that guests may not open.
    #[error(
        "{} starts a QEMU that guests of the lab may not open (`{said}`): they may open those in /usr, in the cache, and in \
         the directory of the script if that is named `bin`; put the script beside its QEMU, or let NETKIT_LAB_QEMU name \
         QEMU itself",
        script.display()
    )]
    Unreachable {
        script: PathBuf,
        /// The script's last line.
        said: String,
    },
    /// The guest ended before the host could connect.
    #[error("guest {guest} ended before its agent's port existed ({exit})")]
    Exited {
        /// Name of the guest.
        guest: String,
        exit: GuestExit,
    },
    /// The virtual machine did not create the agent's port in time.
    #[error("guest {guest} did not create its agent's port within {waited:.1?}")]
    ConnectTimeout {
        /// Name of the guest.
        guest: String,
        /// Time waited.
        waited: Duration,
    },
    /// The port exists but can't be used.
    #[error("guest {guest}: agent's port: {cause}")]
    Port {
        /// Name of the guest.
        guest: String,
        /// The system's answer.
        cause: io::Error,
    },
    /// The guest can't be saved, or its snapshot can't be stored.
    #[error("snapshot: {0}")]
    Snapshot(String),
    /// QEMU's monitor does not answer, or refuses.
    #[error("QEMU's monitor: {0}")]
    Monitor(String),
    /// `NETKIT_LAB_ACCEL` has another value.
    #[error("NETKIT_LAB_ACCEL is `{0}`; it must be `kvm` or `tcg`")]
    AccelOverride(String),
}
