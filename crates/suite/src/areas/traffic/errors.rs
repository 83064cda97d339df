//! ICMP errors that pass the hooks and quote the packet that caused them.

use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, Spot},
    trip::{Counted, HookCounters, Trip},
    variants,
};
use lab_topology::{Family, library};
use lab_traffic::{Capture, Headers, Oversized, Transport, UdpProbe};
use nix::errno::Errno;
use std::net::{IpAddr, SocketAddr};

/// Type and code of an error in IPv4 and in IPv6.
type Kinds = [(u8, u8); 2];
const TTL_EXCEEDED: Kinds = [(11, 0), (3, 0)];
pub const PORT_UNREACHABLE: Kinds = [(3, 3), (1, 4)];
const TOO_BIG: Kinds = [(3, 4), (2, 0)];

/// In the order in which they run.
pub const CASES: &[Case] = &[TTL_EXCEEDED_CASE, PORT_UNREACHABLE_CASE, TOO_BIG_CASE];

/// A packet of a pod, and the error that the pod must receive.
pub struct ExpectedError {
    /// Destination of the packet.
    pub to: SocketAddr,
    /// Type and code of the error.
    pub kinds: Kinds,
    /// Sender of the error.
    pub offender: Option<IpAddr>,
}

/// Checks that the pod received exactly this error, which quotes the pod's own packet; returns the four bytes that
/// contain an MTU.
///
/// # Errors
/// The capture can't be read.
pub fn heard(
    ctx: &mut Ctx,
    what: &str,
    capture: &mut Capture,
    pod: IpAddr,
    wanted: &ExpectedError,
) -> Result<[u8; 4], Stop> {
    let (kind, code) = wanted.kinds[Family::of(wanted.to.ip()) as usize];
    let mut found = None;
    ctx.wait_until(2_000, || {
        let packets = capture.packets()?.iter().filter(|packet| !packet.is_outgoing());
        found =
            packets.filter_map(|packet| Some((packet, Headers::of(&packet.data)?))).find_map(|(packet, headers)| {
                match headers.transport {
                    Transport::Icmp { kind: k, code: c, rest, ref payload } if (k, c) == (kind, code) => {
                        let inner = Headers::of(payload)?;
                        let ours = inner.ports().is_some_and(|(_, to)| to == wanted.to.port());
                        let lengths = (packet.length, packet.declared());
                        (ours && inner.destination == wanted.to.ip()).then(|| (headers.clone(), inner, rest, lengths))
                    }
                    _ => None,
                }
            });
        Ok(found.is_some())
    })?;
    let Some((outer, inner, rest, (length, declared))) = found else {
        ctx.check(what, false, format!("no ICMP error {kind}/{code} about {} arrived", wanted.to));
        return Ok([0; 4]);
    };
    ctx.equal(format!("{what}: destination"), outer.destination, pod);
    ctx.equal(format!("{what}: bytes of the packet, and those that its header counts"), Some(length), declared);
    if let Some(offender) = wanted.offender {
        ctx.equal(format!("{what}: source"), outer.source, offender);
    }
    ctx.equal(format!("{what}: source of the quoted packet"), inner.source, pod);
    Ok(rest)
}

const TTL_EXCEEDED_CASE: Case = Case::new(
    "T15",
    "ttl-exceeded",
    "Packets whose hop limit expires cause errors of the host and of the router, as traceroute expects.",
    ttl_exceeded,
)
.on(library::GATEWAY)
.over(variants::one_each);
fn ttl_exceeded(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    ctx.watch(&testbed.net, ["w0", "ext"]);
    let mut capture = Capture::start(testbed.net.ns("w0"))?;
    let routers: [[IpAddr; 2]; 2] =
        [["169.254.1.1".parse()?, "192.0.2.254".parse()?], ["fd65::fe:1".parse()?, "2001:db8:a::254".parse()?]];
    for (family, routers) in Family::available().iter().copied().zip(routers) {
        let pod = testbed.net.addr("w0", family);
        for (hops, router) in (1u8..).zip(routers) {
            // A port per hop distinguishes the errors.
            let to = SocketAddr::new(testbed.net.addr("ext", family), ctx.marker + u16::from(hops) - 1);
            let probe = UdpProbe::connect(testbed.net.ns("w0"), to)?;
            probe.set_hops(hops)?;
            probe.send(b"how far")?;
            let wanted = ExpectedError { to, kinds: TTL_EXCEEDED, offender: Some(router) };
            heard(ctx, &format!("{family}, {hops} hops"), &mut capture, pod, &wanted)?;
            let error = probe.error(ctx.patience(1_000));
            ctx.equal(format!("{family}, {hops} hops: error of the socket"), error, Some(Errno::EHOSTUNREACH));
        }
    }
    ctx.equal("marked packets that left", watch.counted()?, Counted { from: 2, to: 0 });
    Trip::control(ctx, "w0", "ext").passes(ctx, &testbed, &[&watch])
}

const PORT_UNREACHABLE_CASE: Case = Case::new(
    "T15",
    "port-unreachable",
    "Sending to a closed port of an outside node gives ECONNREFUSED in the pod.",
    port_unreachable,
)
.on(library::GATEWAY)
.over(variants::one_each);
fn port_unreachable(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    ctx.watch(&testbed.net, ["w0", "ext"]);
    let mut capture = Capture::start(testbed.net.ns("w0"))?;
    for family in Family::available().iter().copied() {
        let to = SocketAddr::new(testbed.net.addr("ext", family), ctx.marker);
        let probe = UdpProbe::connect(testbed.net.ns("w0"), to)?;
        probe.send(b"a datagram")?;
        let wanted = ExpectedError { to, kinds: PORT_UNREACHABLE, offender: Some(to.ip()) };
        heard(ctx, &format!("{family}"), &mut capture, testbed.net.addr("w0", family), &wanted)?;
        let error = probe.error(ctx.patience(1_000));
        ctx.equal(format!("{family}: error of the socket"), error, Some(Errno::ECONNREFUSED));
    }
    ctx.equal("marked packets that left", watch.counted()?, Counted { from: 2, to: 0 });
    Trip::control(ctx, "w0", "ext").passes(ctx, &testbed, &[&watch])
}

const TOO_BIG_CASE: Case = Case::new(
    "T15",
    "too-big",
    "A packet that is too large for a link behind the router causes an error with the MTU.",
    too_big,
)
.on(library::DIAMOND)
.over(variants::one_each);
fn too_big(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const NARROW: u32 = 1400;
    let testbed = ctx.testbed()?;
    let watch = HookCounters::new(ctx, &testbed, Spot { node: "a", dev: "p0" }, variant.attach())?;
    ctx.watch(&testbed.net, ["w", "b"]);
    let mut capture = Capture::start(testbed.net.ns("w"))?;
    for family in Family::available().iter().copied() {
        let to = SocketAddr::new(testbed.net.addr("b", family), ctx.marker);
        let probe = UdpProbe::connect(testbed.net.ns("w"), to)?;
        probe.set_oversized(Oversized::Refuse)?;
        probe.send(&[0x4e; 1_800])?;
        let wanted = ExpectedError { to, kinds: TOO_BIG, offender: None };
        let rest = heard(ctx, &format!("{family}"), &mut capture, testbed.net.addr("w", family), &wanted)?;
        // IPv4 has the MTU in the last two of the four bytes, IPv6 in all of them.
        ctx.equal(format!("{family}: MTU in the error"), u32::from_be_bytes(rest), NARROW);
        let error = probe.error(ctx.patience(1_000));
        ctx.equal(format!("{family}: error of the socket"), error, Some(Errno::EMSGSIZE));
        ctx.equal(format!("{family}: path MTU afterwards"), probe.path_mtu()?, NARROW);
    }
    ctx.equal("marked packets that left", watch.counted()?, Counted { from: 2, to: 0 });
    Trip::control(ctx, "w", "b").passes(ctx, &testbed, &[&watch])
}
