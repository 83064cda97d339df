//! bpf_fib_lookup: the tables that it uses, its results, and forwarding by a result.

use super::delivery::delivered;
use lab_bpf::{BPF_FIB_LOOKUP_MARK, Config, ProgramKind, raw};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, P1},
    variants,
};
use lab_netlink::{
    NLM_F_CREATE, NLM_F_EXCL,
    route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
    },
};
use lab_protocol::{AttachRequest, KernelVersion, LinkKind, capability::Since};
use lab_topology::{Family, Hop, Netns, Selector, Template, Topology, library};
use lab_traffic::{Proto, UdpProbe};
use nix::errno::Errno;
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
};

/// `BPF_FIB_LKUP_RET_*`, include/uapi/linux/bpf.h.
mod code {
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
pub const CASES: &[Case] = &[FOLLOW_THE_FIB, WHOSE_TABLES, LOOKUP_CODES, LOOKUP_BY_RULE, GIVEN_NEXT_HOP];

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

/// A route without a next hop.
fn dead_end(ns: &Netns, to: Ipv4Addr, kind: RouteType) -> Result<(), Stop> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 32;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = kind;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(to)));
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

/// The code for a workload to which nothing was sent yet: an L3 netkit has no permanent neighbour entries.
fn unresolved(variant: &Variant) -> i32 {
    if variant.device() == LinkKind::NetkitL3 { code::NO_NEIGH } else { code::SUCCESS }
}

const LOOKUP_CODES: Case = Case::new(
    "R10",
    "lookup-codes",
    "bpf_fib_lookup distinguishes blackhole, unreachable, prohibit, no route, no neighbour, too long and no forwarding.",
    lookup_codes,
)
.on(library::PODS)
.over(variants::devices);
fn lookup_codes(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const SHORT: usize = 100;
    const BEYOND_MTU: usize = 1600;
    const UNROUTED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    let testbed = ctx.testbed()?;
    let ns = testbed.net.ns("host");
    let dead = |last| Ipv4Addr::new(203, 0, 113, last);
    for (last, kind) in [(11, RouteType::BlackHole), (12, RouteType::Unreachable), (13, RouteType::Prohibit)] {
        dead_end(ns, dead(last), kind)?;
    }
    let looking = testbed.load(
        ctx,
        P0,
        ProgramKind::Fib,
        Config { target_ifindex: testbed.ifindex(P0), ..Config::new(ctx.marker) },
    )?;
    let (source, there) = (testbed.net.addr4("w0"), testbed.net.addr4("w1"));
    let ask = |to, length| {
        let frame = frame(source, to, ctx.marker, length);
        // The test run uses the loopback device of the thread's namespace; the lookup starts at the device in the
        // settings.
        ns.run(|| raw::test_run(&*looking, &frame))?;
        let last = looking.stats()?.last;
        Ok::<_, lab_bpf::BpfError>((last.fib_code, last.fib_ifindex))
    };
    let first = unresolved(variant);
    let mut answers = Vec::new();
    for (name, to, length, wanted) in [
        ("a pod", there, SHORT, first),
        ("a pod, too long for its link", there, BEYOND_MTU, code::FRAG_NEEDED),
        ("the node itself", testbed.net.addr4("host"), SHORT, code::NOT_FWDED),
        ("nowhere", UNROUTED, SHORT, code::NOT_FWDED),
        ("a blackhole", dead(11), SHORT, code::BLACKHOLE),
        ("an unreachable route", dead(12), SHORT, code::UNREACHABLE),
        ("a prohibited route", dead(13), SHORT, code::PROHIBIT),
    ] {
        answers.push((name, ask(to, length)?, wanted));
    }
    let out = answers[0].1.1;
    ns.run(|| fs::write("/proc/sys/net/ipv4/conf/p0/forwarding", "0"))?;
    answers.push(("a pod, from a device that does not forward", ask(there, SHORT)?, code::FWD_DISABLED));
    let asked = looking.stats()?.marked;
    ctx.equal("lookups", asked, answers.len() as u64);
    ctx.equal("device towards the pod", out, testbed.ifindex(P1));
    for (name, (code, _), wanted) in answers {
        ctx.equal(format!("the code for {name}"), code, wanted);
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
    "bpf_fib_lookup follows rules for the incoming device, the source and the mark, and without a match finds no route.",
    lookup_by_rule,
)
.on(library::POLICY)
.over(variants::devices);
fn lookup_by_rule(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    let testbed = ctx.testbed()?;
    let ns = testbed.net.ns("host");
    let [by_device, by_source, by_mark] = library::POLICY_ADDRS[0].map(|address| address.parse::<Ipv4Addr>());
    let (by_device, by_source, by_mark) = (by_device?, by_source?, by_mark?);
    let workload = testbed.net.addr4("w0");
    let (found, none) = (Some(testbed.ifindex(P1)), None);
    let mut questions = vec![
        ("the device of the rule", P0, STRANGER, by_device, 0, found),
        ("another device", P1, STRANGER, by_device, 0, none),
        ("the source of the rule", P0, workload, by_source, 0, found),
        ("another source", P0, STRANGER, by_source, 0, none),
        ("no mark", P0, workload, by_mark, 0, none),
    ];
    let marks = ctx.capabilities.has_change(&LOOKUP_MARK);
    if marks != Some(false) {
        questions.push(("the mark of the rule", P0, workload, by_mark, BPF_FIB_LOOKUP_MARK, found));
    }
    for (what, from, source, to, flags, wanted) in questions {
        let config =
            Config { target_ifindex: testbed.ifindex(from), redirect_flags: flags.into(), ..Config::new(ctx.marker) };
        let looking = testbed.load(ctx, P0, ProgramKind::Fib, config)?;
        ns.run(|| raw::test_run(&*looking, &frame(source, to, ctx.marker, 100)))?;
        let last = looking.stats()?.last;
        if marks.is_none() && flags == BPF_FIB_LOOKUP_MARK && last.fib_code == -(Errno::EINVAL as i32) {
            // Of a kernel whose version says nothing, the flag may be unknown.
            continue;
        }
        let (code, device) = match wanted {
            Some(device) => (unresolved(variant), device),
            None => (code::NOT_FWDED, testbed.ifindex(from)),
        };
        ctx.equal(format!("code and device with {what}"), (last.fib_code, last.fib_ifindex), (code, device));
    }
    Ok(())
}

/// An address behind the second workload, to which only packets from the first one have a route.
const BEHIND: &str = "203.0.113.20";

fn behind(kind: LinkKind) -> Topology {
    let to = format!("{BEHIND}/32");
    library::PODS.of(kind).route_in("host", 100, &to, Hop::via("10.65.0.3", "p1")).rule(
        "host",
        Family::V4,
        1000,
        Selector::Iif("p0".to_owned()),
        100,
    )
}

const GIVEN_NEXT_HOP: Case = Case::new(
    "R18",
    "given-next-hop",
    "bpf_fib_lookup returns the gateway, and bpf_redirect_neigh sends to the next hop that it is given.",
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
    let to = SocketAddr::new(BEHIND.parse()?, ctx.marker);
    UdpProbe::connect_marked(testbed.net.ns("w0"), to, None)?.send(b"behind")?;
    let left = ctx.wait_until(2_000, || Ok(own.stats()?.marked > 0))?;
    ctx.check("the packet leaves to the second workload", left, own.stats()?.marked);
    let gateway = testbed.net.addr4("w1");
    ctx.equal("next hop of the lookup", Ipv4Addr::from(steering.stats()?.last.fib_next_hop), gateway);
    if variant.device() != LinkKind::NetkitL3 {
        let mac = testbed.net.readback("w1", "eth0")?.mac.unwrap_or_default();
        ctx.equal("destination of the frame", own.stats()?.last.eth_dst, mac);
    }
    Ok(())
}
