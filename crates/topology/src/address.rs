//! Addresses, routes and neighbours over netlink.

use crate::{
    model::{Cidr, Family, Route, Rule, Selector},
    netns::Netns,
};
use lab_netlink::{
    NLM_F_CREATE, NLM_F_EXCL, Netlink, NetlinkError,
    route::{
        AddressFamily, RouteNetlinkMessage as Message,
        address::{AddressAttribute, AddressFlags, AddressMessage},
        route::{
            RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType, RouteVia,
        },
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};
use std::net::{IpAddr, Ipv6Addr};

/// Adds an address; IPv6 without duplicate address detection.
pub(crate) fn add(netlink: &mut Netlink, ifindex: u32, cidr: Cidr) -> Result<(), NetlinkError> {
    let mut message = AddressMessage::default();
    message.header.family = family(cidr.addr);
    message.header.prefix_len = cidr.prefix;
    message.header.index = ifindex;
    message.attributes = vec![AddressAttribute::Local(cidr.addr), AddressAttribute::Address(cidr.addr)];
    if cidr.addr.is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    netlink.request(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Every address of a namespace, with the index of its device.
///
/// # Errors
/// The kernel's error.
pub fn addresses(ns: &Netns) -> Result<Vec<(u32, IpAddr)>, NetlinkError> {
    let answers = ns.netlink().dump(Message::GetAddress(AddressMessage::default()))?;
    let addresses = answers.into_iter().filter_map(|answer| {
        let Message::NewAddress(message) = answer else { return None };
        let mut addr = None;
        for attribute in message.attributes {
            match attribute {
                // IFA_LOCAL is the device's own address; IPv6 omits it and uses IFA_ADDRESS.
                AddressAttribute::Local(local) => addr = Some(local),
                AddressAttribute::Address(address) => addr = addr.or(Some(address)),
                _ => {}
            }
        }
        addr.map(|addr| (message.header.index, addr))
    });
    Ok(addresses.collect())
}

/// The IPv6 addresses at which the namespace receives, with the index of their device, from its local routes. An
/// address is listed by `RTM_GETADDR` and not yet usable until a work item has made its route (`addrconf_dad_work`),
/// whether its uniqueness is checked or not; an IPv4 address has its route once the request for it is acknowledged.
pub(crate) fn received_at(netlink: &mut Netlink) -> Result<Vec<(u32, Ipv6Addr)>, NetlinkError> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.kind = RouteType::Local;
    let answers = netlink.dump(Message::GetRoute(message))?;
    let found = answers.into_iter().filter_map(|answer| {
        let Message::NewRoute(route) = answer else { return None };
        let (mut ifindex, mut to) = (None, None);
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => ifindex = Some(index),
                RouteAttribute::Destination(RouteAddress::Inet6(addr)) => to = Some(addr),
                _ => {}
            }
        }
        ifindex.zip(to)
    });
    Ok(found.collect())
}

/// Adds a route whose device has that index.
pub(crate) fn add_route(netlink: &mut Netlink, route: &Route, ifindex: u32) -> Result<(), NetlinkError> {
    let (to, via) = (route.to, route.hop.via);
    let address = |address| match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    };
    let mut message = RouteMessage::default();
    message.header.address_family = family(to.addr);
    message.header.destination_prefix_length = to.prefix;
    message.header.table = match route.table {
        None => RouteHeader::RT_TABLE_MAIN,
        // The header has one byte for the table; the attribute has the full number.
        Some(table) => {
            message.attributes.push(RouteAttribute::Table(table));
            RouteHeader::RT_TABLE_UNSPEC
        }
    };
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    // IPv4 takes a gateway only if it is on a link that a narrower scope reaches.
    message.header.scope = if via.is_none() && to.addr.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    if to.prefix > 0 {
        message.attributes.push(RouteAttribute::Destination(address(to.addr)));
    }
    message.attributes.push(RouteAttribute::Oif(ifindex));
    if let Some(via) = via {
        message.attributes.push(match via {
            // RFC 8950: an IPv4 route whose gateway has an IPv6 address (RTA_VIA).
            IpAddr::V6(via) if to.addr.is_ipv4() => RouteAttribute::Via(RouteVia::Inet6(via)),
            via => RouteAttribute::Gateway(address(via)),
        });
    }
    netlink.request(Message::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Adds a rule of policy routing.
pub(crate) fn add_rule(netlink: &mut Netlink, rule: &Rule) -> Result<(), NetlinkError> {
    let mut message = RuleMessage::default();
    message.header.family = match rule.family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![RuleAttribute::Table(rule.table), RuleAttribute::Priority(rule.priority)];
    match &rule.selector {
        Selector::Iif(dev) => message.attributes.push(RuleAttribute::Iifname(dev.clone())),
        Selector::FwMark(mark) => message.attributes.push(RuleAttribute::FwMark(*mark)),
        Selector::FwMarkPart { mark, mask } => {
            message.attributes.extend([RuleAttribute::FwMark(*mark), RuleAttribute::FwMask(*mask)]);
        }
        Selector::Tos(tos) => message.header.tos = *tos,
        Selector::From(source) => {
            message.header.src_len = source.prefix;
            message.attributes.push(RuleAttribute::Source(source.addr));
        }
    }
    netlink.request(Message::NewRule(message), NLM_F_CREATE | NLM_F_EXCL)
}

pub(crate) fn family(addr: IpAddr) -> AddressFamily {
    if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
