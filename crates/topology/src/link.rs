//! Operations on single devices, for cases.
//!
//! Every operation returns the kernel's error unchanged, because cases check it.

use crate::{
    address, message,
    model::{Cidr, DeviceSpec, Link, LinkKind, NetkitOptions},
    netns::Netns,
    readback::DeviceInfo,
};
use lab_netlink::{
    DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NetlinkError,
    route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage, Prop},
        nsid::{NsidAttribute, NsidMessage},
    },
};
use lab_protocol::DeviceKind;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Parameters of `RTM_NEWLINK`. Unset fields are not sent.
#[derive(Debug, Clone)]
pub struct PairRequest<'a> {
    /// Kind of the pair.
    pub kind: LinkKind,
    /// Name of the primary. Where [`Self::without_peer_info`] makes a pair all the same, both ends take this name, so
    /// that only a template (`nk%d`) works.
    pub name: String,
    /// Index of the primary.
    pub ifindex: Option<u32>,
    /// MTU of the primary, bytes.
    pub mtu: Option<u32>,
    /// MAC address of the primary.
    pub mac: Option<[u8; 6]>,
    /// Name of the peer (`IFLA_IFNAME`); the kernel chooses one if `None`.
    pub peer_name: Option<String>,
    /// Index of the peer, in its own namespace. The kernel takes it only together with [`Self::ifindex`].
    pub peer_ifindex: Option<u32>,
    /// MTU of the peer, bytes. The kernel does not inherit it from the primary.
    pub peer_mtu: Option<u32>,
    /// MAC address of the peer.
    pub peer_mac: Option<[u8; 6]>,
    /// Namespace of the peer; unset is the namespace of the request.
    pub peer_netns: Option<BorrowedFd<'a>>,
    /// Receive queues of each end, `IFLA_NUM_RX_QUEUES`; the kernel's default is one.
    pub rx_queues: Option<u32>,
    /// Leaves `IFLA_NETKIT_PEER_INFO` out, as a device without a peer needs. Ignored for veth.
    pub without_peer_info: bool,
    /// Ignored for veth.
    pub netkit: NetkitOptions,
}

impl PairRequest<'static> {
    /// Two devices in the namespace of the request, with the kernel's defaults.
    pub fn new(kind: LinkKind, name: &str, peer_name: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            ifindex: None,
            mtu: None,
            mac: None,
            peer_name: Some(peer_name.to_owned()),
            peer_ifindex: None,
            peer_mtu: None,
            peer_mac: None,
            peer_netns: None,
            rx_queues: None,
            without_peer_info: false,
            netkit: NetkitOptions::default(),
        }
    }
}

impl<'a> PairRequest<'a> {
    /// The request for a topology's link whose peer lies in that namespace.
    pub fn of(link: &Link, peer_netns: &'a Netns) -> Self {
        Self {
            kind: link.kind,
            name: link.primary.name.clone(),
            ifindex: link.primary.ifindex,
            mtu: link.primary.mtu,
            mac: link.primary.mac,
            peer_name: Some(link.peer.name.clone()),
            peer_ifindex: link.peer.ifindex,
            peer_mtu: link.peer.mtu,
            peer_mac: link.peer.mac,
            peer_netns: Some(peer_netns.fd()),
            rx_queues: None,
            without_peer_info: false,
            netkit: link.netkit.clone(),
        }
    }

    /// Sets mode, policies and scrubbing; veth ignores them.
    #[must_use]
    pub fn netkit(mut self, netkit: NetkitOptions) -> Self {
        self.netkit = netkit;
        self
    }
}

/// Counters of a device, `IFLA_STATS64`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets received (`struct rtnl_link_stats64`).
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets dropped on receipt.
    pub rx_dropped: u64,
    /// Packets dropped on sending; where netkit counts a program's drops.
    pub tx_dropped: u64,
    /// Errors on reception, not counting drops.
    pub rx_errors: u64,
    /// Errors on transmission, not counting drops.
    pub tx_errors: u64,
}

impl std::fmt::Display for LinkStats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rx_packets, tx_packets, rx_dropped, tx_dropped, rx_errors, tx_errors, .. } = self;
        write!(
            f,
            "received: {rx_packets} packets, {rx_dropped} dropped, {rx_errors} errors; \
             sent: {tx_packets} packets, {tx_dropped} dropped, {tx_errors} errors"
        )
    }
}

type Done = Result<(), NetlinkError>;

/// Makes a pair, the primary in `ns`.
///
/// # Errors
/// The kernel's refusal: `EOPNOTSUPP` "Unknown device type" without the driver.
pub fn create_pair(ns: &Netns, request: &PairRequest<'_>) -> Done {
    ns.netlink().request(message::new_pair(request), NLM_F_CREATE | NLM_F_EXCL)
}

/// Makes a dummy device.
///
/// # Errors
/// The kernel's refusal.
pub fn create_dummy(ns: &Netns, name: &str) -> Done {
    create_device(ns, name, &DeviceSpec::Dummy)
}

/// Makes a bridge.
///
/// # Errors
/// The kernel's refusal.
pub fn create_bridge(ns: &Netns, name: &str) -> Done {
    create_device(ns, name, &DeviceSpec::Bridge)
}

/// Makes a device without a peer; nothing for a tap, which is made by opening it.
///
/// # Errors
/// The kernel's refusal: `EOPNOTSUPP` "Unknown device type" without the driver.
pub fn create_device(ns: &Netns, name: &str, spec: &DeviceSpec) -> Done {
    let over = match spec {
        DeviceSpec::Vxlan { tunnel, .. } | DeviceSpec::IpTunnel { tunnel } => info(ns, &tunnel.over)?.ifindex,
        _ => 0,
    };
    match message::new_device(name, spec, over) {
        Some(message) => ns.netlink().request(message, NLM_F_CREATE | NLM_F_EXCL),
        None => Ok(()),
    }
}

/// Deletes a device, and with it the other end of a pair.
///
/// # Errors
/// The kernel's refusal: `ENODEV` if it is not there.
pub fn delete(ns: &Netns, name: &str) -> Done {
    ns.netlink().request(RouteNetlinkMessage::DelLink(message::named(name)), 0)
}

/// Changes a live netkit device (`netkit_change_link`): the policies through the primary, nothing else.
///
/// # Errors
/// The kernel's refusal: `EACCES` for what can't change or through the peer.
pub fn change(ns: &Netns, name: &str, netkit: &NetkitOptions) -> Done {
    let ifindex = info(ns, name)?.ifindex;
    ns.netlink().request(message::change(ifindex, netkit), 0)
}

/// Sets a device up.
///
/// # Errors
/// The kernel's refusal.
pub fn set_up(ns: &Netns, name: &str) -> Done {
    set_flags(ns, name, LinkFlags::Up)
}

/// Sets a device down.
///
/// # Errors
/// The kernel's refusal.
pub fn set_down(ns: &Netns, name: &str) -> Done {
    set_flags(ns, name, LinkFlags::empty())
}

/// Gives a device an address: `10.1.0.9/24`. An IPv6 one is not checked for being the only one.
///
/// # Errors
/// The kernel's refusal.
///
/// # Panics
/// On what is no address with a prefix length.
pub fn add_address(ns: &Netns, name: &str, cidr: &str) -> Done {
    let ifindex = info(ns, name)?.ifindex;
    let cidr: Cidr = cidr.parse().unwrap_or_else(|error| panic!("{error}"));
    address::add(&mut ns.netlink(), ifindex, cidr)
}

/// Sets the MTU, bytes.
///
/// # Errors
/// The kernel's refusal: `EINVAL` outside of the driver's bounds.
pub fn set_mtu(ns: &Netns, name: &str, mtu: u32) -> Done {
    set(ns, name, LinkAttribute::Mtu(mtu))
}

/// Sets how long a packet of several segments may be when it is handed to a device, bytes: `IFLA_GSO_MAX_SIZE` for
/// IPv6, `IFLA_GSO_IPV4_MAX_SIZE` for IPv4. Kernels without the latter take it and do nothing.
///
/// # Errors
/// The kernel's refusal: `EINVAL` beyond the driver's `tso_max_size`.
pub fn set_gso_max_size(ns: &Netns, name: &str, bytes: u32) -> Done {
    set(ns, name, LinkAttribute::GsoMaxSize(bytes))?;
    set(ns, name, LinkAttribute::GsoIpv4MaxSize(bytes))
}

/// What [`set_gso_max_size`] sets, for IPv6 and IPv4; `None` where the kernel knows no such limit.
///
/// # Errors
/// The kernel's refusal: `ENODEV` if the device is not there.
pub fn gso_max_sizes(ns: &Netns, name: &str) -> Result<[Option<u32>; 2], NetlinkError> {
    let message = get(ns, message::named(name))?;
    let mut sizes = [None; 2];
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::GsoMaxSize(bytes) => sizes[0] = Some(*bytes),
            LinkAttribute::GsoIpv4MaxSize(bytes) => sizes[1] = Some(*bytes),
            _ => {}
        }
    }
    Ok(sizes)
}

/// Sets the MAC address.
///
/// # Errors
/// The kernel's refusal: `EOPNOTSUPP` for netkit in L3 mode.
pub fn set_mac(ns: &Netns, name: &str, mac: [u8; 6]) -> Done {
    set(ns, name, LinkAttribute::Address(mac.to_vec()))
}

/// Makes a device the port of a bridge or VRF in the same namespace; `None` frees it.
///
/// # Errors
/// The kernel's refusal: `EINVAL` for netkit in L3 mode.
pub fn set_controller(ns: &Netns, name: &str, controller: Option<&str>) -> Done {
    let index = controller.map(|controller| info(ns, controller)).transpose()?.map_or(0, |info| info.ifindex);
    set(ns, name, LinkAttribute::Controller(index))
}

/// Moves a device to another namespace. It loses its addresses and goes down.
///
/// # Errors
/// The kernel's refusal.
pub fn move_to(ns: &Netns, name: &str, target: &Netns) -> Done {
    set(ns, name, LinkAttribute::NetNsFd(target.fd().as_raw_fd()))
}

/// Renames a device.
///
/// # Errors
/// The kernel's refusal.
pub fn rename(ns: &Netns, name: &str, new_name: &str) -> Done {
    set(ns, name, LinkAttribute::IfName(new_name.to_owned()))
}

/// Gives a device an alternative name (`RTM_NEWLINKPROP`).
///
/// # Errors
/// The kernel's refusal: `EEXIST` if the namespace has the name.
pub fn add_altname(ns: &Netns, name: &str, altname: &str) -> Done {
    let mut message = message::indexed(info(ns, name)?.ifindex, Vec::new());
    message.attributes.push(LinkAttribute::PropList(vec![Prop::AltIfName(altname.to_owned())]));
    ns.netlink().request(RouteNetlinkMessage::NewLinkProp(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// The device with that alternative name.
///
/// # Errors
/// The kernel's refusal: `ENODEV` if there is none.
pub fn info_by_altname(ns: &Netns, altname: &str) -> Result<DeviceInfo, NetlinkError> {
    /// `IFLA_ALT_IFNAME`, include/uapi/linux/if_link.h.
    const ALT_IFNAME: u16 = 53;
    let name = DefaultNla::new(ALT_IFNAME, format!("{altname}\0").into_bytes());
    get(ns, without_counters(message::indexed(0, vec![LinkAttribute::Other(name)])))
        .map(|message| DeviceInfo::of(&message))
}

/// The device of that name, as the kernel reports it.
///
/// # Errors
/// The kernel's refusal: `ENODEV` if it is not there.
pub fn info(ns: &Netns, name: &str) -> Result<DeviceInfo, NetlinkError> {
    get(ns, without_counters(message::named(name))).map(|message| DeviceInfo::of(&message))
}

/// The device of that index, as the kernel reports it.
///
/// # Errors
/// The kernel's refusal: `ENODEV` if it is not there.
pub fn info_by_index(ns: &Netns, ifindex: u32) -> Result<DeviceInfo, NetlinkError> {
    get(ns, without_counters(message::indexed(ifindex, Vec::new()))).map(|message| DeviceInfo::of(&message))
}

/// The number that a namespace has for another one (`RTM_GETNSID`); `None` where it has none.
///
/// # Errors
/// The kernel's refusal.
pub fn netnsid(ns: &Netns, of: &Netns) -> Result<Option<i32>, NetlinkError> {
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(of.fd().as_raw_fd().cast_unsigned()));
    let answer = ns.netlink().get(RouteNetlinkMessage::GetNsId(message))?;
    let RouteNetlinkMessage::NewNsId(answer) = answer else { return Ok(None) };
    Ok(answer.attributes.iter().find_map(|attribute| match attribute {
        // NETNSA_NSID_NOT_ASSIGNED.
        NsidAttribute::Id(id) if *id >= 0 => Some(*id),
        _ => None,
    }))
}

/// Every device of the namespace.
///
/// # Errors
/// The kernel's refusal.
pub fn list(ns: &Netns) -> Result<Vec<DeviceInfo>, NetlinkError> {
    let answers = ns.netlink().dump(RouteNetlinkMessage::GetLink(without_counters(LinkMessage::default())))?;
    let links = answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(message) => Some(DeviceInfo::of(message)),
        _ => None,
    });
    Ok(links.collect())
}

/// The kind of a device: what decides which attach type suits it.
///
/// # Errors
/// The kernel's refusal: `ENODEV` if it is not there.
pub fn detect_kind(ns: &Netns, ifindex: u32) -> Result<DeviceKind, NetlinkError> {
    info_by_index(ns, ifindex).map(|info| info.kind)
}

/// The counters of a device.
///
/// # Errors
/// The kernel's refusal: `ENODEV` if it is not there.
pub fn stats(ns: &Netns, name: &str) -> Result<LinkStats, NetlinkError> {
    let message = get(ns, message::named(name))?;
    let stats = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(stats) => Some(LinkStats {
            rx_packets: stats.rx_packets,
            tx_packets: stats.tx_packets,
            rx_bytes: stats.rx_bytes,
            tx_bytes: stats.tx_bytes,
            rx_dropped: stats.rx_dropped,
            tx_dropped: stats.tx_dropped,
            rx_errors: stats.rx_errors,
            tx_errors: stats.tx_errors,
        }),
        _ => None,
    });
    stats.ok_or_else(|| NetlinkError::Answer {
        asked: format!("RTM_GETLINK {name}"),
        detail: "no IFLA_STATS64".to_owned(),
    })
}

/// Counters are two thirds of an answer.
fn without_counters(mut message: LinkMessage) -> LinkMessage {
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

fn get(ns: &Netns, message: LinkMessage) -> Result<LinkMessage, NetlinkError> {
    match ns.netlink().get(RouteNetlinkMessage::GetLink(message))? {
        RouteNetlinkMessage::NewLink(message) => Ok(message),
        other => Err(NetlinkError::Answer {
            asked: "RTM_GETLINK".to_owned(),
            detail: format!("another type of message: {other:?}"),
        }),
    }
}

fn set(ns: &Netns, name: &str, attribute: LinkAttribute) -> Done {
    let ifindex = info(ns, name)?.ifindex;
    let message = message::indexed(ifindex, vec![attribute]);
    ns.netlink().request(RouteNetlinkMessage::SetLink(message), 0)
}

fn set_flags(ns: &Netns, name: &str, flags: LinkFlags) -> Done {
    let mut message = message::named(name);
    message.header.flags = flags;
    message.header.change_mask = LinkFlags::Up;
    ns.netlink().request(RouteNetlinkMessage::SetLink(message), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::End;
    use std::fs::File;

    #[test]
    fn each_end_of_a_link_is_asked_for_with_what_is_declared_for_it() {
        let netns = Netns::of("own", File::open("/proc/thread-self/ns/net").unwrap().into()).unwrap();
        let end = |number: u8| End {
            node: format!("node{number}"),
            name: format!("dev{number}"),
            ifindex: Some(100 + u32::from(number)),
            mtu: Some(1400 + u32::from(number)),
            mac: Some([2, 0, 0, 0, 0, number]),
        };
        let link = Link { kind: LinkKind::Veth, primary: end(1), peer: end(2), netkit: NetkitOptions::default() };
        let asked = PairRequest::of(&link, &netns);
        let primary = (asked.name, asked.ifindex, asked.mtu, asked.mac);
        let peer = (asked.peer_name.unwrap(), asked.peer_ifindex, asked.peer_mtu, asked.peer_mac);
        for (seen, wanted) in [(primary, end(1)), (peer, end(2))] {
            assert_eq!(seen, (wanted.name, wanted.ifindex, wanted.mtu, wanted.mac));
        }
    }
}
