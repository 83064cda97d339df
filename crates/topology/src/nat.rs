//! Address translation by nf_tables with nfnetlink messages (include/uapi/linux/netfilter/nf_tables.h): a guest has no
//! `nft`, and two kinds of rule need no library.

use crate::Family;
use crate::{model::Nat, netns::Netns};
use lab_netlink::{BatchRequest, NLM_F_CREATE, Netlink, NetlinkError, attribute, nested};
use std::net::IpAddr;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NF_INET_PRE_ROUTING: u32 = 0;
const NF_INET_POST_ROUTING: u32 = 4;
/// Where translation belongs among the hooks: `NF_IP_PRI_NAT_DST` and `NF_IP_PRI_NAT_SRC`.
const PRIORITY_DST: i32 = -100;
const PRIORITY_SRC: i32 = 100;
const NFT_META_OIFNAME: u32 = 7;
const NFT_META_L4PROTO: u32 = 16;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NFT_NAT_DNAT: u32 = 1;
/// `NFT_REG_1` and `NFT_REG_2`, sixteen bytes each.
const FIRST: u32 = 1;
const SECOND: u32 = 2;
const IFNAMSIZ: usize = 16;
const TABLE: &str = "lab";
const TCP_AND_UDP: [u8; 2] = [6, 17];

/// Sets the rules in a namespace, all or none. They are deleted with the namespace.
///
/// # Errors
/// The kernel's refusal: `EPROTONOSUPPORT`, `EINVAL` or `ENOENT` where one of nf_tables' modules is not there.
pub fn translate<'a>(ns: &Netns, rules: impl Iterator<Item = &'a Nat>) -> Result<(), NetlinkError> {
    let rules: Vec<&Nat> = rules.collect();
    if rules.is_empty() {
        return Ok(());
    }
    let mut requests = Vec::new();
    let families = || [NFPROTO_IPV4, NFPROTO_IPV6].into_iter().take(Family::available().len());
    for family in families() {
        requests.push(request(NFT_MSG_NEWTABLE, family, "table", &[text(1, TABLE)]));
        requests.push(chain(family, "pre", NF_INET_PRE_ROUTING, PRIORITY_DST));
        requests.push(chain(family, "post", NF_INET_POST_ROUTING, PRIORITY_SRC));
    }
    for nat in rules {
        match nat {
            Nat::Masquerade { out, .. } => {
                for family in families() {
                    requests.push(rule(
                        family,
                        "post",
                        &[meta(NFT_META_OIFNAME), equals(&name(out)), expr("masq", &[])],
                    ));
                }
            }
            Nat::Dnat { from, .. } if !Family::of(*from).is_available() => {}
            Nat::Dnat { from, from_port, to, to_port, .. } => {
                for protocol in TCP_AND_UDP {
                    requests.push(dnat(*from, *from_port, *to, *to_port, protocol));
                }
            }
        }
    }
    ns.run(Netlink::open_netfilter)?.batch(&requests)
}

fn dnat(from: IpAddr, from_port: u16, to: IpAddr, to_port: u16, protocol: u8) -> BatchRequest {
    let (family, destination_at) = if from.is_ipv4() { (NFPROTO_IPV4, 16) } else { (NFPROTO_IPV6, 24) };
    let (from, to) = (octets(from), octets(to));
    let translate = [
        number(1, NFT_NAT_DNAT),
        number(2, family.into()),
        number(3, FIRST),
        number(4, FIRST),
        number(5, SECOND),
        number(6, SECOND),
    ];
    let expressions = [
        payload(NFT_PAYLOAD_NETWORK_HEADER, destination_at, from.len()),
        equals(&from),
        meta(NFT_META_L4PROTO),
        equals(&[protocol]),
        payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2),
        equals(&from_port.to_be_bytes()),
        immediate(FIRST, &to),
        immediate(SECOND, &to_port.to_be_bytes()),
        expr("nat", &translate),
    ];
    rule(family, "pre", &expressions)
}

/// `nfgenmsg`: family, version 0, resource 0.
fn request(message: u16, family: u8, asked: &str, attributes: &[Vec<u8>]) -> BatchRequest {
    let mut body = vec![family, 0, 0, 0];
    body.extend(attributes.concat());
    BatchRequest {
        kind: BatchRequest::NFTABLES << 8 | message,
        flags: NLM_F_CREATE,
        body,
        asked: format!("nf_tables {asked}"),
    }
}

fn chain(family: u8, name: &str, hook: u32, priority: i32) -> BatchRequest {
    let hook = nested(4, &[number(1, hook), number(2, priority.cast_unsigned())]);
    request(NFT_MSG_NEWCHAIN, family, name, &[text(1, TABLE), text(3, name), hook, text(7, "nat")])
}

fn rule(family: u8, chain: &str, expressions: &[Vec<u8>]) -> BatchRequest {
    let asked = format!("rule in {chain}");
    request(NFT_MSG_NEWRULE, family, &asked, &[text(1, TABLE), text(2, chain), nested(4, expressions)])
}

/// One expression of a rule: `NFTA_LIST_ELEM` with name and data.
fn expr(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, data)])
}

fn meta(key: u32) -> Vec<u8> {
    expr("meta", &[number(2, key), number(1, FIRST)])
}

fn payload(base: u32, offset: u32, length: usize) -> Vec<u8> {
    expr("payload", &[number(1, FIRST), number(2, base), number(3, offset), number(4, length as u32)])
}

/// `NFT_CMP_EQ` on the first register.
fn equals(value: &[u8]) -> Vec<u8> {
    expr("cmp", &[number(1, FIRST), number(2, 0), nested(3, &[attribute(1, value)])])
}

fn immediate(register: u32, value: &[u8]) -> Vec<u8> {
    expr("immediate", &[number(1, register), nested(2, &[attribute(1, value)])])
}

/// nf_tables has its numbers in network byte order.
fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, format!("{value}\0").as_bytes())
}

/// A device name as the kernel compares it: zeros up to the end.
fn name(dev: &str) -> [u8; IFNAMSIZ] {
    let mut padded = [0; IFNAMSIZ];
    padded.iter_mut().zip(dev.bytes()).for_each(|(to, from)| *to = from);
    padded
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}
