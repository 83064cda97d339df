//! From the object file to a loaded program.

use crate::{
    BpfError, ProgArray, Program,
    error::errno_in,
    object::{self, Parsed},
    program::Maps,
};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapError},
    programs::{ProgramError, SchedClassifier},
};
use lab_abi::Config;
use nix::errno::Errno;
use std::{
    fmt, fs,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// The object's programs; see ebpf/src for what each does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProgramKind {
    /// Counts, records, answers marked packets with the configured verdict.
    Count,
    /// Answers by the policy map, see [`Program::set_policy`].
    Policy,
    /// Tail-calls a slot of its jump map.
    TailEntry,
    /// [`ProgramKind::Count`] for a slot.
    TailCallee,
    /// `bpf_redirect`.
    Redirect,
    /// `bpf_redirect_peer`.
    RedirectPeer,
    /// `bpf_redirect_neigh`.
    RedirectNeigh,
    /// Records what `bpf_fib_lookup` says.
    Fib,
    /// `bpf_redirect_neigh` to what `bpf_fib_lookup` says.
    FibRedirect,
    /// Records what `bpf_check_mtu` says.
    CheckMtu,
    /// Turns packets into the ICMP error about them, and sends that back.
    Reject,
    /// `bpf_skb_set_tunnel_key` and `bpf_redirect`.
    Tunnel,
    /// `bpf_sk_assign`.
    Assign,
    /// Writes `mark`, `priority`, `tc_classid` and `queue_mapping`.
    Stamp,
    /// Calls one helper of [`lab_abi::edit`].
    Edit,
}

impl ProgramKind {
    /// Every program of the object.
    pub const ALL: [Self; 15] = [
        Self::Count,
        Self::Policy,
        Self::TailEntry,
        Self::TailCallee,
        Self::Redirect,
        Self::RedirectPeer,
        Self::RedirectNeigh,
        Self::Fib,
        Self::FibRedirect,
        Self::CheckMtu,
        Self::Reject,
        Self::Tunnel,
        Self::Assign,
        Self::Stamp,
        Self::Edit,
    ];

    /// The function's name in the object, which is the program's name in the kernel too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Policy => "policy",
            Self::TailEntry => "tail_entry",
            Self::TailCallee => "tail_callee",
            Self::Redirect => "redirect",
            Self::RedirectPeer => "redirect_peer",
            Self::RedirectNeigh => "redirect_neigh",
            Self::Fib => "fib",
            Self::FibRedirect => "fib_redirect",
            Self::CheckMtu => "check_mtu",
            Self::Reject => "reject",
            Self::Tunnel => "tunnel",
            Self::Assign => "assign",
            Self::Stamp => "stamp",
            Self::Edit => "edit_packet",
        }
    }
}

impl fmt::Display for ProgramKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Options that aya's loader does not support. With neither set, aya loads; `Some(0)` loads the same without aya's
/// loader, which parses the kernel's BTF anew for every program (0.1 s against 2 ms in an emulated guest).
#[derive(Debug, Default)]
pub struct LoadOptions<'a> {
    /// Passed to `BPF_PROG_LOAD`; aya always says 0.
    pub expected_attach_type: Option<u32>,
    /// A jump map to use in place of the program's own.
    pub jump: Option<&'a ProgArray>,
}

/// The object file, read and parsed once.
#[derive(Debug)]
pub struct Programs {
    bytes: Vec<u8>,
    parsed: Parsed,
}

impl Programs {
    /// Reads the object.
    ///
    /// # Errors
    /// [`BpfError::File`], [`BpfError::Object`].
    pub fn open(path: &Path) -> Result<Self, BpfError> {
        let bytes = fs::read(path).map_err(|error| BpfError::File { path: path.to_owned(), error })?;
        let parsed = Parsed::new(&bytes, size_of::<Config>(), &path.display().to_string())?;
        Ok(Self { bytes, parsed })
    }

    /// Loads one program with maps and settings of its own.
    ///
    /// # Errors
    /// [`BpfError::Load`] where the kernel refuses, also the map's owner (`EINVAL`); [`BpfError::Object`] where the
    /// object does not fit this crate.
    pub fn load(&self, kind: ProgramKind, config: &Config, options: &LoadOptions<'_>) -> Result<Program, BpfError> {
        let (fd, maps) = match options {
            LoadOptions { expected_attach_type: None, jump: None } => self.load_by_aya(kind, config)?,
            _ => object::load(&self.parsed, kind, config, options)?,
        };
        Program::new(kind, options.expected_attach_type.unwrap_or(0), fd, maps)
    }

    fn load_by_aya(&self, kind: ProgramKind, config: &Config) -> Result<(OwnedFd, Maps), BpfError> {
        let mut ebpf = self.loaded_by_aya(kind, config)?;
        let fd = classifier(&mut ebpf, kind)?
            .fd()
            .map_err(|error| fault(kind, &error))?
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| fault(kind, &error))?;
        let maps = Maps::new(kind, |name| ebpf.take_map(name))?;
        Ok((fd, maps))
    }

    /// The object in aya's hands, with one of its programs in the kernel.
    pub(crate) fn loaded_by_aya(&self, kind: ProgramKind, config: &Config) -> Result<Ebpf, BpfError> {
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .override_global("CONFIG", config, true)
            .load(&self.bytes)
            .map_err(|error| fault(kind, &error))?;
        classifier(&mut ebpf, kind)?.load().map_err(|error| match error {
            ProgramError::LoadError { io_error, verifier_log } => BpfError::Load {
                program: kind.name().to_owned(),
                errno: Errno::from_raw(io_error.raw_os_error().unwrap_or(libc::EIO)),
                log: last_words(&verifier_log.to_string()),
            },
            other => fault(kind, &other),
        })?;
        Ok(ebpf)
    }
}

pub(crate) fn classifier(ebpf: &mut Ebpf, kind: ProgramKind) -> Result<&mut SchedClassifier, BpfError> {
    ebpf.program_mut(kind.name())
        .ok_or_else(|| missing(kind.name(), kind.name()))?
        .try_into()
        .map_err(|error: ProgramError| fault(kind, &error))
}

fn fault(kind: ProgramKind, error: &(dyn std::error::Error + 'static)) -> BpfError {
    match errno_in(error) {
        Some(errno) => BpfError::call(format!("loading {kind} by aya ({error})"), errno),
        None => object_error(kind.name(), error),
    }
}

impl Maps {
    /// Picks the maps that user space works with.
    pub(crate) fn new(kind: ProgramKind, mut take: impl FnMut(&str) -> Option<Map>) -> Result<Self, BpfError> {
        let wrong = |error: MapError| object_error(kind.name(), &error);
        Ok(Self {
            stats: take("STATS").ok_or_else(|| missing(kind.name(), "STATS"))?.try_into().map_err(wrong)?,
            policy: take("POLICY").map(TryInto::try_into).transpose().map_err(wrong)?,
        })
    }
}

pub(crate) fn missing(program: &str, name: &str) -> BpfError {
    object_error(program, format!("no `{name}` in it"))
}

pub(crate) fn object_error(program: &str, detail: impl ToString) -> BpfError {
    BpfError::Object { program: program.to_owned(), detail: detail.to_string() }
}

/// The end of a verifier log: its last lines name the instruction and the error.
pub(crate) fn last_words(log: &str) -> String {
    const LINES: usize = 20;
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_limited() {
        let log: String = (0..100).map(|line| format!("{line}\n\n")).collect();
        let words = last_words(&log);
        assert!(words.starts_with("80\n") && words.ends_with("\n99"), "{words}");
        assert_eq!(last_words(""), "");
    }

    #[test]
    fn an_error_about_a_missing_object_names_its_path() {
        let error = Programs::open(Path::new("/nonexistent/lab")).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENOENT));
        assert!(error.to_string().starts_with("/nonexistent/lab: "), "{error}");
    }
}
