//! The topologies that the suite uses.
//!
//! The workload's link kind is a parameter. The first end of each link is the host's: for netkit the primary.

mod routed;
mod tunnels;

pub use routed::{
    DIAMOND, DIAMOND_PATHS, GATEWAY_NAT, NODE_ADDR_V4, NODE_ADDR_V6, NODE_PORT, POD_PORT, POLICY, POLICY_ADDRS,
    POLICY_MARK, POLICY_TOS, VRF, policy_table,
};
pub use tunnels::{
    Overlay, TWO_NODE, TWO_NODE_IP6TNL, TWO_NODE_IPIP, TWO_NODE_METADATA, TWO_NODE_VXLAN, TWO_NODE_VXLAN6, VNI,
};

use crate::{
    model::{DeviceSpec, Hop, LinkKind, Topology},
    template::Template,
};
use std::net::IpAddr;

/// One node with a dummy device, for cases without a network path.
pub const SOLO: Template =
    Template::new("solo", "One node with a dummy device, for cases without a network path.", |_| solo());

fn solo() -> Topology {
    Topology::new().node("host").dummy("host", "dummy0").addr("host", "dummy0", &["10.0.0.1/24", "fd00::1/64"])
}

/// One workload on one host; each end of its link has the other's addresses as permanent neighbours.
pub const PAIR: Template =
    Template::new("pair", "One workload on one host.", |kind| resolving(kind).static_neighbours());

/// [`PAIR`] without permanent neighbours: both ends have to resolve each other's addresses.
pub const PAIR_RESOLVING: Template = Template::new(
    "pair-resolving",
    "One workload on one host; each end resolves the other's link-layer address.",
    resolving,
);

fn resolving(kind: LinkKind) -> Topology {
    Topology::new()
        .node("host")
        .node("pod")
        .link(kind, ("host", "p0"), ("pod", "eth0"))
        .addr("host", "p0", &["10.1.0.1/32", "fd01::1/128"])
        .addr("pod", "eth0", &["10.1.0.2/32", "fd01::2/128"])
        .route("host", "10.1.0.2/32", Hop::dev("p0"))
        .route("host", "fd01::2/128", Hop::dev("p0"))
        .route("pod", "10.1.0.1/32", Hop::dev("eth0"))
        .route("pod", "fd01::1/128", Hop::dev("eth0"))
        .route("pod", "0.0.0.0/0", Hop::via("10.1.0.1", "eth0"))
        .route("pod", "::/0", Hop::via("fd01::1", "eth0"))
}

/// Two workloads on one host that routes between them.
pub const PODS: Template = Template::new("pods", "Two workloads on one host that routes between them.", pods);

fn pods(kind: LinkKind) -> Topology {
    let host = Topology::new().router("host");
    let host = workload(host, "w0", kind, "p0", 2);
    workload(host, "w1", kind, "p1", 3)
}

/// Workloads of every kind on one host, and a bridge with two more.
pub const MIXED: Template =
    Template::new("mixed", "Workloads of every kind on one host, and a bridge with two more.", |_| mixed());

fn mixed() -> Topology {
    let host = Topology::new().router("host");
    let host = LinkKind::ALL.into_iter().zip(0u8..).fold(host, |host, (kind, number)| {
        workload(host, &format!("w{number}"), kind, &format!("p{number}"), number + 2)
    });
    let host = host.device("host", "br0", DeviceSpec::Bridge).addr("host", "br0", &["10.67.0.1/24", "fd67::1/64"]);
    [("l0", "b0", LinkKind::Veth, 2), ("l1", "b1", LinkKind::NetkitL2, 3)].into_iter().fold(
        host,
        |host, (node, port, kind, number)| {
            host.node(node)
                .link(kind, ("host", port), (node, "eth0"))
                .port("host", port, "br0")
                .addr(node, "eth0", &[&format!("10.67.0.{number}/24"), &format!("fd67::{number}/64")])
                .route(node, "0.0.0.0/0", Hop::via("10.67.0.1", "eth0"))
                .route(node, "::/0", Hop::via("fd67::1", "eth0"))
        },
    )
}

/// One workload on one host, and a tap whose other end is the case itself.
pub const TAP: Template =
    Template::new("tap", "One workload on one host, and a tap device whose other end is user space.", tap);

fn tap(kind: LinkKind) -> Topology {
    let far = FAR_END.map(|addr| addr.parse::<IpAddr>().expect("a constant")).to_vec();
    workload(Topology::new().router("host"), "w0", kind, "p0", 2).device("host", "tap0", DeviceSpec::Tap { far }).addr(
        "host",
        "tap0",
        &["10.68.0.1/24", "fd68::1/64"],
    )
}

/// Addresses of the far end of [`TAP`].
pub const FAR_END: [&str; 2] = ["10.68.0.2", "fd68::2"];

/// [`PODS`], and beyond the host a router and an outside node. Only the workloads' links vary in kind.
pub const GATEWAY: Template =
    Template::new("gateway", "Two workloads on a host, and beyond the host a router and an outside node.", gateway);

fn gateway(kind: LinkKind) -> Topology {
    pods(kind)
        .router("r")
        .node("ext")
        .link(LinkKind::Veth, ("host", "u0"), ("r", "a"))
        .link(LinkKind::Veth, ("r", "b"), ("ext", "e"))
        .addr("host", "u0", &["192.0.2.1/24", "2001:db8:a::1/64"])
        .addr("r", "a", &["192.0.2.254/24", "2001:db8:a::254/64"])
        .addr("r", "b", &["198.51.100.1/24", "2001:db8:b::1/64"])
        .addr("ext", "e", &["198.51.100.2/24", "2001:db8:b::2/64"])
        .route("host", "0.0.0.0/0", Hop::via("192.0.2.254", "u0"))
        .route("host", "::/0", Hop::via("2001:db8:a::254", "u0"))
        .route("r", "10.65.0.0/24", Hop::via("192.0.2.1", "a"))
        .route("r", "fd65::/64", Hop::via("2001:db8:a::1", "a"))
        .route("ext", "0.0.0.0/0", Hop::via("198.51.100.1", "e"))
        .route("ext", "::/0", Hop::via("2001:db8:b::1", "e"))
}

/// The topologies of the library, in the order of listings.
pub const ALL: &[Template] = &[
    SOLO,
    PAIR,
    PAIR_RESOLVING,
    PODS,
    GATEWAY,
    GATEWAY_NAT,
    POLICY,
    TWO_NODE,
    TWO_NODE_VXLAN,
    TWO_NODE_VXLAN6,
    TWO_NODE_IPIP,
    TWO_NODE_IP6TNL,
    TWO_NODE_METADATA,
    DIAMOND,
    VRF,
    MIXED,
    TAP,
];

/// A workload on the node `host`, see [`workload_on`].
fn workload(on: Topology, node: &str, kind: LinkKind, host_end: &str, number: u8) -> Topology {
    workload_on(on, "host", (node, kind), host_end, 65, number)
}

/// A workload as in container networks: a /32 and a /128 address, and a gateway address that every host end has.
/// Neighbours are static, because redirecting programs would also redirect their resolution.
fn workload_on(
    on: Topology,
    host: &str,
    (node, kind): (&str, LinkKind),
    host_end: &str,
    network: u8,
    number: u8,
) -> Topology {
    let v4 = format!("10.{network}.0.{number}/32");
    let v6 = format!("fd{network}::{number}/128");
    on.node(node)
        .link(kind, (host, host_end), (node, "eth0"))
        .addr(host, host_end, &["169.254.1.1/32", "fd65::fe:1/128"])
        .addr(node, "eth0", &[&v4, &v6])
        .route(host, &v4, Hop::dev(host_end))
        .route(host, &v6, Hop::dev(host_end))
        .route(node, "169.254.1.1/32", Hop::dev("eth0"))
        .route(node, "fd65::fe:1/128", Hop::dev("eth0"))
        .route(node, "0.0.0.0/0", Hop::via("169.254.1.1", "eth0"))
        .route(node, "::/0", Hop::via("fd65::fe:1", "eth0"))
        .static_neighbours()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Family, Nat};
    use std::collections::HashSet;

    #[test]
    fn every_topology_refers_only_to_existing_nodes_and_devices() {
        for topology in ALL.iter().flat_map(Template::variants).map(|(_, topology)| topology) {
            let nodes: HashSet<_> = topology.nodes.iter().map(|node| &*node.name).collect();
            assert_eq!(nodes.len(), topology.nodes.len(), "{}: a node twice", topology.name);
            let devices: HashSet<_> = topology
                .links
                .iter()
                .flat_map(|link| [&link.primary, &link.peer])
                .map(|end| (&*end.node, &*end.name))
                .chain(topology.devices.iter().map(|device| (&*device.node, &*device.name)))
                .collect();
            assert_eq!(devices.len(), topology.links.len() * 2 + topology.devices.len(), "{}", topology.name);
            for (node, name) in &devices {
                assert!(nodes.contains(node) && name.len() < 16, "{}: {node}:{name}", topology.name);
            }
            for address in &topology.addresses {
                assert!(devices.contains(&(&*address.node, &*address.dev)), "{}: {address:?}", topology.name);
            }
            for route in &topology.routes {
                assert!(devices.contains(&(&*route.node, &*route.hop.dev)), "{}: {route:?}", topology.name);
            }
            for port in &topology.ports {
                for dev in [&port.dev, &port.controller] {
                    assert!(devices.contains(&(&*port.node, &**dev)), "{}: {port:?}", topology.name);
                }
            }
            for node in topology.nat.iter().map(Nat::node).chain(topology.rules.iter().map(|rule| &*rule.node)) {
                assert!(nodes.contains(node), "{}: {node}", topology.name);
            }
            for node in nodes {
                assert!(Family::ALL.iter().all(|family| topology.first_addr(node, *family).is_some()), "{node}");
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let names: HashSet<_> = ALL.iter().map(|template| template.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
