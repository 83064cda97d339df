//! Link requests in the terms of `netlink-packet-route`.

use crate::{
    link::PairRequest,
    model::{DeviceSpec, LinkKind, NetkitOptions, Policy, Scrub, Tunnel},
};
use lab_netlink::{
    DefaultNla,
    route::{
        IpProtocol, RouteNetlinkMessage,
        link::{
            InfoData, InfoIpTunnel, InfoKind, InfoNetkit, InfoVeth, InfoVrf, InfoVxlan, Ip6TunnelFlags, LinkAttribute,
            LinkInfo, LinkMessage, NetkitMode, NetkitPolicy, NetkitScrub,
        },
    },
};
use std::{
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

/// `IFLA_NETKIT_HEADROOM` of `linux/if_link.h`.
pub(crate) const HEADROOM: u16 = 8;
/// `IFLA_NETKIT_TAILROOM`.
pub(crate) const TAILROOM: u16 = 9;
/// `IFLA_NETKIT_PAIRING`.
pub(crate) const PAIRING: u16 = 10;
/// `NETKIT_DEVICE_PAIR`.
const PAIR: u32 = 0;
/// `NETKIT_DEVICE_SINGLE`.
pub(crate) const SINGLE: u32 = 1;
/// IANA's port for VXLAN; the kernel's own default is an older one.
pub(crate) const VXLAN_PORT: u16 = 4789;

/// A link message about the device of that name.
pub(crate) fn named(name: &str) -> LinkMessage {
    with(vec![LinkAttribute::IfName(name.to_owned())])
}

/// A link message about the device of that index.
pub(crate) fn indexed(ifindex: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = with(attributes);
    message.header.index = ifindex;
    message
}

/// `RTM_NEWLINK` for a pair.
pub(crate) fn new_pair(request: &PairRequest<'_>) -> RouteNetlinkMessage {
    let mut peer = end(request.peer_name.as_deref(), request.peer_mtu, request.peer_mac, request.peer_netns);
    peer.extend(request.rx_queues.map(LinkAttribute::NumRxQueues));
    let peer = indexed(request.peer_ifindex.unwrap_or(0), peer);
    let (kind, data) = match mode(request.kind) {
        None => (InfoKind::Veth, InfoData::Veth(InfoVeth::Peer(peer))),
        Some(mode) => {
            let mut data = vec![InfoNetkit::Mode(mode)];
            if !request.without_peer_info {
                data.push(InfoNetkit::Peer(peer));
            }
            data.extend(options(&request.netkit));
            (InfoKind::Netkit, InfoData::Netkit(data))
        }
    };
    let mut attributes = end(Some(&request.name), request.mtu, request.mac, None);
    attributes.extend(request.rx_queues.map(LinkAttribute::NumRxQueues));
    attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]));
    RouteNetlinkMessage::NewLink(indexed(request.ifindex.unwrap_or(0), attributes))
}

/// `RTM_NEWLINK` for a device without a peer; `over` is the index of the device that carries a tunnel. A tap has no
/// such request: it is made through its file.
pub(crate) fn new_device(name: &str, spec: &DeviceSpec, over: u32) -> Option<RouteNetlinkMessage> {
    let (kind, data) = match spec {
        DeviceSpec::Dummy => (InfoKind::Dummy, None),
        DeviceSpec::Bridge => (InfoKind::Bridge, None),
        DeviceSpec::Vrf { table } => (InfoKind::Vrf, Some(InfoData::Vrf(vec![InfoVrf::TableId(*table)]))),
        DeviceSpec::Vxlan { id, tunnel } => (InfoKind::Vxlan, Some(InfoData::Vxlan(vxlan(*id, tunnel, over)))),
        DeviceSpec::VxlanMetadata => {
            // There is no far end to learn anything about.
            let data = vec![InfoVxlan::CollectMetadata(true), InfoVxlan::Learning(false), InfoVxlan::Port(VXLAN_PORT)];
            (InfoKind::Vxlan, Some(InfoData::Vxlan(data)))
        }
        DeviceSpec::IpTunnel { tunnel } => {
            let kind = if tunnel.local.is_ipv4() { InfoKind::IpIp } else { InfoKind::Ip6Tnl };
            (kind, Some(InfoData::IpTunnel(ip_tunnel(tunnel, over))))
        }
        DeviceSpec::Tap { .. } => return None,
    };
    let mut info = vec![LinkInfo::Kind(kind)];
    info.extend(data.map(LinkInfo::Data));
    let mut message = named(name);
    message.attributes.push(LinkAttribute::LinkInfo(info));
    Some(RouteNetlinkMessage::NewLink(message))
}

fn vxlan(id: u32, tunnel: &Tunnel, over: u32) -> Vec<InfoVxlan> {
    let local = match tunnel.local {
        IpAddr::V4(local) => InfoVxlan::Local(local),
        IpAddr::V6(local) => InfoVxlan::Local6(local),
    };
    let remote = match tunnel.remote {
        IpAddr::V4(remote) => InfoVxlan::Group(remote),
        IpAddr::V6(remote) => InfoVxlan::Group6(remote),
    };
    vec![InfoVxlan::Id(id), InfoVxlan::Port(VXLAN_PORT), InfoVxlan::Link(over), local, remote]
}

fn ip_tunnel(tunnel: &Tunnel, over: u32) -> Vec<InfoIpTunnel> {
    let mut data = vec![
        InfoIpTunnel::Link(over),
        InfoIpTunnel::Local(tunnel.local),
        InfoIpTunnel::Remote(tunnel.remote),
        InfoIpTunnel::Ttl(64),
    ];
    if tunnel.local.is_ipv4() {
        data.push(InfoIpTunnel::PMtuDisc(true));
    } else {
        // Both families inside; and no destination option for nested tunnels, which would cost eight bytes.
        data.push(InfoIpTunnel::Protocol(IpProtocol::from(0)));
        data.push(InfoIpTunnel::Ipv6Flags(Ip6TunnelFlags::IgnEncapLimit));
    }
    data
}

/// `RTM_NEWLINK` that changes a netkit device.
pub(crate) fn change(ifindex: u32, netkit: &NetkitOptions) -> RouteNetlinkMessage {
    let data = InfoData::Netkit(options(netkit));
    let info = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Netkit), LinkInfo::Data(data)]);
    RouteNetlinkMessage::NewLink(indexed(ifindex, vec![info]))
}

fn with(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = attributes;
    message
}

fn mode(kind: LinkKind) -> Option<NetkitMode> {
    match kind {
        LinkKind::Veth => None,
        LinkKind::NetkitL2 => Some(NetkitMode::L2),
        LinkKind::NetkitL3 => Some(NetkitMode::L3),
    }
}

fn end(
    name: Option<&str>,
    mtu: Option<u32>,
    mac: Option<[u8; 6]>,
    netns: Option<BorrowedFd<'_>>,
) -> Vec<LinkAttribute> {
    [
        name.map(|name| LinkAttribute::IfName(name.to_owned())),
        mtu.map(LinkAttribute::Mtu),
        mac.map(|mac| LinkAttribute::Address(mac.to_vec())),
        netns.map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd())),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn options(options: &NetkitOptions) -> Vec<InfoNetkit> {
    // The typed headroom and tailroom of netlink-packet-route are four bytes long, and the kernel wants two.
    let bytes = |kind, value: &[u8]| InfoNetkit::Other(DefaultNla::new(kind, value.to_vec()));
    let policy = |policy| match policy {
        Policy::Forward => NetkitPolicy::Pass,
        Policy::Blackhole => NetkitPolicy::Drop,
    };
    let scrub = |scrub| match scrub {
        Scrub::None => NetkitScrub::None,
        Scrub::Default => NetkitScrub::Default,
    };
    [
        options.policy.map(|value| InfoNetkit::Policy(policy(value))),
        options.peer_policy.map(|value| InfoNetkit::PeerPolicy(policy(value))),
        options.scrub.map(|value| InfoNetkit::Scrub(scrub(value))),
        options.peer_scrub.map(|value| InfoNetkit::PeerScrub(scrub(value))),
        options.headroom.map(|value| bytes(HEADROOM, &value.to_ne_bytes())),
        options.tailroom.map(|value| bytes(TAILROOM, &value.to_ne_bytes())),
        options.single.map(|single| bytes(PAIRING, &(if single { SINGLE } else { PAIR }).to_ne_bytes())),
    ]
    .into_iter()
    .flatten()
    .chain(options.raw.iter().map(|(kind, value)| bytes(*kind, value)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_netlink::{Emitable, attributes};

    #[test]
    fn headroom_is_two_bytes_and_raw_attributes_come_last() {
        let netkit = NetkitOptions {
            headroom: Some(64),
            single: Some(true),
            raw: vec![(3, 7u32.to_ne_bytes().to_vec())],
            ..NetkitOptions::default()
        };
        let encoded = options(&netkit);
        let mut bytes = vec![0; encoded.as_slice().buffer_len()];
        encoded.as_slice().emit(&mut bytes);
        let read: Vec<_> = attributes(&bytes).map(|(kind, value)| (kind, value.to_vec())).collect();
        let wanted = [
            (HEADROOM, 64u16.to_ne_bytes().to_vec()),
            (PAIRING, SINGLE.to_ne_bytes().to_vec()),
            (3, 7u32.to_ne_bytes().to_vec()),
        ];
        assert_eq!(read, wanted);
    }
}
