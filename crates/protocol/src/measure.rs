//! Measurements: compares the cost of a packet with different mechanisms in one guest.

use crate::attach::{AttachType, LinkKind};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How packets travel from one workload to another on the same node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The node routes packets; the programs only count them.
    Routed,
    /// The sender's program redirects packets to the receiver's device on the node (`bpf_redirect`).
    Redirect,
    /// The sender's program redirects packets to the receiver's device in its namespace (`bpf_redirect_peer`); only
    /// with tc and tcx, since the helper needs an ingress hook.
    RedirectPeer,
}

impl Way {
    /// All paths.
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

/// One configuration to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Setup {
    /// How packets travel.
    pub way: Way,
    /// Kind of both workloads' links.
    pub device: LinkKind,
    /// How the programs are attached; `None` measures the path without programs.
    pub attach: Option<AttachType>,
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.way, self.device, self.attach.map_or("no program", AttachType::name))
    }
}

/// A request to measure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasureRequest {
    /// The setups in the order of the first round; each round starts at the next setup.
    pub setups: Vec<Setup>,
    /// Number of rounds of all setups.
    pub rounds: u32,
    /// Duration of the measurement of each figure, milliseconds of guest time.
    pub window_ms: u32,
    /// Factor on every deadline.
    pub time_scale: f32,
    /// Wall clock for the guest, nanoseconds since the epoch.
    pub now_unix_ns: u64,
}

/// The results for one setup in one round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Round-trip time of a datagram and its answer, nanoseconds.
    pub round_trip_ns: f64,
    /// Throughput of one TCP connection, bytes per second.
    pub bytes_per_second: f64,
    /// Processor time for a datagram of [`DATAGRAM`] bytes from socket to socket, nanoseconds.
    pub cpu_ns_per_packet: f64,
}

/// Payload of the datagrams whose processor time is measured, bytes.
pub const DATAGRAM: usize = 1400;
