//! The witness's account: what a program attached, how, whether it ran, and what it left behind; and what may be demanded of it.
//!
//! The account is the guest's, read from the kernel and not from the program. The demands are judged by the host.

mod lines;
mod live;

pub use live::{LIVE_VERSION, LiveLine, LiveStep, LiveVerb};

use crate::attach::AttachType;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// Rows of an account, at most: those beyond are counted.
pub const ROWS: usize = 256;
/// Leftovers of an account, at most.
pub const LEFT: usize = 256;
/// Differences between an account and the suite's own readings, at most.
pub const DIFFERENCES: usize = 32;
/// Marks of a program, at most, the end among them.
pub const MARKS: usize = 64;
/// Changes at a mark, at most.
pub const CHANGES: usize = 64;
/// Names of modules, at most.
pub const NAMES: usize = 64;
/// The program in a command's root that makes marks.
pub const MARKER: &str = "/run/lab/mark";
/// The program in a guest that watches what is attached, live.
pub const WATCHER: &str = "/run/lab/watch-attach";
/// The argument by which the agent watches what is attached, live, on any machine.
pub const WATCH: &str = "--watch-attach";
/// The eBPF object of [`WATCHER`].
pub const WATCHER_OBJECT: &str = "/run/lab/witness.o";
/// The socket of [`MARKER`].
pub const MARK_SOCKET: &str = "/run/lab/mark.socket";
/// The word on a guest's kernel command line by which the agent loads the witness before the snapshot is taken.
pub const PRELOAD: &str = "netkit_lab.witness";
/// The same where the suite's own cells are to be watched.
pub const PRELOAD_SUITE: &str = "netkit_lab.witness=suite";

/// What is demanded of the attachments of a program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AttachRules {
    /// Attach types of which every attachment must be, and at least one must have been made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<TypesFor>,
    /// Attach types of which none may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forbid: Vec<TypesFor>,
    /// Nothing may be left attached.
    #[serde(default)]
    pub forbid_leaks: bool,
    /// Every program that was attached must have run.
    #[serde(default)]
    pub require_ran: bool,
}

impl AttachRules {
    /// Whether nothing is demanded.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Attach types, on devices of one kind or of any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypesFor {
    /// Kind of the device as the kernel has it, `netkit`; any if `None`.
    pub kind: Option<String>,
    /// The types; the best that the kernel has for the device if it is empty.
    pub types: Vec<AttachType>,
}

impl fmt::Display for TypesFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kind) = &self.kind {
            write!(f, "{kind}=")?;
        }
        let names: Vec<&str> = self.types.iter().map(|it| it.name()).collect();
        f.write_str(if names.is_empty() { "best".to_owned() } else { names.join(",") }.as_str())
    }
}

/// By which interface a program was attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachWay {
    /// `BPF_LINK_CREATE`, or `BPF_RAW_TRACEPOINT_OPEN`.
    Link,
    /// `BPF_PROG_ATTACH`.
    Program,
    /// `RTM_NEWTFILTER`.
    Filter,
    /// `IFLA_XDP`.
    Netlink,
}

impl AttachWay {
    /// The word in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Program => "prog",
            Self::Filter => "filter",
            Self::Netlink => "netlink",
        }
    }
}

/// Where programs are attached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttachPlace {
    /// One of the three mechanisms; `None` for hooks of another kind, which are reported and not judged.
    pub attach: Option<AttachType>,
    /// The hook, named as in bpftool: `tcx/ingress`, `clsact/egress`, `cgroup_inet_egress`.
    pub hook: String,
    /// Name of the device; empty for a hook without.
    pub device: String,
    /// Its kind as the kernel has it: `netkit`, `veth`; empty for one without.
    pub kind: String,
    /// Its network namespace: the topology's name for it, or `net:[inode]`.
    pub namespace: String,
}

impl fmt::Display for AttachPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hook)?;
        if self.device.is_empty() {
            return Ok(());
        }
        write!(f, " of {}", self.device)?;
        if !self.kind.is_empty() {
            write!(f, " ({})", self.kind)?;
        }
        write!(f, " in {}", self.namespace)
    }
}

/// What one process did with one program at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRow {
    /// Where.
    #[serde(flatten)]
    pub place: AttachPlace,
    /// By which interface.
    pub way: AttachWay,
    /// Name of the program, at most 15 bytes.
    pub program: String,
    /// Its tag: a hash of its instructions, hexadecimal.
    pub tag: String,
    /// Ids of the programs, the first ones.
    pub ids: Vec<u32>,
    /// Name of the process.
    pub process: String,
    /// Its number, of the first attempt; 0 if that was not seen.
    pub pid: u32,
    /// Milliseconds from the begin to the first attempt.
    pub first_ms: u64,
    /// How often it was attached.
    pub attached: u64,
    /// How often the kernel refused, by the name of the errno.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
    /// How often it was detached, by anybody.
    pub detached: u64,
    /// How often another program took its place.
    pub replaced: u64,
    /// How often the programs ran, wherever they were attached; `None` where the kernel did not say.
    pub runs: Option<u64>,
    /// Particulars of the request: `direct-action`, `prio 49152`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// A process with its number, which is 0 where it was not seen.
pub fn process_named(name: &str, pid: u32) -> String {
    if pid == 0 { name.to_owned() } else { format!("{name} ({pid})") }
}

/// Something that is still attached, or a link that still exists, after all processes of the program have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// Where.
    #[serde(flatten)]
    pub place: AttachPlace,
    /// Name of the program.
    pub program: String,
    /// Its id.
    pub prog_id: u32,
    /// The link, where it is one.
    pub link_id: Option<u32>,
    /// The link is on no hook any more: its device has gone, or it was detached.
    #[serde(default)]
    pub is_detached: bool,
    /// Where it is pinned, if that was seen.
    pub pin: Option<String>,
    /// The process that attached it, with its number; `None` if that was not seen.
    pub by: Option<String>,
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program {} (id {}) at {}", self.program, self.prog_id, self.place)?;
        if let Some(link) = self.link_id {
            write!(f, ", link {link}{}", if self.is_detached { " (detached)" } else { "" })?;
        }
        if let Some(pin) = &self.pin {
            write!(f, ", pinned at {pin}")?;
        }
        match &self.by {
            Some(by) => write!(f, ", attached by {by}"),
            None => f.write_str(", attached by a process that was not seen"),
        }
    }
}

/// A request for a netkit device, or for a change of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    /// Name of the device.
    pub name: String,
    /// The network namespace of the process: the topology's name for it, or `net:[inode]`.
    pub namespace: String,
    /// Whether it is a new device.
    pub is_new: bool,
    /// What was asked for.
    pub settings: String,
    /// The kernel's refusal, by the name of the errno.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Name of the process.
    pub process: String,
    /// Its number, of the first such request.
    pub pid: u32,
    /// How often.
    pub count: u64,
}

/// What changed in the kernel up to a mark, since the one before or the begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateMark {
    /// Its name; `end` is the end.
    pub name: String,
    /// Milliseconds from the begin.
    pub at_ms: u64,
    /// One line each: `+` for what is there now, `-` for what was.
    pub changes: Vec<String>,
    /// Changes beyond [`CHANGES`].
    #[serde(default)]
    pub omitted: u64,
}

/// What a program did to its machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Effects {
    /// Modules that were loaded meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// Bits of `/proc/sys/kernel/tainted` that were set meanwhile.
    #[serde(default)]
    pub taint: u64,
    /// Processes that the kernel killed for want of memory.
    #[serde(default)]
    pub oom_kills: u64,
    /// Processor time of all of its processes, milliseconds.
    pub cpu_ms: u64,
    /// By how much less memory was available at the worst than at the begin, KiB: its processes, and what the kernel holds for them.
    pub memory_kib: u64,
}

/// The suite's own readings of what the kernel lists, held against the events.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Readings {
    /// Readings that were compared.
    pub compared: u64,
    /// Readings during which something changed: these can't be compared.
    pub unclear: u64,
    /// What differs, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differing: Vec<String>,
}

/// The whole account.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Account {
    /// Why there are no events, if there are none: then only what is left is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// Why it has only a part of what happened, if the kernel's functions can't be watched and its system calls can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
    /// From what it was read, and what that can't see; one line each.
    pub sources: Vec<String>,
    /// What happened.
    pub rows: Vec<AttachRow>,
    /// What is left.
    pub left: Vec<Leftover>,
    /// Netkit devices that were made or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceRow>,
    /// Events that the kernel had.
    pub events: u64,
    /// Events that were lost: what they would have told is not in the account.
    pub lost: u64,
    /// Rows and leftovers beyond [`ROWS`] and [`LEFT`].
    pub omitted: u64,
    /// Attachments that are gone although no event says so, and ends of attachments that no event began.
    pub unexplained: u64,
    /// The suite's own readings, where the suite was watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readings: Option<Readings>,
    /// The marks that the program made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<StateMark>,
    /// What it did to its machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effects: Option<Effects>,
}

impl Account {
    /// An account that could not be had.
    pub fn absent(reason: impl Into<String>) -> Self {
        Self { absent: Some(reason.into()), ..Self::default() }
    }

    /// Whether it is known to be whole: what it does not have did not happen.
    pub const fn is_whole(&self) -> bool {
        self.absent.is_none() && self.partial.is_none() && self.lost == 0 && self.omitted == 0
    }
}

/// The name of an errno that attaching may end with (include/uapi/asm-generic/errno.h, include/linux/errno.h).
pub fn errno_name(errno: i32) -> String {
    let name = match errno {
        1 => "EPERM",
        2 => "ENOENT",
        6 => "ENXIO",
        7 => "E2BIG",
        9 => "EBADF",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        14 => "EFAULT",
        16 => "EBUSY",
        17 => "EEXIST",
        19 => "ENODEV",
        22 => "EINVAL",
        28 => "ENOSPC",
        34 => "ERANGE",
        67 => "ENOLINK",
        95 => "EOPNOTSUPP",
        116 => "ESTALE",
        524 => "ENOTSUPP",
        other => return format!("errno {other}"),
    };
    name.to_owned()
}

impl AttachRow {
    /// The program and who attached it: `program tc_main (id 23) of loader (77)`.
    pub fn subject(&self) -> String {
        let id = self.ids.first().map_or_else(String::new, |id| match self.ids.len() {
            1 => format!(" (id {id})"),
            count => format!(" (id {id} and {} more)", count - 1),
        });
        let name = if self.program.is_empty() { "without a name" } else { &self.program };
        format!("program {name}{id} of {}", process_named(&self.process, self.pid))
    }

    /// What the kernel refused: `3 × EINVAL`.
    pub fn refusals(&self) -> String {
        let each = self.refused.iter().map(|(errno, count)| format!("{count} × {errno}"));
        each.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AgentMessage, CellId, CellReport, Outcome};

    #[test]
    fn an_account_is_whole_only_if_nothing_of_it_is_missing() {
        let whole = Account { events: 5, unexplained: 1, ..Account::default() };
        assert!(whole.is_whole());
        for part in [
            Account::absent("no BTF"),
            Account { partial: Some("system calls only".to_owned()), ..whole.clone() },
            Account { lost: 1, ..whole.clone() },
            Account { omitted: 1, ..whole.clone() },
        ] {
            assert!(!part.is_whole(), "{part:?}");
        }
    }

    /// Messages are told apart by a field within: what is read of them is not what was written for every type.
    #[test]
    fn an_account_comes_through_the_port() {
        let row = AttachRow {
            place: AttachPlace {
                attach: Some(AttachType::Tcx),
                hook: "tcx/ingress".to_owned(),
                device: "eth0".to_owned(),
                kind: "veth".to_owned(),
                namespace: "w0".to_owned(),
            },
            way: AttachWay::Link,
            program: "tc_main".to_owned(),
            tag: String::new(),
            ids: vec![1, 2],
            process: "loader".to_owned(),
            pid: 7,
            first_ms: 1,
            attached: 1,
            refused: [(errno_name(22), 2)].into(),
            detached: 0,
            replaced: 0,
            runs: None,
            detail: String::new(),
        };
        let left = Leftover {
            place: row.place.clone(),
            program: row.program.clone(),
            prog_id: 1,
            link_id: Some(3),
            is_detached: true,
            pin: None,
            by: None,
        };
        let account = Account { rows: vec![row], left: vec![left], lost: 4, ..Account::default() };
        let mut report = CellReport::bare(CellId("x".into()), Outcome::Passed);
        report.witness = Some(Box::new(account));
        let message = AgentMessage::CellFinished { report: Box::new(report) };
        let text = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<AgentMessage>(&text).unwrap(), message);
    }
}
