//! Why a guest could not be had.

use lab_record::guest_exit::GuestExit;
use std::{io, path::PathBuf, time::Duration};

/// One line each, with the mend where there is one.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A file that the guest needs.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What the file is.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// vng passes its arguments through a shell and through QEMU's comma-separated options.
    #[error(
        "{what} `{value}` holds {found:?}, which virtme-ng can't pass on; use letters, digits and `/._-+:=@%` only{mend}"
    )]
    Unquotable {
        /// What the value is.
        what: &'static str,
        /// The value.
        value: String,
        /// The first character that can't pass.
        found: char,
        /// What to set, with a leading separator; empty where it is obvious.
        mend: &'static str,
    },
    /// `sun_path` is 108 bytes.
    #[error("socket path {} has {length} bytes, the kernel takes 107; choose a shorter run directory (TMPDIR)", path.display())]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// A program did not start.
    #[error("can't start {}: {source}; `lab doctor` says what is missing", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A helper program ran and did not do its work.
    #[error("{program}: {problem}")]
    Tool {
        /// The program.
        program: String,
        /// What went wrong, one line.
        problem: String,
    },
    /// The guest ended before anyone talked to it.
    #[error("guest {guest} ended before its agent's port was there ({exit})")]
    Exited {
        /// Name of the guest.
        guest: String,
        /// How it ended.
        exit: GuestExit,
    },
    /// The virtual machine never offered the agent's port.
    #[error("guest {guest} did not offer its agent's port within {waited:.1?}")]
    ConnectTimeout {
        /// Name of the guest.
        guest: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The port is there and can't be used.
    #[error("guest {guest}: agent's port: {source}")]
    Port {
        /// Name of the guest.
        guest: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The guest can't be saved, or its snapshot not be kept.
    #[error("snapshot: {0}")]
    Snapshot(String),
    /// QEMU's monitor does not answer, or refuses.
    #[error("QEMU's monitor: {0}")]
    Monitor(String),
    /// `NETKIT_LAB_ACCEL` holds something else.
    #[error("NETKIT_LAB_ACCEL is `{0}`; it takes `kvm` or `tcg`")]
    AccelOverride(String),
}
