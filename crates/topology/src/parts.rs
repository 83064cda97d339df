//! Parts of a topology other than nodes, pairs and addresses: devices without a peer, policy routing, address
//! translation.

use crate::terms::{Cidr, Family};
use std::net::IpAddr;

/// A device without a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The node it lies in.
    pub node: String,
    /// Its name there.
    pub name: String,
    /// What it is.
    pub spec: DeviceSpec,
}

/// Kinds of devices without a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceSpec {
    /// A dummy device, which drops all packets.
    Dummy,
    /// An Ethernet bridge without spanning tree, so that its ports forward at once.
    Bridge,
    /// A routing domain: what its ports receive is routed by this table.
    Vrf {
        /// Routing table of its devices (`IFLA_VRF_TABLE`).
        table: u32,
    },
    /// Ethernet in UDP to one other node.
    Vxlan {
        /// Network identifier (`IFLA_VXLAN_ID`), 24 bits.
        id: u32,
        /// The two ends below.
        tunnel: Tunnel,
    },
    /// Ethernet in UDP to the address in each packet's metadata (`IFLA_VXLAN_COLLECT_METADATA`); a packet without
    /// metadata is dropped.
    VxlanMetadata,
    /// IP in IP to one other node: IPv4 in IPv4, or IPv4 and IPv6 in IPv6, by the family of the ends.
    IpTunnel {
        /// The two ends below.
        tunnel: Tunnel,
    },
    /// Ethernet whose other end is user space, see [`crate::Net::tap`].
    Tap {
        /// Addresses at the far end. The node has them as permanent neighbours, since nothing there answers for them.
        far: Vec<IpAddr>,
    },
}

impl DeviceSpec {
    /// The word for it in drawings; `iproute2`'s where it has one.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Dummy => "dummy",
            Self::Bridge => "bridge",
            Self::Vrf { .. } => "vrf",
            Self::Vxlan { .. } | Self::VxlanMetadata => "vxlan",
            Self::IpTunnel { tunnel } if tunnel.local.is_ipv4() => "ipip",
            Self::IpTunnel { .. } => "ip6tnl",
            Self::Tap { .. } => "tap",
        }
    }
}

/// The outer addresses and the device of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The device below, whose MTU minus the overlay's headers becomes the overlay's.
    pub over: String,
    /// Source address of the outer header.
    pub local: IpAddr,
    /// Destination address of the outer header.
    pub remote: IpAddr,
}

/// A device that belongs to a bridge or a VRF of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The node.
    pub node: String,
    /// The device.
    pub dev: String,
    /// The bridge or VRF.
    pub controller: String,
}

/// A rule of policy routing. Unset fields match everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The node.
    pub node: String,
    /// Which of its two rule lists.
    pub family: Family,
    /// Priority; lower ones are asked first, and the main table's rule has 32766.
    pub priority: u32,
    /// The packets that it matches.
    pub selector: Selector,
    /// The table that it sends them to.
    pub table: u32,
}

/// Selector of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The device that the packet came in by.
    Iif(String),
    /// The source address.
    From(Cidr),
    /// The packet's mark.
    FwMark(u32),
    /// A value of those bits of the packet's mark that a mask has (`FRA_FWMASK`); without one the kernel takes all.
    FwMarkPart {
        /// The value of these bits.
        mark: u32,
        /// Which bits.
        mask: u32,
    },
    /// The DSCP, as the upper six bits of the type of service or of the traffic class (RFC 2474).
    Tos(u8),
}

/// A rule of address translation, set in nf_tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nat {
    /// Packets that leave through this device get its address.
    Masquerade {
        /// The node.
        node: String,
        /// The device.
        out: String,
    },
    /// TCP and UDP to this address and port go to another one.
    Dnat {
        /// The node.
        node: String,
        /// Destination address before.
        from: IpAddr,
        /// Destination port before.
        from_port: u16,
        /// Destination address after; of the same family.
        to: IpAddr,
        /// Destination port after.
        to_port: u16,
    },
}

impl Nat {
    /// The node that translates.
    pub fn node(&self) -> &str {
        match self {
            Self::Masquerade { node, .. } | Self::Dnat { node, .. } => node,
        }
    }
}
