//! Nodes, links, addresses and routes as pure data, without I/O.

pub use crate::{
    parts::{Device, DeviceSpec, Nat, Port, Rule, Selector, Tunnel},
    terms::{Cidr, Family, LinkKind, NetkitOptions, Policy, Scrub},
};
use std::net::IpAddr;

/// One end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The node it lies in.
    pub node: String,
    /// The device's name there.
    pub name: String,
    /// MTU in bytes; unset leaves the kernel's 1500.
    pub mtu: Option<u32>,
    /// MAC address; unset lets the builder give each end a fixed one, except in L3 mode, where the kernel refuses any.
    pub mac: Option<[u8; 6]>,
    /// Index in its node; unset lets the builder give each end of a topology another one, so that an index that a
    /// program reports identifies one device.
    pub ifindex: Option<u32>,
}

impl End {
    /// An end with the builder's defaults.
    pub fn new(node: &str, name: &str) -> Self {
        Self { node: node.to_owned(), name: name.to_owned(), mtu: None, mac: None, ifindex: None }
    }

    /// With this MTU, bytes.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// With this MAC address.
    #[must_use]
    pub fn mac(mut self, mac: [u8; 6]) -> Self {
        self.mac = Some(mac);
        self
    }

    /// With this index: for cases about indexes that collide between namespaces.
    #[must_use]
    pub fn ifindex(mut self, ifindex: u32) -> Self {
        self.ifindex = Some(ifindex);
        self
    }
}

impl From<(&str, &str)> for End {
    fn from((node, name): (&str, &str)) -> Self {
        Self::new(node, name)
    }
}

/// A pair of devices. For netkit the first end is the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Kind of both ends.
    pub kind: LinkKind,
    /// The primary: the host's end.
    pub primary: End,
    /// The peer: the workload's end.
    pub peer: End,
    /// Ignored for veth.
    pub netkit: NetkitOptions,
}

/// A node: a network namespace with a thread of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name, unique in the topology; cases and `lab shell` use it.
    pub name: String,
    /// Whether it forwards IPv4 and IPv6.
    pub router: bool,
}

/// An address on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceAddress {
    /// The node.
    pub node: String,
    /// The device.
    pub dev: String,
    /// The address.
    pub cidr: Cidr,
}

/// Next hop of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Gateway; none for an on-link route.
    pub via: Option<IpAddr>,
    /// Outgoing device (`RTA_OIF`).
    pub dev: String,
}

impl Hop {
    /// A destination that is reached without a gateway.
    pub fn dev(dev: &str) -> Self {
        Self { via: None, dev: dev.to_owned() }
    }

    /// Through a gateway.
    ///
    /// # Panics
    /// If `via` is not an address: topologies are constants, and building the library is tested.
    pub fn via(via: &str, dev: &str) -> Self {
        let gateway = via.parse().unwrap_or_else(|_| panic!("gateway `{via}` is not an address"));
        Self { via: Some(gateway), dev: dev.to_owned() }
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The node.
    pub node: String,
    /// The table; unset is the main one.
    pub table: Option<u32>,
    /// Destination; `0.0.0.0/0` and `::/0` are the defaults.
    pub to: Cidr,
    /// Its next hop.
    pub hop: Hop,
}

/// A sysctl of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// The node.
    pub node: String,
    /// Path below `/proc/sys`: `net/ipv4/tcp_mtu_probing`.
    pub key: String,
    /// What is written to it.
    pub value: String,
}

/// A whole topology, built by chained method calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// Name of the [`Template`](crate::Template) that it was built from, as in cell listings.
    pub name: String,
    /// In the order in which they are made.
    pub nodes: Vec<Node>,
    /// In the order in which they are made, after the nodes.
    pub links: Vec<Link>,
    /// Devices without a peer, made in this order and after all pairs.
    pub devices: Vec<Device>,
    /// Devices that belong to a bridge or a VRF.
    pub ports: Vec<Port>,
    /// Assigned after all devices exist.
    pub addresses: Vec<DeviceAddress>,
    /// Routes, added in this order.
    pub routes: Vec<Route>,
    /// Rules of policy routing.
    pub rules: Vec<Rule>,
    /// Rules of nftables that translate addresses.
    pub nat: Vec<Nat>,
    /// Written after the builder's own and before any device exists.
    pub sysctls: Vec<Sysctl>,
    /// Whether both ends of each link with MAC addresses know each other's addresses as permanent neighbours.
    /// Needed wherever a program redirects or drops ARP and neighbour discovery.
    pub static_neighbours: bool,
}

impl Topology {
    /// An empty topology. Its name comes from the [`Template`](crate::Template) that it is built from.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node that does not forward.
    #[must_use]
    pub fn node(mut self, name: &str) -> Self {
        self.nodes.push(Node { name: name.to_owned(), router: false });
        self
    }

    /// Adds a node that forwards.
    #[must_use]
    pub fn router(mut self, name: &str) -> Self {
        self.nodes.push(Node { name: name.to_owned(), router: true });
        self
    }

    /// Adds a pair; the first end is the primary.
    #[must_use]
    pub fn link(self, kind: LinkKind, primary: impl Into<End>, peer: impl Into<End>) -> Self {
        self.link_with(kind, primary, peer, NetkitOptions::default())
    }

    /// Adds a pair with netkit options.
    #[must_use]
    pub fn link_with(
        mut self,
        kind: LinkKind,
        primary: impl Into<End>,
        peer: impl Into<End>,
        netkit: NetkitOptions,
    ) -> Self {
        self.links.push(Link { kind, primary: primary.into(), peer: peer.into(), netkit });
        self
    }

    /// Adds a dummy device.
    #[must_use]
    pub fn dummy(self, node: &str, name: &str) -> Self {
        self.device(node, name, DeviceSpec::Dummy)
    }

    /// Adds a device without a peer.
    #[must_use]
    pub fn device(mut self, node: &str, name: &str, spec: DeviceSpec) -> Self {
        self.devices.push(Device { node: node.to_owned(), name: name.to_owned(), spec });
        self
    }

    /// Makes a device a port of a bridge or VRF.
    #[must_use]
    pub fn port(mut self, node: &str, dev: &str, controller: &str) -> Self {
        self.ports.push(Port { node: node.to_owned(), dev: dev.to_owned(), controller: controller.to_owned() });
        self
    }

    /// Adds addresses to a device: `10.0.0.1/24`, `fd00::1/64`.
    ///
    /// # Panics
    /// If one is not an address with a prefix length.
    #[must_use]
    pub fn addr(mut self, node: &str, dev: &str, cidrs: &[&str]) -> Self {
        for text in cidrs {
            self.addresses.push(DeviceAddress { node: node.to_owned(), dev: dev.to_owned(), cidr: cidr(text) });
        }
        self
    }

    /// Adds a route.
    ///
    /// # Panics
    /// If `to` is not a prefix.
    #[must_use]
    pub fn route(mut self, node: &str, to: &str, hop: Hop) -> Self {
        self.routes.push(Route { node: node.to_owned(), table: None, to: cidr(to), hop });
        self
    }

    /// Adds a route to a table of its own.
    ///
    /// # Panics
    /// If `to` is not a prefix.
    #[must_use]
    pub fn route_in(mut self, node: &str, table: u32, to: &str, hop: Hop) -> Self {
        self.routes.push(Route { node: node.to_owned(), table: Some(table), to: cidr(to), hop });
        self
    }

    /// Adds a rule that sends packets to a table.
    #[must_use]
    pub fn rule(mut self, node: &str, family: Family, priority: u32, selector: Selector, table: u32) -> Self {
        self.rules.push(Rule { node: node.to_owned(), family, priority, selector, table });
        self
    }

    /// Adds a rule of address translation.
    #[must_use]
    pub fn nat(mut self, nat: Nat) -> Self {
        self.nat.push(nat);
        self
    }

    /// Adds a sysctl: `net/ipv4/conf/all/log_martians`.
    #[must_use]
    pub fn sysctl(mut self, node: &str, key: &str, value: &str) -> Self {
        self.sysctls.push(Sysctl { node: node.to_owned(), key: key.to_owned(), value: value.to_owned() });
        self
    }

    /// Adds the addresses of both ends of each link to the other end as permanent neighbours.
    #[must_use]
    pub fn static_neighbours(mut self) -> Self {
        self.static_neighbours = true;
        self
    }

    /// The first address of a node in a family: the one that traffic to the node uses.
    pub fn first_addr(&self, node: &str, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .filter(|address| address.node == node)
            .map(|address| address.cidr.addr)
            .find(|address| Family::of(*address) == family)
    }
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}
