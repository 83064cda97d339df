//! Beyond the node: through a router, with and without translation.

use crate::{
    bench::{Bench, P0},
    case::{Area, Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
    trip::{Trip, Watch},
    variants,
};
use lab_topology::{Family, Tap, library};
use lab_traffic::{Capture, Headers, Proto, Transport, UdpProbe};
use std::net::{IpAddr, SocketAddr};

/// What a sender starts with: `net.ipv4.ip_default_ttl` and `IPV6_DEFAULT_HOPLIMIT`.
const DEFAULT_TTL: u8 = 64;

pub const CASES: &[Case] = &[
    Case::new(
        "T04",
        "pod-to-external",
        Area::Traffic,
        "gateway",
        "A pod reaches an outside node through its host and a router, each of which takes one off the TTL.",
        pod_to_external,
    )
    .over(variants::usual_mechanisms),
    Case::new(
        "T04",
        "pod-to-user-space",
        Area::Traffic,
        "tap",
        "What user space reads from a tap is what the pod sent, one hop older and otherwise intact, and its answer \
         arrives.",
        pod_to_user_space,
    )
    .over(variants::usual_mechanisms),
    Case::new(
        "T05",
        "external-to-pod",
        Area::Traffic,
        "gateway",
        "An outside node reaches a pod by its own address.",
        external_to_pod,
    )
    .over(variants::usual_mechanisms),
    Case::new(
        "T06",
        "masquerade",
        Area::Traffic,
        "gateway-nat",
        "Behind a masquerading host the outside sees the host's address, and answers find the pod.",
        masquerade,
    )
    .over(variants::usual_mechanisms),
    Case::new(
        "T07",
        "node-port",
        Area::Traffic,
        "gateway-nat",
        "A port of the node leads to a pod, and the answers come from the node's address.",
        node_port,
    )
    .over(variants::usual_mechanisms),
];

fn pod_to_external(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const HOPS: u8 = 2;
    let bench = Bench::on(library::gateway, variant.device())?;
    let watch = Watch::new(ctx, &bench, P0, variant.attach())?;
    let mut capture = Capture::start(bench.net.ns("ext"))?;
    Trip::new(ctx, "w0", "ext").passes(ctx, &bench, &[&watch])?;
    let pod = Family::ALL.map(|family| bench.net.addr("w0", family));
    let ttls: Vec<u8> = capture
        .packets()?
        .iter()
        .filter_map(|packet| Headers::of(&packet.data))
        .filter(|headers| pod.contains(&headers.source))
        .map(|headers| headers.ttl)
        .collect();
    let right = !ttls.is_empty() && ttls.iter().all(|ttl| *ttl == DEFAULT_TTL - HOPS);
    ctx.check("every packet arrives two hops older", right, format!("{ttls:?}"));
    Ok(())
}

fn external_to_pod(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::on(library::gateway, variant.device())?;
    let watch = Watch::new(ctx, &bench, P0, variant.attach())?;
    Trip::new(ctx, "ext", "w0").passes(ctx, &bench, &[&watch])
}

/// The addresses of the node on the outside, as [`library::gateway_nat`] has them.
fn node_addrs() -> [IpAddr; 2] {
    [library::NODE_ADDR_V4, library::NODE_ADDR_V6].map(|addr| addr.parse().expect("the library's own constant"))
}

fn masquerade(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::on(library::gateway_nat, variant.device())?;
    let watch = Watch::new(ctx, &bench, P0, variant.attach())?;
    let trip = Trip::new(ctx, "w0", "ext");
    Trip { source: Some(node_addrs()), ..trip }.passes(ctx, &bench, &[&watch])
}

fn node_port(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::on(library::gateway_nat, variant.device())?;
    let watch = Watch::marking(ctx, &bench, P0, variant.attach(), library::POD_PORT)?;
    let trip = Trip {
        marker: library::POD_PORT,
        protos: &[Proto::Udp, Proto::Tcp],
        dial: Some(node_addrs().map(|addr| SocketAddr::new(addr, library::NODE_PORT))),
        ..Trip::new(ctx, "ext", "w0")
    };
    trip.passes(ctx, &bench, &[&watch])
}

fn pod_to_user_space(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const WORDS: &[u8] = b"read by user space";
    const ETHERNET: usize = 14;
    let bench = Bench::on(library::tap, variant.device())?;
    let watch = Watch::new(ctx, &bench, P0, variant.attach())?;
    let tap = bench.net.tap("host", "tap0");
    ctx.watch(&bench.net, ["w0", "host"]);
    for far in library::FAR_END {
        let far: IpAddr = far.parse()?;
        let pod = bench.net.addr("w0", Family::of(far));
        let probe = UdpProbe::connect(bench.net.ns("w0"), SocketAddr::new(far, ctx.marker))?;
        let before = watch.counted()?;
        probe.send(WORDS)?;
        // The node also says things of its own there: multicast listener reports, for one.
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
        ctx.equal(format!("{far}: what the pod hears"), answer.as_deref(), Some(&b"answer"[..]));
        let now = watch.counted()?;
        ctx.equal(
            format!("{far}: packets that the programs counted"),
            (now.from - before.from, now.to - before.to),
            (1, 1),
        );
    }
    Ok(())
}
