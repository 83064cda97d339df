//! Topologies about routing: translation at the node, policy routing, several paths, routing domains.

use super::{gateway, pods, workload_on};
use crate::{
    model::{DeviceSpec, End, Family, Hop, LinkKind, Nat, Selector, Topology},
    template::Template,
};

/// The node's address on the outside, in [`GATEWAY_NAT`].
pub const NODE_ADDR_V4: &str = "192.0.2.1";
/// The same for IPv6.
pub const NODE_ADDR_V6: &str = "2001:db8:a::1";
/// The node's port behind which the first workload's [`POD_PORT`] is.
pub const NODE_PORT: u16 = 30_080;
/// The first workload's port.
pub const POD_PORT: u16 = 8_080;

/// [`GATEWAY`](super::GATEWAY) with address translation on the host: packets of workloads get the node's address, and a
/// port of the node is forwarded to the first workload.
pub const GATEWAY_NAT: Template = Template::new(
    "gateway-nat",
    "The gateway topology; its host masquerades its workloads and forwards a port to one of them.",
    gateway_nat,
);

fn gateway_nat(kind: LinkKind) -> Topology {
    let dnat = |from: &str, to: &str| Nat::Dnat {
        node: "host".to_owned(),
        from: from.parse().expect("a constant"),
        from_port: NODE_PORT,
        to: to.parse().expect("a constant"),
        to_port: POD_PORT,
    };
    gateway(kind)
        .nat(Nat::Masquerade { node: "host".to_owned(), out: "u0".to_owned() })
        .nat(dnat(NODE_ADDR_V4, "10.65.0.2"))
        .nat(dnat(NODE_ADDR_V6, "fd65::2"))
}

/// [`PODS`](super::PODS), where the second workload has further addresses that only rules lead to: by the device that a
/// packet came in by, by its source, by its mark, by its DSCP, by a part of its mark.
pub const POLICY: Template =
    Template::new("policy", "Two workloads on a host that routes by device, source, mark and DSCP.", policy);

fn policy(kind: LinkKind) -> Topology {
    let mut topology = pods(kind);
    let first = |text: &str| text.parse().expect("a constant");
    let selectors = [
        (Family::V4, Selector::Iif("p0".to_owned())),
        (Family::V4, Selector::From(first("10.65.0.2/32"))),
        (Family::V4, Selector::FwMark(POLICY_MARK)),
        (Family::V4, Selector::Tos(POLICY_TOS)),
        (Family::V4, POLICY_MARK_PART),
        (Family::V6, Selector::Iif("p0".to_owned())),
        (Family::V6, Selector::From(first("fd65::2/128"))),
        (Family::V6, Selector::FwMark(POLICY_MARK)),
        (Family::V6, Selector::Tos(POLICY_TOS)),
        (Family::V6, POLICY_MARK_PART),
    ];
    let addresses = POLICY_ADDRS.as_flattened();
    for (((family, selector), address), number) in selectors.into_iter().zip(addresses).zip(0u32..) {
        let table = POLICY_TABLES + number;
        let address = format!("{address}/{}", if family == Family::V4 { 32 } else { 128 });
        topology = topology.addr("w1", "eth0", &[&address]).route_in("host", table, &address, Hop::dev("p1")).rule(
            "host",
            family,
            1000 + number,
            selector,
            table,
        );
    }
    topology
}

/// The second workload's addresses in [`POLICY`] for each family: by device, by source, by mark, by DSCP, by a part of
/// the mark.
pub const POLICY_ADDRS: [[&str; 5]; 2] = [
    ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.5"],
    ["2001:db8:c::1", "2001:db8:c::2", "2001:db8:c::3", "2001:db8:c::4", "2001:db8:c::5"],
];

const POLICY_TABLES: u32 = 100;

/// The table that the rule for an address of [`POLICY_ADDRS`] leads to.
pub const fn policy_table(family: Family, rule: usize) -> u32 {
    POLICY_TABLES + (POLICY_ADDRS[0].len() * family as usize + rule) as u32
}

/// The mark that [`POLICY`] has a rule for.
pub const POLICY_MARK: u32 = 0x65;

/// The part of a mark that [`POLICY`] has another rule for: [`POLICY_MARK`] has it, and so have other marks.
pub const POLICY_MARK_PART: Selector = Selector::FwMarkPart { mark: 0x60, mask: 0xf0 };

/// The type of service and traffic class that [`POLICY`] has a rule for, of the bits that routing by IPv4 has always looked at
/// (`IPTOS_RT_MASK`, include/net/route.h).
pub const POLICY_TOS: u8 = 0x10;

/// A workload and a server with two paths between them: behind the first one's router links have an MTU of 1400 bytes,
/// behind the other one's of 1500, and before both of 2000.
pub const DIAMOND: Template =
    Template::new("diamond", "A workload and a server with two paths of different MTU between them.", diamond);

fn diamond(kind: LinkKind) -> Topology {
    let mut topology = workload_on(Topology::new().router("a"), "a", ("w", kind), "p0", 65, 2).node("b");
    for end in topology.links.iter_mut().flat_map(|link| [&mut link.primary, &mut link.peer]) {
        end.mtu = Some(2000);
    }
    for (number, mtu) in [(1, 1400), (2, 1500)] {
        let (router, near, far) = (format!("r{number}"), format!("u{number}"), format!("e{number}"));
        let v4 = |link: u8, host: u8| format!("10.{link}.{number}.{host}");
        let v6 = |link: u8, host: u8| format!("fd{link}:{number}::{host}");
        let on = |link, host| [format!("{}/24", v4(link, host)), format!("{}/64", v6(link, host))];
        let (a, r_in, r_out, b) = (on(10, 1), on(10, 2), on(20, 1), on(20, 2));
        let table = 100 + number;
        topology = topology
            .router(&router)
            .link(LinkKind::Veth, End::new("a", &near).mtu(2000), End::new(&router, "a").mtu(2000))
            .link(LinkKind::Veth, End::new(&router, "b").mtu(mtu), End::new("b", &far).mtu(mtu))
            .addr("a", &near, &[&a[0], &a[1]])
            .addr(&router, "a", &[&r_in[0], &r_in[1]])
            .addr(&router, "b", &[&r_out[0], &r_out[1]])
            .addr("b", &far, &[&b[0], &b[1]])
            .route("a", &format!("10.20.{number}.0/24"), Hop::via(&v4(10, 2), &near))
            .route("a", &format!("fd20:{number}::/64"), Hop::via(&v6(10, 2), &near))
            .route(&router, "10.65.0.0/24", Hop::via(&v4(10, 1), "a"))
            .route(&router, "fd65::/64", Hop::via(&v6(10, 1), "a"))
            // Answers use the same path as the request.
            .route_in("b", table, "0.0.0.0/0", Hop::via(&v4(20, 1), &far))
            .route_in("b", table, "::/0", Hop::via(&v6(20, 1), &far));
        for (family, source) in [(Family::V4, format!("{}/32", v4(20, 2))), (Family::V6, format!("{}/128", v6(20, 2)))]
        {
            let source = source.parse().expect("a valid address");
            topology = topology.rule("b", family, 1000 + table, Selector::From(source), table);
        }
    }
    topology
}

/// The server's addresses in [`DIAMOND`], each behind a path of its own, with that path's MTU in bytes.
pub const DIAMOND_PATHS: [(&str, u32); 4] =
    [("10.20.1.2", 1400), ("fd20:1::2", 1400), ("10.20.2.2", 1500), ("fd20:2::2", 1500)];

/// A workload in the VRF `blue`, a server in the VRF `red`, on one router whose VRF tables leak into each other.
pub const VRF: Template =
    Template::new("vrf", "A workload in one VRF and a server in another, with routes from each VRF to the other.", vrf);

fn vrf(kind: LinkKind) -> Topology {
    const BLUE: u32 = 10;
    const RED: u32 = 20;
    Topology::new()
        .router("r1")
        .node("h1")
        .node("h2")
        .link(kind, ("r1", "p0"), ("h1", "eth0"))
        .link(LinkKind::Veth, ("r1", "u"), ("h2", "eth0"))
        .device("r1", "blue", DeviceSpec::Vrf { table: BLUE })
        .device("r1", "red", DeviceSpec::Vrf { table: RED })
        .port("r1", "p0", "blue")
        .port("r1", "u", "red")
        .addr("r1", "u", &["198.51.100.1/24", "2001:db8:b::1/64"])
        .addr("r1", "p0", &["169.254.1.1/32", "fd65::fe:1/128"])
        .addr("h1", "eth0", &["10.65.0.2/32", "fd65::2/128"])
        .addr("h2", "eth0", &["198.51.100.2/24", "2001:db8:b::2/64"])
        .route("h1", "169.254.1.1/32", Hop::dev("eth0"))
        .route("h1", "fd65::fe:1/128", Hop::dev("eth0"))
        .route("h1", "0.0.0.0/0", Hop::via("169.254.1.1", "eth0"))
        .route("h1", "::/0", Hop::via("fd65::fe:1", "eth0"))
        .route("h2", "0.0.0.0/0", Hop::via("198.51.100.1", "eth0"))
        .route("h2", "::/0", Hop::via("2001:db8:b::1", "eth0"))
        .route_in("r1", BLUE, "10.65.0.2/32", Hop::dev("p0"))
        .route_in("r1", BLUE, "fd65::2/128", Hop::dev("p0"))
        .route_in("r1", BLUE, "198.51.100.0/24", Hop::dev("u"))
        .route_in("r1", BLUE, "2001:db8:b::/64", Hop::dev("u"))
        .route_in("r1", RED, "10.65.0.2/32", Hop::dev("p0"))
        .route_in("r1", RED, "fd65::2/128", Hop::dev("p0"))
        .static_neighbours()
}
