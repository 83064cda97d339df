//! Events as the programs wrote them (`lab_abi::witness::WitnessEvent`).

use crate::{
    names::{Hooked, hook_of, hook_of_link},
    netkit::{self, NetkitRequest},
    request::{self, FilterRequest},
};
use lab_abi::witness::{
    HEAD, SHORT,
    command::{LINK_CREATE, LINK_DETACH, LINK_UPDATE, OBJ_PIN, PROG_ATTACH, PROG_DETACH, RAW_TRACEPOINT_OPEN},
    entered, kind,
};
use lab_protocol::AttachType;

/// Errors that a program may ask for again at once.
const NETKIT: u32 = entered::NETKIT_PROG_ATTACH | entered::NETKIT_LINK_ATTACH | entered::NETKIT_PROG_DETACH;
const TCX: u32 = entered::TCX_PROG_ATTACH | entered::TCX_LINK_ATTACH | entered::TCX_PROG_DETACH;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachEvent {
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub pid: u32,
    /// Name of the thread.
    pub process: String,
    /// DeviceKey.
    pub target: SeenDevice,
    /// SeenProgram.
    pub program: SeenProgram,
    /// What the kernel returned: an errno, or 0.
    pub refused: Option<i32>,
    /// What happened.
    pub what: What,
}

/// The device of an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenDevice {
    /// Inode of the network namespace.
    pub netns: u32,
    /// Index, 0 for none.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: String,
}

/// The program of an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenProgram {
    /// Id, 0 for none.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Tag.
    pub tag: [u8; 8],
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A program was put on a hook by `BPF_PROG_ATTACH`.
    ProgAttach {
        /// Where.
        hook: Hooked,
        /// The program whose place it took.
        instead: Option<u32>,
    },
    /// `BPF_PROG_DETACH`.
    ProgDetach {
        /// Where.
        hook: Hooked,
    },
    /// A link was made.
    LinkAttach {
        /// Where.
        hook: Hooked,
        /// Its id; 0 where the kernel refused.
        link: u32,
    },
    /// The program of a link was replaced.
    LinkUpdate {
        /// Its id.
        link: u32,
    },
    /// A link was taken off its hook.
    LinkDetach {
        /// Its id.
        link: u32,
    },
    /// A link was freed.
    LinkGone {
        /// Its id.
        link: u32,
    },
    /// A filter was made or changed.
    FilterNew {
        /// The request.
        request: FilterRequest,
        /// The program of the filter that was there.
        instead: Option<u32>,
    },
    /// A filter was deleted, or all of a priority or a hook.
    FilterDel {
        /// The request.
        request: FilterRequest,
        /// The program of the one filter.
        gone: Option<u32>,
    },
    /// A queueing discipline was deleted.
    QdiscDel {
        /// The request.
        request: FilterRequest,
    },
    /// A device goes, or moves to another network namespace.
    DeviceGone {
        /// Whether it goes.
        for_good: bool,
    },
    /// The device of the last such end is in this network namespace now.
    DeviceMoved,
    /// A netkit device was made or changed.
    Netkit {
        /// The request.
        request: NetkitRequest,
    },
    /// `IFLA_XDP`.
    Xdp {
        /// Whether a program was to be taken off.
        is_removal: bool,
    },
    /// A program or a link was pinned.
    Pin {
        /// The link, if it is one.
        link: Option<u32>,
        /// The path as the program wrote it.
        path: String,
    },
    /// A program was loaded.
    Loaded,
    /// A program goes.
    Unloaded {
        /// How often it ran.
        runs: u64,
    },
}

impl AttachEvent {
    /// Reads an event; `None` for bytes that are none, and for requests about filters of other classifiers.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let request = bytes.get(HEAD..)?;
        let word = |at: usize| u32::from_le_bytes(array(bytes, at).unwrap_or_default());
        let wide = |at: usize| u64::from_le_bytes(array(bytes, at).unwrap_or_default());
        let asked = |at: usize| u32::from_le_bytes(array(request, at).unwrap_or_default());
        let ret = wide(32).cast_signed();
        let (event_kind, command, went) = (word(40), word(44), word(48));
        let old = Some(word(68)).filter(|id| *id != 0);
        let link = word(72);
        let hook = |attach_type| {
            let by = if went & NETKIT != 0 {
                Some(AttachType::Netkit)
            } else if went & TCX != 0 {
                Some(AttachType::Tcx)
            } else {
                None
            };
            hook_of(attach_type, by)
        };
        let filter = || request::filter(request, word(84) as usize);
        let is_ours = |request: &FilterRequest| went & entered::CLS_BPF != 0 || request.is_bpf != Some(false);
        let what = match (event_kind, command) {
            (kind::COMMAND, PROG_ATTACH) => What::ProgAttach { hook: hook(asked(8)), instead: old },
            (kind::COMMAND, PROG_DETACH) => What::ProgDetach { hook: hook(asked(8)) },
            (kind::COMMAND, LINK_CREATE) => What::LinkAttach { hook: hook(asked(8)), link },
            (kind::COMMAND, RAW_TRACEPOINT_OPEN) => What::LinkAttach { hook: hook_of_link(word(76)), link },
            (kind::COMMAND, LINK_UPDATE) => What::LinkUpdate { link },
            (kind::COMMAND, LINK_DETACH) => What::LinkDetach { link },
            (kind::COMMAND, OBJ_PIN) => {
                let path = text(request.get(SHORT..).unwrap_or_default());
                What::Pin { link: Some(link).filter(|id| *id != 0), path }
            }
            (kind::LINK_GONE, _) => What::LinkGone { link },
            (kind::FILTER_NEW, _) => {
                let request =
                    filter().filter(|request| went & entered::CLS_BPF != 0 || request.is_bpf == Some(true))?;
                What::FilterNew { request: request.with_priority(word(80)), instead: old }
            }
            (kind::FILTER_DEL, _) => {
                let request = filter().filter(is_ours)?;
                What::FilterDel { request: request.with_priority(word(80)), gone: old }
            }
            (kind::QDISC_DEL, _) => What::QdiscDel { request: filter()? },
            (kind::DEVICE_GONE, _) => What::DeviceGone { for_good: went & entered::UNREGISTERING != 0 },
            (kind::LINK_NEW, _) => What::Netkit { request: netkit::netkit(request, word(84) as usize)? },
            (kind::DEVICE_MOVED, _) => What::DeviceMoved,
            (kind::XDP, _) => What::Xdp { is_removal: command.cast_signed() < 0 },
            (kind::PROGRAM_LOADED, _) => What::Loaded,
            (kind::PROGRAM_GONE, _) => What::Unloaded { runs: wide(16) },
            _ => return None,
        };
        Some(Self {
            time_ns: wide(0),
            pid: (wide(8) >> 32) as u32,
            process: text(bytes.get(88..104)?),
            target: SeenDevice {
                netns: word(52),
                ifindex: word(56),
                name: text(bytes.get(104..120)?),
                kind: text(bytes.get(120..136)?),
            },
            program: SeenProgram { id: word(60), name: text(bytes.get(136..152)?), tag: array(bytes, 152)? },
            refused: i32::try_from(ret).ok().filter(|ret| *ret < 0).map(|ret| ret.saturating_neg()),
            what,
        })
    }
}

pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// A name of the kernel up to its zero byte. Names may have any bytes: what is not plain text is shown as `?`.
pub(crate) fn text(bytes: &[u8]) -> String {
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
