//! Devices as the kernel reports them.

use crate::message::{HEADROOM, PAIRING, SINGLE, TAILROOM};
use lab_netlink::route::link::{
    InfoData, InfoKind, InfoNetkit, LinkAttribute, LinkFlags, LinkInfo as Info, LinkMessage, NetkitMode, NetkitPolicy,
    NetkitScrub, State,
};
use lab_protocol::DeviceKind;

/// A device, from `RTM_GETLINK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Index in its own namespace.
    pub ifindex: u32,
    /// `IFLA_IFNAME`.
    pub name: String,
    /// Kind, from `IFLA_INFO_KIND` and for netkit from `IFLA_NETKIT_MODE`.
    pub kind: DeviceKind,
    /// MAC address; all zeros for netkit in L3 mode, `None` where the device has none of six bytes.
    pub mac: Option<[u8; 6]>,
    /// `IFLA_MTU`, bytes.
    pub mtu: u32,
    /// Administratively up, `IFF_UP`.
    pub up: bool,
    /// Operationally up as far as the kernel knows, `IFF_RUNNING`: also set where it has not looked yet.
    pub running: bool,
    /// `IFLA_OPERSTATE` says up (RFC 2863): the kernel has seen the carrier and made the device's queue work.
    pub carries: bool,
    /// `IFLA_LINK`: index of the other end, in the other end's namespace.
    pub peer_ifindex: Option<u32>,
    /// `IFLA_LINK_NETNSID`: the other end's namespace, by the number that this device's namespace has for it; `None` where both
    /// ends are in one namespace.
    pub peer_netnsid: Option<i32>,
    /// Set for netkit.
    pub netkit: Option<NetkitInfo>,
}

/// `IFLA_INFO_DATA` of a netkit device. `None` is an attribute that the kernel does not report: it does not know it,
/// whatever it accepted before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetkitInfo {
    /// Whether this end is the primary.
    pub primary: Option<bool>,
    /// `IFLA_NETKIT_MODE`.
    pub mode: Option<NetkitMode>,
    /// Policy of this end.
    pub policy: Option<NetkitPolicy>,
    /// Policy of the other end.
    pub peer_policy: Option<NetkitPolicy>,
    /// Scrubbing at this end.
    pub scrub: Option<NetkitScrub>,
    /// Scrubbing at the other end.
    pub peer_scrub: Option<NetkitScrub>,
    /// `needed_headroom`, bytes.
    pub headroom: Option<u16>,
    /// `needed_tailroom`, bytes.
    pub tailroom: Option<u16>,
    /// Whether the device has no peer, `IFLA_NETKIT_PAIRING`.
    pub single: Option<bool>,
}

impl DeviceInfo {
    pub(crate) fn of(message: &LinkMessage) -> Self {
        let mut info = Self {
            ifindex: message.header.index,
            name: String::new(),
            kind: DeviceKind::Other,
            mac: None,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            running: message.header.flags.contains(LinkFlags::Running),
            carries: false,
            peer_ifindex: None,
            peer_netnsid: None,
            netkit: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => info.name.clone_from(name),
                LinkAttribute::Address(bytes) => info.mac = bytes.as_slice().try_into().ok(),
                LinkAttribute::Mtu(mtu) => info.mtu = *mtu,
                LinkAttribute::OperState(state) => info.carries = *state == State::Up,
                LinkAttribute::LinkNetNsId(id) => info.peer_netnsid = Some(*id),
                LinkAttribute::Link(index) => info.peer_ifindex = Some(*index),
                LinkAttribute::LinkInfo(parts) => (info.kind, info.netkit) = kind_of(parts),
                _ => {}
            }
        }
        info
    }
}

fn kind_of(parts: &[Info]) -> (DeviceKind, Option<NetkitInfo>) {
    let mut kind = DeviceKind::Other;
    let mut netkit = None;
    for part in parts {
        match part {
            Info::Kind(InfoKind::Veth) => kind = DeviceKind::Veth,
            Info::Data(InfoData::Netkit(data)) => netkit = Some(NetkitInfo::of(data)),
            _ => {}
        }
    }
    match netkit.as_ref().and_then(|netkit| netkit.mode) {
        Some(NetkitMode::L2) => kind = DeviceKind::NetkitL2,
        Some(NetkitMode::L3) => kind = DeviceKind::NetkitL3,
        _ => {}
    }
    (kind, netkit)
}

impl NetkitInfo {
    fn of(data: &[InfoNetkit]) -> Self {
        let mut info = Self::default();
        for attribute in data {
            match attribute {
                InfoNetkit::Primary(primary) => info.primary = Some(*primary),
                InfoNetkit::Mode(mode) => info.mode = Some(*mode),
                InfoNetkit::Policy(policy) => info.policy = Some(*policy),
                InfoNetkit::PeerPolicy(policy) => info.peer_policy = Some(*policy),
                InfoNetkit::Scrub(scrub) => info.scrub = Some(*scrub),
                InfoNetkit::PeerScrub(scrub) => info.peer_scrub = Some(*scrub),
                InfoNetkit::Headroom(bytes) => info.headroom = Some(*bytes),
                InfoNetkit::Tailroom(bytes) => info.tailroom = Some(*bytes),
                InfoNetkit::Other(other) => info.other(other),
                _ => {}
            }
        }
        info
    }

    /// Attributes that `netlink-packet-route` leaves undecoded.
    fn other(&mut self, attribute: &lab_netlink::DefaultNla) {
        use lab_netlink::Nla;
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        match (attribute.kind(), value.as_slice()) {
            (HEADROOM, &[low, high]) => self.headroom = Some(u16::from_ne_bytes([low, high])),
            (TAILROOM, &[low, high]) => self.tailroom = Some(u16::from_ne_bytes([low, high])),
            (PAIRING, &[a, b, c, d]) => self.single = Some(u32::from_ne_bytes([a, b, c, d]) == SINGLE),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_that_a_namespace_gets_is_one_too() {
        let netnsid = |attributes: Vec<LinkAttribute>| {
            let mut message = LinkMessage::default();
            message.attributes = attributes;
            DeviceInfo::of(&message).peer_netnsid
        };
        assert_eq!(netnsid(vec![LinkAttribute::LinkNetNsId(0)]), Some(0));
        assert_eq!(netnsid(vec![LinkAttribute::Link(7)]), None, "both ends are in one namespace");
    }
}
