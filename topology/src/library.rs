//! The topologies that the suite uses.
//!
//! The workload's link kind is a parameter. The first end of each link is the host's: for netkit the primary.

use crate::model::{Hop, LinkKind, Topology};

/// One node with `dummy0`: for cases that need no path.
pub fn solo() -> Topology {
    Topology::new("solo").node("host").dummy("host", "dummy0").addr("host", "dummy0", &["10.0.0.1/24", "fd00::1/64"])
}

/// One workload on one host.
pub fn pair(kind: LinkKind) -> Topology {
    Topology::new("pair")
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
pub fn pods(kind: LinkKind) -> Topology {
    let host = Topology::new("pods").router("host");
    let host = workload(host, "w0", kind, "p0", 2);
    workload(host, "w1", kind, "p1", 3)
}

/// Workloads of all three kinds on one host that routes between them.
pub fn mixed() -> Topology {
    LinkKind::ALL.into_iter().zip(0u8..).fold(Topology::new("mixed").router("host"), |host, (kind, number)| {
        workload(host, &format!("w{number}"), kind, &format!("p{number}"), number + 2)
    })
}

/// [`pods`], and beyond the host a router and an outside node. Only the workloads' links vary in kind.
pub fn gateway(kind: LinkKind) -> Topology {
    Topology { name: "gateway".to_owned(), ..pods(kind) }
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

/// Every topology in every kind of link that it can have.
pub fn all() -> Vec<Topology> {
    let varying = LinkKind::ALL.into_iter().flat_map(|kind| [pair(kind), pods(kind), gateway(kind)]);
    [solo(), mixed()].into_iter().chain(varying).collect()
}

/// The topology of that name; the kind matters where the topology has one.
pub fn by_name(name: &str, kind: LinkKind) -> Option<Topology> {
    [solo(), pair(kind), pods(kind), gateway(kind), mixed()].into_iter().find(|topology| topology.name == name)
}

/// A workload the way container networks hang it up: a /32 and a /128 behind a gateway address that every host end has.
/// Neighbours are static, since redirecting programs swallow the resolution.
fn workload(on: Topology, node: &str, kind: LinkKind, host_end: &str, number: u8) -> Topology {
    let v4 = format!("10.65.0.{number}/32");
    let v6 = format!("fd65::{number}/128");
    on.node(node)
        .link(kind, ("host", host_end), (node, "eth0"))
        .addr("host", host_end, &["169.254.1.1/32", "fd65::fe:1/128"])
        .addr(node, "eth0", &[&v4, &v6])
        .route("host", &v4, Hop::dev(host_end))
        .route("host", &v6, Hop::dev(host_end))
        .route(node, "169.254.1.1/32", Hop::dev("eth0"))
        .route(node, "fd65::fe:1/128", Hop::dev("eth0"))
        .route(node, "0.0.0.0/0", Hop::via("169.254.1.1", "eth0"))
        .route(node, "::/0", Hop::via("fd65::fe:1", "eth0"))
        .static_neighbours()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Family;
    use std::collections::HashSet;

    #[test]
    fn every_topology_refers_only_to_what_it_has() {
        for topology in all() {
            let nodes: HashSet<_> = topology.nodes.iter().map(|node| &*node.name).collect();
            assert_eq!(nodes.len(), topology.nodes.len(), "{}: a node twice", topology.name);
            let devices: HashSet<_> = topology
                .links
                .iter()
                .flat_map(|link| [&link.primary, &link.peer])
                .map(|end| (&*end.node, &*end.name))
                .chain(topology.dummies.iter().map(|(node, name)| (&**node, &**name)))
                .collect();
            assert_eq!(devices.len(), topology.links.len() * 2 + topology.dummies.len(), "{}", topology.name);
            for (node, name) in &devices {
                assert!(nodes.contains(node) && name.len() < 16, "{}: {node}:{name}", topology.name);
            }
            for address in &topology.addresses {
                assert!(devices.contains(&(&*address.node, &*address.dev)), "{}: {address:?}", topology.name);
            }
            for route in &topology.routes {
                assert!(devices.contains(&(&*route.node, &*route.hop.dev)), "{}: {route:?}", topology.name);
            }
            for node in nodes {
                assert!(Family::ALL.iter().all(|family| topology.first_addr(node, *family).is_some()), "{node}");
            }
        }
    }

    #[test]
    fn names_find_their_topology() {
        for topology in all() {
            let kind = topology.links.first().map_or(LinkKind::Veth, |link| link.kind);
            assert_eq!(by_name(&topology.name, kind), Some(topology));
        }
        assert_eq!(by_name("triangle", LinkKind::Veth), None);
    }
}
