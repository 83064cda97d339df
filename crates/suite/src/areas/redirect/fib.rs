//! bpf_fib_lookup: the tables that it uses, its results, and forwarding by a result.

use super::delivery::delivered;
use lab_bpf::{BPF_FIB_LOOKUP_MARK, Config, ProgramKind, raw};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, P1, Testbed},
    variants,
};
use lab_netlink::{
    NLM_F_CREATE, NLM_F_EXCL,
    route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
    },
};
use lab_protocol::{AttachRequest, Capability, KernelVersion, LinkKind, capability::Since};
use lab_topology::{Family, Hop, Netns, Selector, Template, Topology, library};
use lab_traffic::{Proto, UdpProbe};
use nix::errno::Errno;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// `BPF_FIB_LKUP_RET_*`, include/uapi/linux/bpf.h.
pub mod code {
    pub const SUCCESS: i32 = 0;
    pub const BLACKHOLE: i32 = 1;
    pub const UNREACHABLE: i32 = 2;
    pub const PROHIBIT: i32 = 3;
    pub const NOT_FWDED: i32 = 4;
    pub const FWD_DISABLED: i32 = 5;
    pub const NO_NEIGH: i32 = 7;
    pub const FRAG_NEEDED: i32 = 8;
}

/// In the order in which they run.
pub const CASES: &[Case] =
    &[FOLLOW_THE_FIB, WHOSE_TABLES, LOOKUP_CODES, LOOKUP_BY_RULE, GIVEN_NEXT_HOP, NEIGH_BY_RULES];

const FOLLOW_THE_FIB: Case = Case::new(
    "R05",
    "follow-the-fib",
    "bpf_redirect_neigh to the device and next hop from bpf_fib_lookup delivers, and the pod's own program runs.",
    follow_the_fib,
)
.on(library::PODS)
.over(variants::usual_mechanisms);
fn follow_the_fib(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let steering = testbed.load(ctx, P0, ProgramKind::FibRedirect, Config::new(ctx.marker))?;
    let own = testbed.counter(ctx, P1)?;
    let _steering = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
    let _own = testbed.attach(ctx, P1, variant.attach(), Direction::ToWorkload, &own)?;
    delivered(ctx, &testbed, &steering, &own, true)?;
    ctx.equal("device returned by the lookup", steering.stats()?.last.fib_ifindex, testbed.ifindex(P1));
    Ok(())
}

const WHOSE_TABLES: Case = Case::new(
    "R08",
    "whose-tables",
    "bpf_fib_lookup uses the node's tables on every hook except PRIMARY, where it uses the pod's.",
    whose_tables,
)
.on(library::PODS)
.over(variants::link_hooks);
fn whose_tables(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let looking = testbed.load(ctx, P0, ProgramKind::Fib, Config::new(ctx.marker))?;
    let _looking = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &looking)?;
    let (from, to) = variant.direction().ends("w0", "w1");
    let in_pod = variant.attach() == AttachRequest::Netkit && variant.direction() == Direction::ToWorkload;
    for family in Family::available().iter().copied() {
        testbed.flow_passes(ctx, from, to, Proto::Udp, family);
        let last = looking.stats()?.last;
        if in_pod {
            // The pod does not forward, and the lookup starts from its device.
            ctx.equal(format!("code ({family})"), last.fib_code, code::FWD_DISABLED);
            ctx.equal(format!("device in the lookup ({family})"), last.fib_ifindex, testbed.net.ifindex("w0", "eth0"));
        } else {
            let out = if variant.direction() == Direction::FromWorkload { P1 } else { P0 };
            ctx.equal(format!("the node's device ({family})"), last.fib_ifindex, testbed.ifindex(out));
            // Also on an L3 netkit: the first packets of the flow created the neighbour entry.
            ctx.equal(format!("code ({family})"), last.fib_code, code::SUCCESS);
        }
    }
    Ok(())
}

/// A route without a next hop; the device is for a kind that has one.
fn dead_end(ns: &Netns, to: IpAddr, kind: RouteType, device: Option<u32>) -> Result<(), Stop> {
    add_route(ns, to, kind, device, None)
}

/// A route of the main table, with a metric.
pub fn add_route(
    ns: &Netns,
    to: IpAddr,
    kind: RouteType,
    device: Option<u32>,
    metric: Option<u32>,
) -> Result<(), Stop> {
    let mut message = RouteMessage::default();
    let (family, length, address) = match to {
        IpAddr::V4(to) => (AddressFamily::Inet, 32, RouteAddress::Inet(to)),
        IpAddr::V6(to) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(to)),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = if device.is_some() { RouteScope::Link } else { RouteScope::Universe };
    message.header.kind = kind;
    message.attributes.push(RouteAttribute::Destination(address));
    message.attributes.extend(device.map(RouteAttribute::Oif));
    message.attributes.extend(metric.map(RouteAttribute::Priority));
    Ok(ns.netlink().request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)?)
}

/// Ethernet, IPv4 and UDP with the cell's marker as its port; zeros follow.
fn frame(source: Ipv4Addr, destination: Ipv4Addr, marker: u16, length: usize) -> Vec<u8> {
    let mut frame = vec![0; length];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    frame[22..24].copy_from_slice(&[64, 17]);
    frame[26..30].copy_from_slice(&source.octets());
    frame[30..34].copy_from_slice(&destination.octets());
    frame[36..38].copy_from_slice(&marker.to_be_bytes());
    frame
}

const ETHERNET_AND_IPV6: usize = 14 + 40;

/// Length of a frame that fits everywhere, bytes.
pub const SHORT: usize = 100;

/// [`frame`] of IPv6.
pub fn frame6(source: Ipv6Addr, destination: Ipv6Addr, marker: u16, length: usize) -> Vec<u8> {
    let mut frame = vec![0; length];
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    frame[14] = 0x60;
    let behind_header = (length - ETHERNET_AND_IPV6) as u16;
    frame[18..20].copy_from_slice(&behind_header.to_be_bytes());
    frame[20..22].copy_from_slice(&[17, 64]);
    frame[22..38].copy_from_slice(&source.octets());
    frame[38..54].copy_from_slice(&destination.octets());
    frame[56..58].copy_from_slice(&marker.to_be_bytes());
    frame
}

/// A packet between two addresses of one family.
///
/// # Errors
/// They are of two.
pub fn packet(source: IpAddr, destination: IpAddr, marker: u16, length: usize) -> Result<Vec<u8>, Stop> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Ok(frame(source, destination, marker, length)),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Ok(frame6(source, destination, marker, length)),
        _ => Err(Stop::check(format!("{source} and {destination} are of two families"))),
    }
}

/// Sets the type of service or traffic class of a [`packet`], which has none.
fn set_tos(frame: &mut [u8], family: Family, tos: u8) {
    match family {
        Family::V4 => frame[15] = tos,
        Family::V6 => {
            frame[14] |= tos >> 4;
            frame[15] |= tos << 4;
        }
    }
}

/// The code for a workload to which nothing was sent yet: an L3 netkit has no permanent neighbour entries.
pub fn unresolved(variant: &Variant) -> i32 {
    if variant.device() == LinkKind::NetkitL3 { code::NO_NEIGH } else { code::SUCCESS }
}

const LOOKUP_CODES: Case = Case::new(
    "R10",
    "lookup-codes",
    "bpf_fib_lookup distinguishes blackhole, unreachable, prohibit, no route, no neighbour, a byte too long and no forwarding.",
    lookup_codes,
)
.on(library::PODS)
.over(variants::devices);
fn lookup_codes(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    Family::available().iter().try_for_each(|family| codes_of_lookups(ctx, variant, &testbed, *family))
}

fn codes_of_lookups(ctx: &mut Ctx, variant: &Variant, testbed: &Testbed, family: Family) -> CaseResult {
    /// Of the workload's link, bytes; it counts from the network header.
    const MTU: u32 = 1500;
    /// A frame that just fits, bytes.
    const LONGEST: usize = 14 + MTU as usize;
    let ns = testbed.net.ns("host");
    // Of the networks for documentation (RFC 5737, RFC 3849): nobody is there.
    let dead = |last: u8| match family {
        Family::V4 => IpAddr::from([203, 0, 113, last]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, last.into()]),
    };
    for (last, kind) in [(11, RouteType::BlackHole), (12, RouteType::Unreachable), (13, RouteType::Prohibit)] {
        dead_end(ns, dead(last), kind, None)?;
    }
    let looking = testbed.load(
        ctx,
        P0,
        ProgramKind::Fib,
        Config { target_ifindex: testbed.ifindex(P0), ..Config::new(ctx.marker) },
    )?;
    let (source, there) = (testbed.net.addr("w0", family), testbed.net.addr("w1", family));
    let marker = ctx.marker;
    let ask = |to, length| {
        let frame = packet(source, to, marker, length)?;
        // The test run uses the loopback device of the thread's namespace; the lookup starts at the device in the
        // settings.
        ns.run(|| raw::test_run(&*looking, &frame))?;
        let last = looking.stats()?.last;
        Ok::<_, Stop>((last.fib_code, last.fib_ifindex, last.fib_mtu))
    };
    let first = unresolved(variant);
    let mut answers = Vec::new();
    for (name, to, length, wanted) in [
        ("a pod", there, SHORT, first),
        ("a pod, a byte too long for its link", there, LONGEST + 1, code::FRAG_NEEDED),
        ("a pod, the longest that fits its link", there, LONGEST, first),
        ("the node itself", testbed.net.addr("host", family), SHORT, code::NOT_FWDED),
        ("nowhere", dead(1), SHORT, code::NOT_FWDED),
        ("a blackhole", dead(11), SHORT, code::BLACKHOLE),
        ("an unreachable route", dead(12), SHORT, code::UNREACHABLE),
        ("a prohibited route", dead(13), SHORT, code::PROHIBIT),
    ] {
        answers.push((name, ask(to, length)?, wanted));
    }
    let out = answers[0].1.1;
    let version = if family == Family::V4 { "ipv4" } else { "ipv6" };
    ns.run(|| fs::write(format!("/proc/sys/net/{version}/conf/p0/forwarding"), "0"))?;
    answers.push(("a pod, from a device that does not forward", ask(there, SHORT)?, code::FWD_DISABLED));
    let asked = looking.stats()?.marked;
    ctx.equal(format!("{family}: lookups"), asked, answers.len() as u64);
    ctx.equal(format!("{family}: device towards the pod"), out, testbed.ifindex(P1));
    // "bpf: bpf_fib_lookup return MTU value as output when looked up" (5.12).
    if ctx.capabilities.has(Capability::CheckMtu) {
        ctx.equal(format!("{family}: MTU for a pod, a byte too long for its link"), answers[1].1.2, MTU);
    }
    for (name, (code, ..), wanted) in answers {
        ctx.equal(format!("{family}: the code for {name}"), code, wanted);
    }
    Ok(())
}

/// The version since which the kernel looks up by mark; before, the flag is unknown.
const LOOKUP_MARK: Since = Since {
    mainline: KernelVersion::new(6, 10, 0),
    backports: &[],
    source: "bpf: Add support for passing mark with bpf_fib_lookup",
};

const LOOKUP_BY_RULE: Case = Case::new(
    "R17",
    "lookup-by-rule",
    "bpf_fib_lookup follows rules for the incoming device, the source, the mark or a part of it and the DSCP, and without a match \
     finds no route.",
    lookup_by_rule,
)
.on(library::POLICY)
.over(variants::devices);
fn lookup_by_rule(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    Family::available().iter().try_for_each(|family| lookups_by_rule(ctx, variant, &testbed, *family))
}

/// An address that nobody has.
pub fn stranger(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([198, 51, 100, 1]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1]),
    }
}

fn lookups_by_rule(ctx: &mut Ctx, variant: &Variant, testbed: &Testbed, family: Family) -> CaseResult {
    let ns = testbed.net.ns("host");
    let stranger = stranger(family);
    let addresses = library::POLICY_ADDRS[family as usize].map(|address| address.parse::<IpAddr>());
    let [by_device, by_source, by_mark, by_tos, by_part] = addresses;
    let (by_device, by_source, by_mark, by_tos, by_part) = (by_device?, by_source?, by_mark?, by_tos?, by_part?);
    let tos = library::POLICY_TOS;
    let workload = testbed.net.addr("w0", family);
    let (found, none) = (Some(testbed.ifindex(P1)), None);
    let mut questions = vec![
        ("the device of the rule", P0, stranger, by_device, 0, 0, found),
        ("another device", P1, stranger, by_device, 0, 0, none),
        ("the source of the rule", P0, workload, by_source, 0, 0, found),
        ("another source", P0, stranger, by_source, 0, 0, none),
        ("no mark", P0, workload, by_mark, 0, 0, none),
        ("no part of a mark", P0, workload, by_part, 0, 0, none),
        ("the DSCP of the rule", P0, workload, by_tos, tos, 0, found),
        ("another DSCP", P0, workload, by_tos, tos / 2, 0, none),
    ];
    let marks = ctx.capabilities.has_change(&LOOKUP_MARK);
    if marks != Some(false) {
        questions.push(("the mark of the rule", P0, workload, by_mark, 0, BPF_FIB_LOOKUP_MARK, found));
        questions.push(("a mark with the part of the rule", P0, workload, by_part, 0, BPF_FIB_LOOKUP_MARK, found));
    }
    for (what, from, source, to, tos, flags, wanted) in questions {
        let config =
            Config { target_ifindex: testbed.ifindex(from), redirect_flags: flags.into(), ..Config::new(ctx.marker) };
        let looking = testbed.load(ctx, P0, ProgramKind::Fib, config)?;
        let mut packet = packet(source, to, ctx.marker, SHORT)?;
        set_tos(&mut packet, family, tos);
        ns.run(|| raw::test_run(&*looking, &packet))?;
        let last = looking.stats()?.last;
        if marks.is_none() && flags == BPF_FIB_LOOKUP_MARK && last.fib_code == -(Errno::EINVAL as i32) {
            // Of a kernel whose version says nothing, the flag may be unknown.
            continue;
        }
        let (code, device) = match wanted {
            Some(device) => (unresolved(variant), device),
            None => (code::NOT_FWDED, testbed.ifindex(from)),
        };
        ctx.equal(format!("{family}: code and device with {what}"), (last.fib_code, last.fib_ifindex), (code, device));
    }
    Ok(())
}

/// Addresses behind the second workload, to which only packets from the first one have a route, and the gateway of each.
const BEHIND: [(&str, &str); 3] =
    [("203.0.113.20", "10.65.0.3"), ("2001:db8:c::20", "fd65::3"), ("203.0.113.21", "fd65::3")];

fn behind(kind: LinkKind) -> Topology {
    let mut topology = library::PODS.of(kind);
    for (to, gateway) in BEHIND {
        let to = format!("{to}/{}", if to.contains(':') { 128 } else { 32 });
        topology = topology.route_in("host", 100, &to, Hop::via(gateway, "p1"));
    }
    for family in Family::ALL {
        topology = topology.rule("host", family, 1000, Selector::Iif("p0".to_owned()), 100);
    }
    topology
}

const GIVEN_NEXT_HOP: Case = Case::new(
    "R18",
    "given-next-hop",
    "bpf_fib_lookup returns the gateway, also an IPv6 one of an IPv4 route, and bpf_redirect_neigh sends to what it is given.",
    given_next_hop,
)
.on(Template::new("pods-gateway", "Two workloads on a host; the second is a gateway for the first.", behind))
.over(variants::usual_mechanisms);
fn given_next_hop(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let steering = testbed.load(ctx, P0, ProgramKind::FibRedirect, Config::new(ctx.marker))?;
    let own = testbed.counter(ctx, P1)?;
    let _steering = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
    let _own = testbed.attach(ctx, P1, variant.attach(), Direction::ToWorkload, &own)?;
    for (number, (to, gateway)) in (1..).zip(reachable()?) {
        UdpProbe::connect_marked(testbed.net.ns("w0"), SocketAddr::new(to, ctx.marker), None)?.send(b"behind")?;
        ctx.becomes(format!("{to}: packets to the second workload"), number, || Ok(own.stats()?.marked))?;
        let last = steering.stats()?.last;
        let next_hop = address_of(last.fib_next_hop, Family::of(gateway));
        ctx.equal(format!("{to}: next hop of the lookup"), next_hop, gateway);
        let family = if gateway.is_ipv4() { nix::libc::AF_INET } else { nix::libc::AF_INET6 };
        ctx.equal(format!("{to}: family of the next hop"), last.fib_family, family.cast_unsigned());
        if variant.device() != LinkKind::NetkitL3 {
            let mac = testbed.net.readback("w1", "eth0")?.mac.unwrap_or_default();
            ctx.equal(format!("{to}: destination of the frame"), own.stats()?.last.eth_dst, mac);
        }
    }
    Ok(())
}

/// The address that a lookup returned.
pub fn address_of(words: [u32; 4], family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from(words[0].to_ne_bytes()),
        Family::V6 => IpAddr::from(std::array::from_fn::<u8, 16, _>(|at| words[at / 4].to_ne_bytes()[at % 4])),
    }
}

/// The addresses of [`BEHIND`] that this machine has protocols for.
fn reachable() -> Result<Vec<(IpAddr, IpAddr)>, Stop> {
    let parsed: Vec<(IpAddr, IpAddr)> = BEHIND
        .into_iter()
        .map(|(to, gateway)| Ok::<_, Stop>((to.parse()?, gateway.parse()?)))
        .collect::<Result<_, _>>()?;
    let available = |address: IpAddr| Family::of(address).is_available();
    Ok(parsed.into_iter().filter(|(to, gateway)| available(*to) && available(*gateway)).collect())
}

const NEIGH_BY_RULES: Case = Case::new(
    "R25",
    "neigh-by-rules",
    "bpf_redirect_neigh without a next hop looks the route up by the packet's source and by the mark that a program wrote, and \
     drops what has no route.",
    neigh_by_rules,
)
.on(library::POLICY)
.over(variants::usual_mechanisms);
fn neigh_by_rules(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let own = testbed.counter(ctx, P1)?;
    let _own = testbed.attach(ctx, P1, variant.attach(), Direction::ToWorkload, &own)?;
    let steer = Config { target_ifindex: testbed.ifindex(P1), ..Config::new(ctx.marker) };
    let steering = testbed.load(ctx, P0, ProgramKind::RedirectNeigh, steer)?;
    let writer = testbed.load(ctx, P0, ProgramKind::Stamp, Config::new(ctx.marker))?;
    // Without a route to an IPv4 address, it would be taken for one on the link (ip_route_output_key_hash_rcu()); broadcasts are
    // dropped.
    const BY_SOURCE: usize = 1;
    const BY_MARK: usize = 2;
    for rule in [BY_SOURCE, BY_MARK] {
        let address = library::POLICY_ADDRS[Family::V4 as usize][rule].parse()?;
        dead_end(testbed.net.ns("host"), address, RouteType::Broadcast, Some(testbed.ifindex(P1)))?;
    }
    let mut sent = 0;
    let mut send = |ctx: &mut Ctx, what: &str, rule: usize| {
        for family in Family::available().iter().copied() {
            let to = SocketAddr::new(library::POLICY_ADDRS[family as usize][rule].parse()?, ctx.marker);
            UdpProbe::connect_marked(testbed.net.ns("w0"), to, None)?.send(b"by rule")?;
            sent += 1;
            ctx.becomes(format!("{family}, {what}: packets redirected"), sent, || Ok(steering.stats()?.marked))?;
        }
        Ok::<_, Stop>(())
    };
    let alone = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
    send(ctx, "without a mark", BY_MARK)?;
    alone.detach()?;
    let _writer = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &writer)?;
    let _steering = testbed.attach_behind(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
    send(ctx, "with the mark of the rule", BY_MARK)?;
    send(ctx, "with the source of the rule", BY_SOURCE)?;
    // Those without a mark would come before these.
    let by_rule = 2 * Family::available().len() as u64;
    ctx.becomes("packets that leave for the second workload", by_rule, || Ok(own.stats()?.marked))?;
    Ok(())
}
