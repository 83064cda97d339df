//! Traffic through a router, with and without translation.

use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
    testbed::P0,
    trip::{HookCounters, Trip},
    variants,
};
use lab_topology::{Family, Tap, Template, library, model::Nat};
use lab_traffic::{Capture, Headers, Proto, Transport, UdpProbe};
use std::net::{IpAddr, SocketAddr};

/// Initial TTL of a sender: `net.ipv4.ip_default_ttl` and `IPV6_DEFAULT_HOPLIMIT`.
const DEFAULT_TTL: u8 = 64;

/// In the order in which they run.
pub const CASES: &[Case] =
    &[POD_TO_EXTERNAL, POD_TO_USER_SPACE, EXTERNAL_TO_POD, MASQUERADE, MASQUERADE_OF_TRACKED, NODE_PORT];

const POD_TO_EXTERNAL: Case = Case::new(
    "T04",
    "pod-to-external",
    "A pod reaches an outside node through its host and a router, each of which decrements the TTL.",
    pod_to_external,
)
.on(library::GATEWAY)
.over(variants::usual_mechanisms);
fn pod_to_external(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const HOPS: u8 = 2;
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    let mut capture = Capture::start(testbed.net.ns("ext"))?;
    Trip::new(ctx, "w0", "ext").passes(ctx, &testbed, &[&watch])?;
    let pod = Family::ALL.map(|family| testbed.net.addr("w0", family));
    let ttls: Vec<u8> = capture
        .packets()?
        .iter()
        .filter_map(|packet| Headers::of(&packet.data))
        .filter(|headers| pod.contains(&headers.source))
        .map(|headers| headers.ttl)
        .collect();
    let right = !ttls.is_empty() && ttls.iter().all(|ttl| *ttl == DEFAULT_TTL - HOPS);
    ctx.check("the TTL of every packet is two lower", right, format!("{ttls:?}"));
    Ok(())
}

const EXTERNAL_TO_POD: Case =
    Case::new("T05", "external-to-pod", "An outside node reaches a pod by its own address.", external_to_pod)
        .on(library::GATEWAY)
        .over(variants::usual_mechanisms);
fn external_to_pod(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    Trip::new(ctx, "ext", "w0").passes(ctx, &testbed, &[&watch])
}

/// The external addresses of the node in [`library::gateway_nat`].
fn node_addrs() -> [IpAddr; 2] {
    [library::NODE_ADDR_V4, library::NODE_ADDR_V6].map(|addr| addr.parse().expect("the library's own constant"))
}

const MASQUERADE: Case = Case::new(
    "T06",
    "masquerade",
    "With masquerading, an outside node sees the host's address, and its answers reach the pod.",
    masquerade,
)
.on(library::GATEWAY_NAT)
.over(variants::usual_mechanisms);
fn masquerade(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    let trip = Trip::new(ctx, "w0", "ext");
    Trip { source: Some(node_addrs()), ..trip }.passes(ctx, &testbed, &[&watch])
}

/// Connections are tracked in the workload's namespace too: it has a rule of translation, for a port that nobody uses.
const GATEWAY_NAT_TRACKED: Template = Template::new(
    "gateway-nat-tracked",
    "The gateway topology with translation, and one workload that tracks connections itself.",
    |kind| {
        let unused = |from: &str| Nat::Dnat {
            node: "w0".to_owned(),
            from: from.parse().expect("a constant"),
            from_port: 9,
            to: from.parse().expect("a constant"),
            to_port: 10,
        };
        library::GATEWAY_NAT.of(kind).nat(unused("198.51.100.99")).nat(unused("2001:db8:b::99"))
    },
);

const MASQUERADE_OF_TRACKED: Case = Case::new(
    "T25",
    "masquerade-of-tracked",
    "A packet leaves its connection behind with its namespace: the node masquerades what the workload has tracked itself.",
    masquerade,
)
.on(GATEWAY_NAT_TRACKED)
.over(variants::one_each);

const NODE_PORT: Case = Case::new(
    "T07",
    "node-port",
    "A port of the node forwards to a pod, and the answers come from the node's address.",
    node_port,
)
.on(library::GATEWAY_NAT)
.over(variants::usual_mechanisms);
fn node_port(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let watch = HookCounters::marking(ctx, &testbed, P0, variant.attach(), library::POD_PORT)?;
    let trip = Trip {
        marker: library::POD_PORT,
        protos: &[Proto::Udp, Proto::Tcp],
        dial: Some(node_addrs().map(|addr| SocketAddr::new(addr, library::NODE_PORT))),
        ..Trip::new(ctx, "ext", "w0")
    };
    trip.passes(ctx, &testbed, &[&watch])
}

const POD_TO_USER_SPACE: Case = Case::new(
    "T04",
    "pod-to-user-space",
    "User space reads the pod's packets from a tap, unchanged except for the TTL, and its answer arrives.",
    pod_to_user_space,
)
.on(library::TAP)
.over(variants::usual_mechanisms);
fn pod_to_user_space(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const WORDS: &[u8] = b"read by user space";
    const ETHERNET: usize = 14;
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    let tap = testbed.net.tap("host", "tap0");
    ctx.watch(&testbed.net, ["w0", "host"]);
    for far in library::FAR_END {
        let far: IpAddr = far.parse()?;
        if !Family::of(far).is_available() {
            continue;
        }
        let pod = testbed.net.addr("w0", Family::of(far));
        let probe = UdpProbe::connect(testbed.net.ns("w0"), SocketAddr::new(far, ctx.marker))?;
        let before = watch.counted()?;
        probe.send(WORDS)?;
        // The node also sends packets of its own there, for example multicast listener reports.
        let mut read = None;
        let marker = ctx.marker;
        ctx.wait_until(2_000, || {
            let Some(frame) = tap.receive(std::time::Duration::ZERO)? else { return Ok(false) };
            let headers = frame.get(ETHERNET..).and_then(Headers::of);
            let ours = headers.filter(|headers| headers.ports().is_some_and(|(_, to)| to == marker));
            read = ours.map(|headers| (headers, frame));
            Ok(read.is_some())
        })?;
        let Some((headers, frame)) = read else {
            return Err(Stop::check(format!("user space reads nothing for {far}")));
        };
        ctx.equal(
            format!("{far}: from, to, TTL"),
            (headers.source, headers.destination, headers.ttl),
            (pod, far, DEFAULT_TTL - 1),
        );
        ctx.equal(format!("{far}: the node writes the far end's MAC address"), &frame[..6], &Tap::FAR_MAC);
        let Transport::Udp { ports, payload } = headers.transport else {
            return Err(Stop::check(format!("user space reads {:?}", headers.transport)));
        };
        ctx.check(format!("{far}: content"), payload == WORDS, format!("{} bytes", payload.len()));
        tap.send(&lab_traffic::udp_answer(&frame, far, pod, (ports.1, ports.0), b"answer"))?;
        let answer = probe.receive(ctx.patience(2_000));
        ctx.equal(format!("{far}: answer received by the pod"), answer.as_deref(), Some(&b"answer"[..]));
        let now = watch.counted()?;
        ctx.equal(
            format!("{far}: packets that the programs counted"),
            (now.from - before.from, now.to - before.to),
            (1, 1),
        );
    }
    Ok(())
}
