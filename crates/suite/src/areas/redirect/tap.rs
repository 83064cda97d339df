//! A workload and a tap, as where a virtual machine has the device of a container (kata, urunc): programs hand packets from one
//! to the other.

use crate::areas::ifindex::crossing::{datagram, tagged};
use lab_bpf::{Config, Mirred, ProgramKind, TcDirection, VLAN_PRESENT, mirred_add};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, Spot, Testbed},
};
use lab_protocol::{AttachRequest, Capability, LinkKind};
use lab_topology::{Family, Tap, library, link};
use lab_traffic::{Headers, Proto, Transport, UdpProbe, UdpSink, send_frame};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// In the order in which they run.
pub const CASES: &[Case] = &[POD_AND_TAP, MIRRED];

const TAP: Spot = Spot { node: "host", dev: "tap0" };
const WORDS: &[u8] = b"for the machine";
const ETHERNET: usize = 14;
/// `net.ipv4.ip_default_ttl`: nothing has forwarded the packet.
const TTL: u8 = 64;

/// Without link-layer addresses (netkit L3) there is nothing that a virtual machine could take for its own.
fn with_addresses() -> Vec<Variant> {
    let on = |attach, device| Variant { attach: Some(attach), device: Some(device), ..Variant::default() };
    vec![on(AttachRequest::Tc, LinkKind::Veth), on(AttachRequest::Netkit, LinkKind::NetkitL2)]
}

const POD_AND_TAP: Case = Case::new(
    "R23",
    "pod-and-tap",
    "bpf_redirect hands a pod's packet to a tap as it is, and what comes out of the tap to the pod.",
    pod_and_tap,
)
.on(library::TAP)
.over(with_addresses);
fn pod_and_tap(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let to_tap = Config { target_ifindex: testbed.ifindex(TAP), ..Config::new(ctx.marker) };
    let to_tap = testbed.load(ctx, P0, ProgramKind::Redirect, to_tap)?;
    let _to_tap = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &to_tap)?;
    let to_pod = Config { target_ifindex: testbed.ifindex(P0), ..Config::new(ctx.marker) };
    let to_pod = testbed.load(ctx, TAP, ProgramKind::Redirect, to_pod)?;
    let at_tap = if variant.attach() == AttachRequest::Tc { AttachRequest::Tc } else { AttachRequest::Tcx };
    let _to_pod = testbed.attach(ctx, TAP, at_tap, Direction::FromWorkload, &to_pod)?;
    for far in library::FAR_END {
        let far: IpAddr = far.parse()?;
        if !Family::of(far).is_available() {
            continue;
        }
        there_and_back(ctx, &testbed, far)?;
    }
    let families = Family::available().len() as u64;
    ctx.equal("packets at both programs", (to_tap.stats()?.marked, to_pod.stats()?.marked), (families, families));
    tagged_to_pod(ctx, variant, &testbed)?;
    ctx.equal("packets that came out of the tap", to_pod.stats()?.marked, families + 1);
    tagged_to_tap(ctx, &testbed)
}

/// A frame with a VLAN tag from the pod: the machine at the tap reads it with its tag, wherever that was meanwhile (tun_put_user()).
fn tagged_to_tap(ctx: &mut Ctx, testbed: &Testbed) -> CaseResult {
    const TAGS: &[(u16, u16)] = &[(0x8100, 5 << 13 | 100)];
    const TAG: usize = 4;
    let net = &testbed.net;
    let gateway = net.readback("host", P0.dev)?.mac.unwrap_or_default();
    let inner = tagged(TAGS, &datagram(net.addr4("w0"), net.addr4("host"), ctx.marker));
    send_frame(net.ns("w0"), net.ifindex("w0", "eth0"), gateway, TAGS[0].0, &inner)?;
    let (tap, marker, mut read) = (net.tap("host", "tap0"), ctx.marker, None);
    ctx.wait_until(2_000, || {
        let Some(mut frame) = tap.receive(Duration::ZERO)? else { return Ok(false) };
        let ours = |frame: &[u8], at: usize| {
            let headers = frame.get(at..).and_then(Headers::of);
            headers.is_some_and(|headers| headers.ports().is_some_and(|(_, port)| port == marker))
        };
        if ours(&frame, ETHERNET) || ours(&frame, ETHERNET + TAG) {
            read = Some(frame.split_off(ETHERNET - 2));
        }
        Ok(read.is_some())
    })?;
    let sent = [&TAGS[0].0.to_be_bytes()[..], &inner].concat();
    ctx.check("the frame at the tap, from its tag on", read.as_ref() == Some(&sent), format!("{read:02x?}"));
    Ok(())
}

/// A frame with a VLAN tag out of the tap: the tag is beside the packet from there on, and the program at the pod sees it there.
fn tagged_to_pod(ctx: &mut Ctx, variant: &Variant, testbed: &Testbed) -> CaseResult {
    const TAGS: &[(u16, u16)] = &[(0x8100, 100)];
    let net = &testbed.net;
    let leaving = testbed.counter(ctx, P0)?;
    let _leaving = testbed.attach(ctx, P0, variant.attach(), Direction::ToWorkload, &leaving)?;
    let mut frame = net.readback("w0", "eth0")?.mac.unwrap_or_default().to_vec();
    frame.extend(net.readback("host", P0.dev)?.mac.unwrap_or_default());
    frame.extend(TAGS[0].0.to_be_bytes());
    frame.extend(tagged(TAGS, &datagram(net.addr4("host"), net.addr4("w0"), ctx.marker)));
    net.tap("host", "tap0").send(&frame)?;
    ctx.becomes("packets with a VLAN tag to the pod", 1, || Ok(leaving.stats()?.marked))?;
    ctx.equal("the tag beside the packet", leaving.stats()?.last.vlan_tci, VLAN_PRESENT | u32::from(TAGS[0].1));
    Ok(())
}

/// The frame with the cell's marker that comes out of the tap.
fn out_of(ctx: &mut Ctx, tap: &Tap, to: IpAddr) -> Result<(Headers, Vec<u8>), Stop> {
    let (mut read, marker) = (None, ctx.marker);
    ctx.wait_until(2_000, || {
        let Some(frame) = tap.receive(Duration::ZERO)? else { return Ok(false) };
        let headers = frame.get(ETHERNET..).and_then(Headers::of);
        let ours = headers.filter(|headers| headers.ports().is_some_and(|(_, port)| port == marker));
        read = ours.map(|headers| (headers, frame));
        Ok(read.is_some())
    })?;
    read.ok_or_else(|| Stop::check(format!("{to}: nothing comes out of the tap")))
}

/// A datagram from the pod as it comes out of the tap, and an answer that goes into it: nothing has changed either.
fn there_and_back(ctx: &mut Ctx, testbed: &Testbed, far: IpAddr) -> CaseResult {
    let net = &testbed.net;
    let own = net.readback("w0", "eth0")?.mac.unwrap_or_default();
    let gateway = net.readback("host", P0.dev)?.mac.unwrap_or_default();
    let (pod, tap) = (net.addr("w0", Family::of(far)), net.tap("host", "tap0"));
    let probe = UdpProbe::connect(net.ns("w0"), SocketAddr::new(far, ctx.marker))?;
    probe.send(WORDS)?;
    let (headers, frame) = out_of(ctx, tap, far)?;
    let seen = (headers.source, headers.destination, headers.ttl);
    ctx.equal(format!("{far}: from, to, TTL at the tap"), seen, (pod, far, TTL));
    let addresses = (frame[..6].to_vec(), frame[6..12].to_vec());
    ctx.equal(format!("{far}: link-layer addresses at the tap"), addresses, (gateway.to_vec(), own.to_vec()));
    let Transport::Udp { ports, payload } = headers.transport else {
        return Err(Stop::check(format!("{far}: {:?} comes out of the tap", headers.transport)));
    };
    ctx.check(format!("{far}: content at the tap"), payload == WORDS, format!("{} bytes", payload.len()));
    // From the machine at the tap to the pod: the addresses of the frame the other way round.
    tap.send(&lab_traffic::udp_answer(&frame, far, pod, (ports.1, ports.0), b"answer"))?;
    let answer = probe.receive(ctx.patience(2_000));
    ctx.equal(format!("{far}: answer received by the pod"), answer.as_deref(), Some(&b"answer"[..]));
    Ok(())
}

/// Devices with link-layer addresses, and no program.
fn devices() -> Vec<Variant> {
    [LinkKind::Veth, LinkKind::NetkitL2].map(|device| Variant { device: Some(device), ..Variant::default() }).into()
}

const MIRRED: Case = Case::new(
    "R24",
    "mirred-and-tap",
    "Filters with mirred hand a pod's packets to a tap as they are, and what comes out of the tap to the pod; of a mirrored packet both \
     the tap and the node have one. The pod's device can receive what comes out of the tap, and what is for a tap that is down is dropped. \
     netkit takes the time of arrival off what it passes on. A filter does not keep a target that is deleted.",
    mirred,
)
.on(library::TAP)
.over(devices)
.needs(&[Capability::Mirred]);
fn mirred(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const GONE: &str = "gone0";
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let attached = match variant.device().is_netkit() {
        true => Some(testbed.attach(ctx, P0, AttachRequest::Netkit, Direction::ToWorkload, &program)?),
        false => None,
    };
    let net = &testbed.net;
    let (host, pod) = (net.ns("host"), net.ns("w0"));
    let (at_pod, at_tap) = (testbed.ifindex(P0), testbed.ifindex(TAP));
    let add = |from, to, how| host.run(|| mirred_add(from, TcDirection::Ingress, to, how));
    let (to_tap, to_pod) = (add(at_pod, at_tap, Mirred::Redirect)?, add(at_tap, at_pod, Mirred::Redirect)?);
    let tap = net.tap("host", "tap0");
    for far in library::FAR_END {
        let far: IpAddr = far.parse()?;
        if !Family::of(far).is_available() {
            continue;
        }
        let before = host.run(|| to_tap.packets())?;
        there_and_back(ctx, &testbed, far)?;
        // The filter is for all packets: what else the pod sends (MLD, for example) counts too.
        let counted = host.run(|| to_tap.packets())? - before;
        ctx.check(format!("{far}: packets by the account of the action"), counted >= 1, counted);
        if attached.is_some() {
            // netkit_prep_forward(); mirred leaves it, and the agent keeps the kernel stamping what arrives.
            let last = program.stats()?.last;
            ctx.equal(format!("{far}: the time of the answer at the pod's device"), last.tstamp_ns, 0);
        }
    }
    host.run(|| to_tap.remove())?;
    let mirror = add(at_pod, at_tap, Mirred::Mirror)?;
    let mut frames = Vec::new();
    for family in Family::available().iter().copied() {
        let to = SocketAddr::new(net.addr("host", family), ctx.marker);
        let sink = UdpSink::bind(host, to)?;
        UdpProbe::connect(pod, to)?.send(WORDS)?;
        let (headers, frame) = out_of(ctx, tap, to.ip())?;
        frames.push((family, to, frame));
        ctx.equal(format!("{family}: destination of the copy"), headers.destination, to.ip());
        let arrived = sink.receive(ctx.patience(2_000)).map(|(bytes, _)| bytes);
        ctx.equal(format!("{family}: the packet itself"), arrived.as_deref(), Some(WORDS));
    }
    host.run(|| mirror.remove().and(to_pod.remove()))?;
    // The same frames out of the tap, as if the pod had sent them. They are for the tap itself: whose a frame is (PACKET_HOST) is
    // decided where it comes from (eth_type_trans()), and mirred leaves it.
    let arriving = add(at_tap, at_pod, Mirred::Receive)?;
    let own = net.readback("host", "tap0")?.mac.unwrap_or_default();
    for (family, to, mut frame) in frames {
        frame[..own.len()].copy_from_slice(&own);
        let sink = UdpSink::bind(host, to)?;
        tap.send(&frame)?;
        let arrived = sink.receive(ctx.patience(2_000)).map(|(bytes, _)| bytes);
        ctx.equal(format!("{family}: what the pod's device receives from the tap"), arrived.as_deref(), Some(WORDS));
    }
    host.run(|| arriving.remove())?;
    link::set_down(host, "tap0")?;
    let to_tap = add(at_pod, at_tap, Mirred::Redirect)?;
    testbed.none_pass(ctx, [("w0", "host", Proto::Udp, Family::V4), ("w0", "host", Proto::Udp, Family::V6)]);
    host.run(|| to_tap.remove())?;
    // A filter gives up its target when that is deleted (mirred_device_event()), which else would never end.
    link::create_dummy(host, GONE)?;
    let gone = link::info(host, GONE)?.ifindex;
    let to_nobody = add(at_pod, gone, Mirred::Redirect)?;
    link::delete(host, GONE)?;
    testbed.none_pass(ctx, [("w0", "host", Proto::Udp, Family::V4)]);
    host.run(|| to_nobody.remove())?;
    testbed.flow_passes(ctx, "w0", "host", Proto::Udp, Family::V4);
    Ok(())
}
