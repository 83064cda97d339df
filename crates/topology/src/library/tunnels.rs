//! Two nodes, with and without a tunnel between them.

use super::workload_on;
use crate::{
    model::{DeviceSpec, Hop, LinkKind, Topology, Tunnel},
    template::Template,
};

/// Encapsulation between the two nodes of the topologies `two-node…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlay {
    /// None.
    None,
    /// VXLAN over IPv4.
    Vxlan4,
    /// VXLAN over IPv6.
    Vxlan6,
    /// IPv4 in IPv4. IPv6 is not encapsulated.
    Ipip,
    /// IPv4 and IPv6 in IPv6.
    Ip6Tnl,
    /// VXLAN over whichever family a program chooses packet by packet; no route leads into it.
    VxlanMetadata,
}

impl Overlay {
    /// Bytes by which its device's MTU is smaller than the way below: outer IP, UDP, VXLAN and the inner Ethernet
    /// header. Where packets choose the way, the device knows of none.
    pub const fn overhead(self) -> u32 {
        match self {
            Self::None | Self::VxlanMetadata => 0,
            Self::Vxlan4 => 20 + 8 + 8 + 14,
            Self::Vxlan6 => 40 + 8 + 8 + 14,
            Self::Ipip => 20,
            Self::Ip6Tnl => 40,
        }
    }

    /// The overlay's device on both nodes.
    pub const fn dev(self) -> &'static str {
        match self {
            Self::None => "u",
            Self::Vxlan4 | Self::Vxlan6 | Self::VxlanMetadata => "vx0",
            Self::Ipip => "ipip0",
            Self::Ip6Tnl => "ip6t0",
        }
    }

    fn spec(self, tunnel: Tunnel) -> Option<DeviceSpec> {
        match self {
            Self::None => None,
            Self::Vxlan4 | Self::Vxlan6 => Some(DeviceSpec::Vxlan { id: VNI, tunnel }),
            Self::Ipip | Self::Ip6Tnl => Some(DeviceSpec::IpTunnel { tunnel }),
            Self::VxlanMetadata => Some(DeviceSpec::VxlanMetadata),
        }
    }
}

/// MTU of the nodes' link, bytes: the kernel's default.
const MTU: u32 = 1500;

/// The network identifier of both VXLANs.
pub const VNI: u32 = 42;

/// A workload on each of two hosts that route between them.
pub const TWO_NODE: Template =
    Template::new("two-node", "A workload on each of two hosts that route between them.", |kind| {
        two_node(kind, Overlay::None)
    });

/// Two hosts with VXLAN over IPv4 between them.
pub const TWO_NODE_VXLAN: Template =
    Template::new("two-node-vxlan", "Two hosts with VXLAN over IPv4 between them.", |kind| {
        two_node(kind, Overlay::Vxlan4)
    });

/// Two hosts with VXLAN over IPv6 between them.
pub const TWO_NODE_VXLAN6: Template =
    Template::new("two-node-vxlan6", "Two hosts with VXLAN over IPv6 between them.", |kind| {
        two_node(kind, Overlay::Vxlan6)
    });

/// Two hosts with IPv4 in IPv4 between them; IPv6 is not tunnelled.
pub const TWO_NODE_IPIP: Template =
    Template::new("two-node-ipip", "Two hosts with IPv4 in IPv4 between them; IPv6 is not tunnelled.", |kind| {
        two_node(kind, Overlay::Ipip)
    });

/// Two hosts with IPv4 and IPv6 in IPv6 between them.
pub const TWO_NODE_IP6TNL: Template =
    Template::new("two-node-ip6tnl", "Two hosts with IPv4 and IPv6 in IPv6 between them.", |kind| {
        two_node(kind, Overlay::Ip6Tnl)
    });

/// Two hosts with a VXLAN device each without a remote address: programs select it per packet.
pub const TWO_NODE_METADATA: Template = Template::new(
    "two-node-metadata",
    "Two hosts with a VXLAN device each without a remote address: programs select it per packet.",
    |kind| two_node(kind, Overlay::VxlanMetadata),
);

fn two_node(kind: LinkKind, overlay: Overlay) -> Topology {
    const SIDES: [(&str, &str, u8); 2] = [("nodeA", "w0", 65), ("nodeB", "w1", 66)];
    let underlay = |side: usize| (format!("192.0.2.{}", side + 1), format!("2001:db8:a::{}", side + 1));
    let mut topology = Topology::new().router(SIDES[0].0).router(SIDES[1].0).link(
        LinkKind::Veth,
        (SIDES[0].0, "u"),
        (SIDES[1].0, "u"),
    );
    for (side, (node, workload, network)) in SIDES.into_iter().enumerate() {
        let (v4, v6) = underlay(side);
        let (far4, far6) = underlay(1 - side);
        let far_network = SIDES[1 - side].2;
        let (pods4, pods6) = (format!("10.{far_network}.0.0/24"), format!("fd{far_network}::/64"));
        topology = topology.addr(node, "u", &[&format!("{v4}/24"), &format!("{v6}/64")]);
        topology = workload_on(topology, node, (workload, kind), "p0", network, 2);
        if let (Overlay::VxlanMetadata, Some(link)) = (overlay, topology.links.last_mut()) {
            // No route carries the smaller MTU of the tunnel, so that the link has it.
            let mtu = Some(MTU - Overlay::Vxlan6.overhead());
            (link.primary.mtu, link.peer.mtu) = (mtu, mtu);
        }
        let outer = |v4: &str, v6: &str| {
            let outer = if matches!(overlay, Overlay::Vxlan6 | Overlay::Ip6Tnl) { v6 } else { v4 };
            outer.parse().expect("a valid address")
        };
        let tunnel = Tunnel { over: "u".to_owned(), local: outer(&v4, &v6), remote: outer(&far4, &far6) };
        let plain4 = Hop::via(&far4, "u");
        let plain6 = Hop::via(&far6, "u");
        let Some(spec) = overlay.spec(tunnel) else {
            topology = topology.route(node, &pods4, plain4).route(node, &pods6, plain6);
            continue;
        };
        let dev = overlay.dev();
        topology = topology.device(node, dev, spec);
        topology = match overlay {
            Overlay::Vxlan4 | Overlay::Vxlan6 => topology
                .addr(node, dev, &[&format!("10.42.0.{}/24", side + 1), &format!("fd42::{}/64", side + 1)])
                .route(node, &pods4, Hop::via(&format!("10.42.0.{}", 2 - side), dev))
                .route(node, &pods6, Hop::via(&format!("fd42::{}", 2 - side), dev)),
            Overlay::Ipip => topology.route(node, &pods4, Hop::dev(dev)).route(node, &pods6, plain6),
            Overlay::VxlanMetadata => topology,
            Overlay::Ip6Tnl | Overlay::None => {
                topology.route(node, &pods4, Hop::dev(dev)).route(node, &pods6, Hop::dev(dev))
            }
        };
    }
    topology
}
