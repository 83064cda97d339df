//! What a packet costs: the mechanisms against each other inside one guest.

use crate::attach::{AttachType, LinkKind};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How packets get from one workload to another on the same node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The node routes them; the programs only count.
    Routed,
    /// The sender's program sends them out of the receiver's device on the node (`bpf_redirect`).
    Redirect,
    /// The sender's program puts them into the receiver's own device (`bpf_redirect_peer`): from tc and tcx only, since
    /// the helper wants an ingress hook.
    RedirectPeer,
}

impl Way {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Routed, Self::Redirect, Self::RedirectPeer];

    /// The name used in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Routed => "routed",
            Self::Redirect => "redirect",
            Self::RedirectPeer => "redirect-peer",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Setup {
    /// How packets travel.
    pub way: Way,
    /// Kind of both workloads' links.
    pub device: LinkKind,
    /// By which mechanism the programs are attached; none measures the path without programs.
    pub attach: Option<AttachType>,
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.way, self.device, self.attach.map_or("no program", AttachType::name))
    }
}

/// What is to be measured, and how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasureRequest {
    /// The setups, in the order of the first round; every round begins one further on.
    pub setups: Vec<Setup>,
    /// Rounds of all setups.
    pub rounds: u32,
    /// How long each figure of a setup is measured, milliseconds of guest time.
    pub window_ms: u32,
    /// Factor on every deadline.
    pub time_scale: f32,
    /// Wall clock for the guest, nanoseconds since the epoch.
    pub now_unix_ns: u64,
}

/// The figures of one setup in one round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// A datagram there and its answer back, nanoseconds.
    pub round_trip_ns: f64,
    /// What one TCP connection carries, bytes per second.
    pub bytes_per_second: f64,
    /// Processor time for a datagram of [`DATAGRAM`] bytes from socket to socket, nanoseconds.
    pub cpu_ns_per_packet: f64,
}

/// Payload of the datagrams whose processor time is measured, bytes.
pub const DATAGRAM: usize = 1400;
