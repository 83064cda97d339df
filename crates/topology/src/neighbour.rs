//! Neighbours: link-layer addresses of a device's link, and addresses that a node answers for.

use crate::{address::family, link, netns::Netns};
pub use lab_netlink::route::neighbour::NeighbourState;
use lab_netlink::{
    NLM_F_CREATE, NLM_F_REPLACE, Netlink, NetlinkError,
    route::{
        RouteNetlinkMessage as Message,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage},
        route::RouteType,
    },
};
use std::net::IpAddr;

/// An entry of a neighbour table (`RTM_NEWNEIGH`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the device.
    pub ifindex: u32,
    /// Its address.
    pub addr: IpAddr,
    /// What the kernel knows of it, `NUD_*` of linux/neighbour.h.
    pub state: NeighbourState,
    /// Its link-layer address, where it is known and six bytes long.
    pub mac: Option<[u8; 6]>,
}

/// Adds or replaces a permanent neighbour.
pub(crate) fn add(netlink: &mut Netlink, ifindex: u32, addr: IpAddr, mac: [u8; 6]) -> Result<(), NetlinkError> {
    let mut message = about(ifindex, addr);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    netlink.request(Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Adds a permanent neighbour, or gives the one that is there this link-layer address.
///
/// # Errors
/// The kernel's refusal.
pub fn set(ns: &Netns, dev: &str, addr: IpAddr, mac: [u8; 6]) -> Result<(), NetlinkError> {
    let ifindex = link::info(ns, dev)?.ifindex;
    add(&mut ns.netlink(), ifindex, addr, mac)
}

/// Has the node answer for an address at a device (`NTF_PROXY`).
///
/// # Errors
/// The kernel's refusal.
pub fn add_proxy(ns: &Netns, dev: &str, addr: IpAddr) -> Result<(), NetlinkError> {
    let mut message = about(link::info(ns, dev)?.ifindex, addr);
    message.header.flags = NeighbourFlags::Proxy;
    ns.netlink().request(Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// The neighbours of a namespace.
///
/// # Errors
/// The kernel's refusal.
pub fn list(ns: &Netns) -> Result<Vec<Neighbour>, NetlinkError> {
    dump(ns, NeighbourFlags::empty())
}

/// The addresses for which a namespace answers by [`add_proxy`], with the index of the device.
///
/// # Errors
/// The kernel's refusal.
pub fn proxies(ns: &Netns) -> Result<Vec<(u32, IpAddr)>, NetlinkError> {
    Ok(dump(ns, NeighbourFlags::Proxy)?.into_iter().map(|entry| (entry.ifindex, entry.addr)).collect())
}

fn about(ifindex: u32, addr: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(addr);
    message.header.ifindex = ifindex;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(NeighbourAttribute::Destination(match addr {
        IpAddr::V4(addr) => NeighbourAddress::Inet(addr),
        IpAddr::V6(addr) => NeighbourAddress::Inet6(addr),
    }));
    message
}

fn dump(ns: &Netns, flags: NeighbourFlags) -> Result<Vec<Neighbour>, NetlinkError> {
    let mut question = NeighbourMessage::default();
    question.header.flags = flags;
    let answers = ns.netlink().dump(Message::GetNeighbour(question))?;
    let entries = answers.into_iter().filter_map(|answer| {
        let Message::NewNeighbour(message) = answer else { return None };
        let (mut addr, mut mac) = (None, None);
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(inet)) => addr = Some(inet.into()),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(inet)) => addr = Some(inet.into()),
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok(),
                _ => {}
            }
        }
        let (ifindex, state) = (message.header.ifindex, message.header.state);
        Some(Neighbour { ifindex, addr: addr?, state, mac })
    });
    Ok(entries.collect())
}
