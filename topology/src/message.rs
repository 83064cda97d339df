//! Link requests in the terms of `netlink-packet-route`.

use crate::{
    link::PairRequest,
    model::{LinkKind, NetkitOptions, Policy, Scrub},
};
use lab_netlink::{
    DefaultNla,
    route::{
        RouteNetlinkMessage,
        link::{
            InfoData, InfoKind, InfoNetkit, InfoVeth, LinkAttribute, LinkInfo, LinkMessage, NetkitMode, NetkitPolicy,
            NetkitScrub,
        },
    },
};
use std::os::fd::{AsRawFd, BorrowedFd};

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
    let peer = end(request.peer_name.as_deref(), request.peer_mtu, request.peer_mac, request.peer_netns);
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
    attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]));
    RouteNetlinkMessage::NewLink(indexed(request.ifindex.unwrap_or(0), attributes))
}

/// `RTM_NEWLINK` for a device of a kind that needs no data.
pub(crate) fn new_plain(name: &str, kind: InfoKind) -> RouteNetlinkMessage {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
    RouteNetlinkMessage::NewLink(message)
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
