//! Other witnesses of what a hook did with a packet than the sockets: the counters of both ends, and the time after.

use lab_bpf::{Config, ProgramKind};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, Spot, Testbed},
    variants,
};
use lab_protocol::{AttachRequest, AttachType, Capability};
use lab_topology::{Family, LinkStats, library, link};
use lab_traffic::{Proto, UdpProbe, UdpSink};
use std::{net::SocketAddr, thread, time::Duration};

/// In the order in which they run.
pub const CASES: &[Case] = &[COUNTERS, NOTHING_LATER, CARRIER];

/// `TC_ACT_SHOT`, `TCX_DROP`, `NETKIT_DROP`.
const DROP: i32 = 2;
/// Payload of a datagram, bytes, and what a frame adds to it: Ethernet, IPv4 and UDP.
const PAYLOAD: u64 = 100;
const HEADERS: u64 = 14 + 20 + 8;

/// The counters of both ends of the pod's link.
#[derive(PartialEq, Eq)]
struct BothEnds {
    pod: LinkStats,
    host: LinkStats,
}

/// Both ends at one moment: read again if the kernel sent a packet of its own in between.
fn ends(ctx: &Ctx, testbed: &Testbed) -> Result<BothEnds, Stop> {
    let stats = |node: &str, dev| link::stats(testbed.net.ns(node), dev);
    let mut read = BothEnds { pod: stats("pod", "eth0")?, host: stats("host", "p0")? };
    ctx.wait_until(1_000, || {
        let before = std::mem::replace(&mut read, BothEnds { pod: stats("pod", "eth0")?, host: stats("host", "p0")? });
        Ok(before == read)
    })?;
    Ok(read)
}

const COUNTERS: Case = Case::new(
    "V13",
    "counters-of-both-ends",
    "Both ends count each packet once with its length, as sent and as received; a drop counts as what the hook makes of it.",
    counters,
)
.on(library::PAIR)
.over(variants::mechanisms);
/// Datagrams go one way only, and the two ends agree whatever else the kernel sends.
fn counters(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const SENT: u64 = 20;
    let testbed = ctx.testbed()?;
    let to = SocketAddr::new(testbed.net.addr("host", Family::V4), ctx.marker);
    let _sink = UdpSink::bind(testbed.net.ns("host"), to)?;
    let probe = UdpProbe::connect(testbed.net.ns("pod"), to)?;
    for verdict in [0, DROP] {
        let config = Config { verdict, ..Config::new(ctx.marker) };
        let program = testbed.load(ctx, P0, ProgramKind::Count, config)?;
        let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
        let native = attachment.hook.attach_type() == AttachType::Netkit;
        let before = ends(ctx, &testbed)?;
        for _ in 0..SENT {
            // A drop on netkit is an error of the call.
            drop(probe.send(&[0; PAYLOAD as usize]));
        }
        let seen = ctx.wait_until(1_000, || Ok(program.stats()?.marked >= SENT))?;
        let after = ends(ctx, &testbed)?;
        let what = if verdict == DROP { "dropped" } else { "passed" };
        ctx.check(format!("{what}: the program saw the datagrams"), seen, program.stats()?.marked);
        let stats = program.stats()?;
        let wanted = stats.marked * (PAYLOAD + HEADERS);
        ctx.equal(format!("{what}: bytes that the program counted"), stats.bytes, wanted);
        let sent = after.pod.tx_packets - before.pod.tx_packets;
        let bytes = after.pod.tx_bytes - before.pod.tx_bytes;
        let received = (after.host.rx_packets - before.host.rx_packets, after.host.rx_bytes - before.host.rx_bytes);
        let name = format!("{what}: packets and bytes sent by the pod's end and received by the node's");
        ctx.equal(name, (sent, bytes), received);
        let arrives = if native && verdict == DROP { 0 } else { program.stats()?.marked };
        ctx.check(
            format!("{what}: packets sent by the pod's end"),
            sent >= arrives && sent < 2 * SENT,
            format!("{sent}, at least {arrives} and few of the kernel's own"),
        );
        let least = arrives * (PAYLOAD + HEADERS);
        ctx.check(format!("{what}: bytes sent by the pod's end"), bytes >= least, format!("{bytes}, at least {least}"));
        let lost = after.pod.tx_dropped - before.pod.tx_dropped;
        let wanted = if native && verdict == DROP { program.stats()?.marked } else { 0 };
        ctx.equal(format!("{what}: tx_dropped of the pod's end"), lost, wanted);
        let back = (after.host.tx_packets - before.host.tx_packets, after.pod.rx_packets - before.pod.rx_packets);
        ctx.equal(format!("{what}: packets sent by the node's end and received by the pod's"), back.0, back.1);
        attachment.detach()?;
    }
    Ok(())
}

const NOTHING_LATER: Case = Case::new(
    "V14",
    "nothing-arrives-later",
    "A packet that was dropped does not arrive in the next third of a second, whatever hook dropped it.",
    nothing_later,
)
.on(library::MIXED)
.needs(&[Capability::Netkit, Capability::Tcx]);
/// One wait serves the hooks of a direction: the sockets of silent flows stay open, each in a namespace of its own.
fn nothing_later(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const LATER: Duration = Duration::from_millis(330);
    let testbed = ctx.testbed()?;
    for (direction, on_veth) in
        [(Direction::FromWorkload, AttachRequest::Tc), (Direction::ToWorkload, AttachRequest::Tcx)]
    {
        let mut attachments = Vec::new();
        for (dev, request) in [("p0", on_veth), ("p1", AttachRequest::Netkit), ("p2", AttachRequest::Netkit)] {
            let at = Spot { node: "host", dev };
            let config = Config { verdict: DROP, ..Config::new(ctx.marker) };
            let program = testbed.load(ctx, at, ProgramKind::Count, config)?;
            attachments.push(testbed.attach(ctx, at, request, direction, &program)?);
        }
        let between = |from, to| (from, to, Proto::Udp, Family::V4);
        testbed.none_pass(ctx, [between("w0", "w1"), between("w1", "w2"), between("w2", "w0")]);
        thread::sleep(LATER);
        attachments.into_iter().try_for_each(|attachment| attachment.detach())?;
    }
    Ok(())
}

const CARRIER: Case = Case::new(
    "V15",
    "one-end-down",
    "Both ends name the other's index; while one end is down, the other has no carrier, and afterwards it has it again.",
    carrier,
)
.on(library::PAIR)
.over(variants::devices);
fn carrier(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (pod, host) = (testbed.net.ns("pod"), testbed.net.ns("host"));
    let (near, far) = (link::info(host, "p0")?, link::info(pod, "eth0")?);
    ctx.equal("index of the other end, at the node", near.peer_ifindex, Some(far.ifindex));
    ctx.equal("index of the other end, in the pod", far.peer_ifindex, Some(near.ifindex));
    ctx.check("both ends carry", near.carries && far.carries, format!("{near:?}, {far:?}"));
    for (ns, dev, other, other_dev) in [(pod, "eth0", host, "p0"), (host, "p0", pod, "eth0")] {
        link::set_down(ns, dev)?;
        // linkwatch_event() sets the operational state from a work queue: it may be late.
        let lost = ctx.wait_until(2_000, || Ok(!link::info(other, other_dev)?.running))?;
        ctx.check(format!("{other_dev} has no carrier while {dev} is down"), lost, lost);
        link::set_up(ns, dev)?;
        let carries =
            ctx.wait_until(2_000, || Ok(link::info(host, "p0")?.carries && link::info(pod, "eth0")?.carries))?;
        ctx.check(format!("both ends carry again after {dev} was down"), carries, carries);
    }
    Ok(())
}
