//! Topologies that several files of cases use, and that are not useful outside of the suite.

use lab_topology::{Template, library};

/// MTU of the host's end in [`UNEVEN_PAIR`], bytes.
pub const JUMBO: u32 = 9000;
/// The kernel's default MTU, bytes.
pub const USUAL: u32 = 1500;
/// The index that two devices of [`PODS_SAME_IFINDEX`] share.
pub const SHARED_IFINDEX: u32 = 77;

/// The pod's end has the default MTU.
pub const UNEVEN_PAIR: Template =
    Template::new("pair-uneven-mtu", "One workload on one host, whose end of the link has a jumbo MTU.", |kind| {
        let mut topology = library::PAIR.of(kind);
        topology.links[0].primary.mtu = Some(JUMBO);
        topology
    });

/// Indexes are counted per namespace, so that such a collision is common.
pub const PODS_SAME_IFINDEX: Template = Template::new(
    "pods-same-ifindex",
    "Two workloads on one host; the first one's own end and the host's end of the second one have the same index.",
    |kind| {
        let mut topology = library::PODS.of(kind);
        topology.links[0].peer.ifindex = Some(SHARED_IFINDEX);
        topology.links[1].primary.ifindex = Some(SHARED_IFINDEX);
        topology
    },
);
