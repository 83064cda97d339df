//! Errors, each with the call that failed.

use lab_netlink::NetlinkError;
use lab_protocol::Hook;
use nix::errno::Errno;
use std::path::PathBuf;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// bpf(2) refused.
    #[error("{call}: {errno}")]
    Call {
        /// The command: `BPF_LINK_CREATE netkit/peer`.
        call: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel, most often its verifier, refused a program.
    #[error("BPF_PROG_LOAD {program}: {errno}{}", if log.is_empty() { String::new() } else { format!("; end of the verifier's log:\n{log}") })]
    Load {
        /// The program's name.
        program: String,
        /// The kernel's answer.
        errno: Errno,
        /// The end of the verifier's log.
        log: String,
    },
    /// The object file can't be read.
    #[error("{}: {error}; build the eBPF object at this path (see ebpf/README.md)", path.display())]
    File {
        /// The object file in the image.
        path: PathBuf,
        /// Error of reading it.
        error: std::io::Error,
    },
    /// The object is not what the loader was built for.
    #[error(
        "eBPF object, program {program}: {detail}; rebuild it from the same sources as the agent (see ebpf/README.md)"
    )]
    Object {
        /// Name of the program in the object.
        program: String,
        /// What does not fit.
        detail: String,
    },
    /// A map operation failed.
    #[error("map {map}: {}", chain(.error))]
    Map {
        /// The map's name.
        map: &'static str,
        /// Error of the map's system call.
        error: aya::maps::MapError,
    },
    /// The hook has no multi-program API: clsact takes filters.
    #[error("{0} takes filters over netlink, not links or attached programs; use attach_tc")]
    NotMprog(Hook),
    /// Traffic control refused, or rtnetlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl BpfError {
    pub(crate) fn call(call: impl Into<String>, errno: Errno) -> Self {
        Self::Call { call: call.into(), errno }
    }

    /// The error in one line: of the verifier's log its reason, which is the last line but for the statistics.
    pub fn line(&self) -> String {
        let Self::Load { program, errno, log } = self else { return self.to_string() };
        let reason = |line: &&str| !line.trim().is_empty() && !line.starts_with("processed ");
        let reason = log.lines().rev().find(reason).map_or_else(String::new, |line| format!(": {}", line.trim()));
        format!("BPF_PROG_LOAD {program}: {errno}{reason}")
    }

    /// The kernel's errno, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { errno, .. } | Self::Load { errno, .. } => Some(*errno),
            Self::Netlink(error) => error.errno().map(Errno::from_raw),
            Self::File { error, .. } => error.raw_os_error().map(Errno::from_raw),
            Self::Map { error, .. } => errno_in(error),
            Self::Object { .. } | Self::NotMprog(_) => None,
        }
    }
}

/// An error and what is behind it, as one text; what the text has already is not repeated.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let text = inner.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = inner.source();
    }
    message
}

/// The errno at the bottom of one of aya's error chains.
pub(crate) fn errno_in(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.raw_os_error().map(Errno::from_raw);
        }
        next = error.source();
    }
    None
}
