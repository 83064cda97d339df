//! Attach types, and the kernel's information about an attachment.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The three mechanisms that run a `BPF_PROG_TYPE_SCHED_CLS` program on a device's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachType {
    /// A `cls_bpf` filter on the clsact qdisc.
    Tc,
    /// `BPF_TCX_INGRESS` / `BPF_TCX_EGRESS`, kernel 6.6 ("bpf: Add fd-based tcx multi-prog infra with link support").
    Tcx,
    /// `BPF_NETKIT_PRIMARY` / `BPF_NETKIT_PEER`, kernel 6.7 ("netkit, bpf: Add bpf programmable net device").
    Netkit,
}

impl AttachType {
    /// Every attach type, oldest first.
    pub const ALL: [Self; 3] = [Self::Tc, Self::Tcx, Self::Netkit];

    /// The name used in reports and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Tcx => "tcx",
            Self::Netkit => "netkit",
        }
    }
}

impl fmt::Display for AttachType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The attach type that a case requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachRequest {
    /// Only this attach type.
    Tc,
    /// Only this attach type.
    Tcx,
    /// Only this attach type.
    Netkit,
    /// The best attach type of the kernel and the device kind, detected in the guest.
    Auto,
}

impl AttachRequest {
    /// The name used in cell ids.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Tcx => "tcx",
            Self::Netkit => "netkit",
            Self::Auto => "auto",
        }
    }
}

impl From<AttachType> for AttachRequest {
    fn from(attach: AttachType) -> Self {
        match attach {
            AttachType::Tc => Self::Tc,
            AttachType::Tcx => Self::Tcx,
            AttachType::Netkit => Self::Netkit,
        }
    }
}

impl fmt::Display for AttachRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no attach type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAnAttachType(pub String);

impl fmt::Display for NotAnAttachType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not an attach type (expected: tc, tcx, netkit or auto)", self.0)
    }
}

impl std::error::Error for NotAnAttachType {}

impl FromStr for AttachRequest {
    type Err = NotAnAttachType;

    fn from_str(text: &str) -> Result<Self, NotAnAttachType> {
        [Self::Tc, Self::Tcx, Self::Netkit, Self::Auto]
            .into_iter()
            .find(|request| request.name() == text)
            .ok_or_else(|| NotAnAttachType(text.to_owned()))
    }
}

/// The kind of a workload's link: an axis of cases and a parameter of topologies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// A veth pair.
    Veth,
    /// A netkit pair in L2 mode (`NETKIT_L2`): Ethernet with ARP.
    NetkitL2,
    /// A netkit pair in L3 mode (`NETKIT_L3`, the kernel's default): no ARP, zero MAC addresses.
    NetkitL3,
}

impl LinkKind {
    /// Every kind, in the order of cells.
    pub const ALL: [Self; 3] = [Self::Veth, Self::NetkitL2, Self::NetkitL3];

    /// The name used in cell ids and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::NetkitL2 => "nk-l2",
            Self::NetkitL3 => "nk-l3",
        }
    }

    /// True for either netkit mode.
    pub const fn is_netkit(self) -> bool {
        matches!(self, Self::NetkitL2 | Self::NetkitL3)
    }

    /// Whether the devices have MAC addresses of their own and resolve neighbours.
    pub const fn has_macs(self) -> bool {
        matches!(self, Self::Veth | Self::NetkitL2)
    }
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Kind of an existing device, from `IFLA_INFO_KIND` as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// A veth pair.
    Veth,
    /// netkit in L2 mode (`NETKIT_L2`): Ethernet with ARP.
    NetkitL2,
    /// netkit in L3 mode (`NETKIT_L3`, the kernel's default): no ARP, zero MAC addresses.
    NetkitL3,
    /// Neither: `lo`, `dummy`, …
    Other,
}

impl From<LinkKind> for DeviceKind {
    fn from(kind: LinkKind) -> Self {
        match kind {
            LinkKind::Veth => Self::Veth,
            LinkKind::NetkitL2 => Self::NetkitL2,
            LinkKind::NetkitL3 => Self::NetkitL3,
        }
    }
}

impl DeviceKind {
    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Veth => LinkKind::Veth.name(),
            Self::NetkitL2 => LinkKind::NetkitL2.name(),
            Self::NetkitL3 => LinkKind::NetkitL3.name(),
            Self::Other => "other",
        }
    }

    /// True for either netkit mode.
    pub const fn is_netkit(self) -> bool {
        matches!(self, Self::NetkitL2 | Self::NetkitL3)
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A place in the kernel that runs programs, named as in bpftool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// clsact, `TC_H_MIN_INGRESS`.
    ClsactIngress,
    /// clsact, `TC_H_MIN_EGRESS`.
    ClsactEgress,
    /// `BPF_TCX_INGRESS`.
    TcxIngress,
    /// `BPF_TCX_EGRESS`.
    TcxEgress,
    /// `BPF_NETKIT_PRIMARY`: runs when the primary transmits, that is for packets *to* the workload.
    NetkitPrimary,
    /// `BPF_NETKIT_PEER`: runs when the peer transmits, that is for packets *from* the workload.
    NetkitPeer,
}

impl Hook {
    /// The attach type that the hook belongs to.
    pub const fn attach_type(self) -> AttachType {
        match self {
            Self::ClsactIngress | Self::ClsactEgress => AttachType::Tc,
            Self::TcxIngress | Self::TcxEgress => AttachType::Tcx,
            Self::NetkitPrimary | Self::NetkitPeer => AttachType::Netkit,
        }
    }

    /// bpftool's name for the hook.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClsactIngress => "clsact/ingress",
            Self::ClsactEgress => "clsact/egress",
            Self::TcxIngress => "tcx/ingress",
            Self::TcxEgress => "tcx/egress",
            Self::NetkitPrimary => "netkit/primary",
            Self::NetkitPeer => "netkit/peer",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An attachment as reported by the kernel, never copied from the request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttachRecord {
    /// Name of the requested device.
    pub interface: String,
    /// Its kind, from the link info of the same device.
    pub device: DeviceKind,
    /// The attach type that the case requested.
    pub requested: AttachRequest,
    /// The attach type under which the kernel lists the program; `None` if it does not list it.
    pub used: Option<AttachType>,
    /// The hook under which the kernel lists the program.
    pub hook: Option<Hook>,
    /// Kernel id of the program.
    pub prog_id: u32,
    /// Kernel id of the link, if the attachment is a link.
    pub link_id: Option<u32>,
    /// Number of marked packets that the program counted between attach and the end of the case; `None` if the case
    /// intentionally sent no traffic.
    pub ran: Option<u64>,
}
