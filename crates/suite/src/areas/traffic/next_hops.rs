//! Routes with several next hops.

use lab_bpf::{Config, ProgramKind};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::Spot,
    variants,
};
use lab_netlink::{
    NLM_F_CREATE, NLM_F_EXCL,
    route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteProtocol, RouteType},
    },
};
use lab_topology::{Family, Hop, LinkKind, Netns, Template, Topology, library};
use lab_traffic::{Capture, Headers, UdpProbe, UdpSink};
use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
};

/// In the order in which they run.
pub const CASES: &[Case] = &[SEVERAL_NEXT_HOPS];

/// An address of the server in each family that is behind both routers.
const BEHIND_BOTH: [&str; 2] = ["203.0.113.50", "2001:db8:c::50"];

/// A router of [`library::DIAMOND`].
struct Router {
    name: &'static str,
    /// The device towards it.
    dev: &'static str,
    /// Its address there in each family.
    gateway: [&'static str; 2],
    /// The server's addresses on the link behind it.
    server: [&'static str; 2],
}

const ROUTERS: [Router; 2] = [
    Router { name: "r1", dev: "u1", gateway: ["10.10.1.2", "fd10:1::2"], server: ["10.20.1.2", "fd20:1::2"] },
    Router { name: "r2", dev: "u2", gateway: ["10.10.2.2", "fd10:2::2"], server: ["10.20.2.2", "fd20:2::2"] },
];

fn behind_both(kind: LinkKind) -> Topology {
    let mut topology = library::DIAMOND.of(kind);
    for (family, address) in Family::ALL.into_iter().zip(BEHIND_BOTH) {
        let to = format!("{address}/{}", if family == Family::V4 { 32 } else { 128 });
        topology = topology.addr("b", "e1", &[&to]);
        for router in ROUTERS {
            topology = topology.route(router.name, &to, Hop::via(router.server[family as usize], "b"));
        }
    }
    topology
}

/// Has a node choose among next hops by addresses and ports: between two nodes there is one flow otherwise. False for IPv4 where the
/// kernel knows no routes with several (`CONFIG_IP_ROUTE_MULTIPATH`); for IPv6 every kernel does.
fn choose_by_ports(ns: &Netns, family: Family) -> io::Result<bool> {
    let version = if family == Family::V4 { "ipv4" } else { "ipv6" };
    let written = ns.run(|| fs::write(format!("/proc/sys/net/{version}/fib_multipath_hash_policy"), "1"));
    match written {
        Err(error) if error.kind() == io::ErrorKind::NotFound && family == Family::V4 => Ok(false),
        written => written.map(|()| true),
    }
}

/// A route with next hops of equal weight (`RTA_MULTIPATH`): gateway and device.
fn add_spread_route(ns: &Netns, to: IpAddr, hops: &[(IpAddr, u32)]) -> Result<(), Stop> {
    let address = |address| match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    };
    let mut message = RouteMessage::default();
    (message.header.address_family, message.header.destination_prefix_length) =
        if to.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    let hop = |(gateway, ifindex): &(IpAddr, u32)| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = *ifindex;
        hop.attributes.push(RouteAttribute::Gateway(address(*gateway)));
        hop
    };
    message.attributes.push(RouteAttribute::Destination(address(to)));
    message.attributes.push(RouteAttribute::MultiPath(hops.iter().map(hop).collect()));
    Ok(ns.netlink().request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)?)
}

const SEVERAL_NEXT_HOPS: Case = Case::new(
    "T30",
    "several-next-hops",
    "Flows of a route with two next hops are spread over both, in each family that has them: where the node forwards, and where a program follows \
     bpf_fib_lookup.",
    several_next_hops,
)
.on(Template::new("diamond-spread", "A workload and a server with an address behind both of two paths.", behind_both))
.over(variants::one_each);
fn several_next_hops(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    /// The hash has a secret (`flow_hash_from_keys()`), so that all take one path once in 2^31 runs.
    const FLOWS: usize = 32;
    const AT: Spot = Spot { node: "a", dev: "p0" };
    let testbed = ctx.testbed()?;
    let (pod, server) = (testbed.net.ns("w"), testbed.net.ns("b"));
    let steering = testbed.load(ctx, AT, ProgramKind::FibRedirect, Config::new(ctx.marker))?;
    let mut ends = Vec::new();
    for family in Family::available().iter().copied() {
        if !choose_by_ports(testbed.net.ns("a"), family)? {
            ctx.log(format!("the kernel has no {family} routes with several next hops"));
            continue;
        }
        let to: IpAddr = BEHIND_BOTH[family as usize].parse()?;
        let hop = |router: Router| {
            Ok::<_, Stop>((router.gateway[family as usize].parse()?, testbed.net.ifindex("a", router.dev)))
        };
        let hops = ROUTERS.into_iter().map(hop).collect::<Result<Vec<_>, _>>()?;
        add_spread_route(testbed.net.ns("a"), to, &hops)?;
        let to = SocketAddr::new(to, ctx.marker);
        let probes = (0..FLOWS).map(|_| UdpProbe::connect(pod, to)).collect::<Result<Vec<_>, _>>()?;
        ends.push((family, to, UdpSink::bind(server, to)?, probes));
    }
    ctx.watch(&testbed.net, ["w", "b"]);
    let mut capture = Capture::start(server)?;
    let mut send = |ctx: &mut Ctx, how: &str| {
        for (family, to, sink, probes) in &ends {
            let before = capture.packets()?.len();
            probes.iter().try_for_each(|probe| probe.send(b"one of many"))?;
            let arrived = probes.iter().take_while(|_| sink.receive(ctx.patience(2_000)).is_some()).count();
            ctx.equal(format!("{family}, {how}: flows that arrive"), arrived, FLOWS);
            let came_in = capture.packets()?[before..].iter().filter(|packet| {
                let headers = Headers::of(&packet.data).filter(|_| !packet.is_outgoing());
                headers.is_some_and(|headers| headers.destination == to.ip() && headers.ports().is_some())
            });
            let by_first = came_in.filter(|packet| packet.ifindex == testbed.net.ifindex("b", "e1")).count();
            let spread = (1..FLOWS).contains(&by_first);
            ctx.check(format!("{family}, {how}: flows by the first of two paths"), spread, by_first);
        }
        Ok::<_, Stop>(())
    };
    send(ctx, "forwarded")?;
    let _steering = testbed.attach(ctx, AT, variant.attach(), Direction::FromWorkload, &steering)?;
    send(ctx, "bpf_fib_lookup")?;
    let sent = (FLOWS * ends.len()) as u64;
    ctx.equal("packets that followed bpf_fib_lookup", steering.stats()?.marked, sent);
    Ok(())
}
