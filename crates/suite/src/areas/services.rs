//! Services of the miniature datapath: translation both ways, errors about translated packets, and changing the
//! mechanism under traffic.

use crate::{
    case::{Area, Case, CaseResult, Direction, Variant},
    ctx::Ctx,
    datapath::{EXPIRED, Node, REFUSED, W0, service_address},
    flows, variants,
};
use lab_protocol::{AttachRequest, Capability};
use lab_topology::Family;
use lab_traffic::{IcmpError, UdpOptions, UdpStream, icmp_error, udp_exchange};

pub const CASES: &[Case] = &[
    Case::new(
        "T08",
        "service",
        Area::Datapath,
        "pods",
        "A service's address leads to the other pod over UDP and TCP, answers come from the service, checksums are right.",
        service,
    )
    .over(variants::mechanisms),
    Case::new(
        "T03",
        "service-hairpin",
        Area::Datapath,
        "pods",
        "A pod reaches itself through the service that it serves, and sees the service as the client.",
        hairpin,
    )
    .over(variants::mechanisms),
    Case::new(
        "T15",
        "icmp-errors-about-translated",
        Area::Datapath,
        "pods",
        "Port unreachable and time exceeded reach the client of a service, quoting the packet as the client sent it.",
        icmp_errors,
    )
    .over(variants::paired_mechanisms),
    Case::new(
        "H03",
        "datapath-tc-to-tcx",
        Area::Upgrade,
        "pods",
        "The datapath changes from tc to tcx under traffic to a service without losing a packet.",
        tc_to_tcx,
    )
    .over(variants::devices)
    .needs(&[Capability::Tcx]),
    Case::new(
        "H06",
        "datapath-to-netkit",
        Area::Upgrade,
        "pods",
        "The datapath changes from tc over tcx to netkit under traffic to a service without losing a packet.",
        tc_to_netkit,
    )
    .over(variants::netkit_devices)
    .needs(&[Capability::Tcx]),
];

fn service(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = Node::pods(ctx, variant.device())?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    for family in Family::ALL {
        let path = node.path(ctx, "w0", "w1", family);
        let report = udp_exchange(path, flows::EXCHANGES.into(), UdpOptions::default(), lab_traffic::SILENCE_WINDOW);
        ctx.equal(format!("no service yet, {family}: delivered"), report.delivered, 0);
    }
    node.datapath.forget_connections()?;
    node.serve(ctx, "w1")?;
    let before = node.counters(W0, Direction::ToWorkload)?;
    node.service_passes(ctx, W0, "w1", |family| node.bench.net.addr("w0", family))?;
    let after = node.counters(W0, Direction::ToWorkload)?;
    let (answers, translated) = (after.entered - before.entered, after.translated - before.translated);
    ctx.equal("answers that were translated back", translated, answers);
    let unsummed = UdpOptions { checksum: false, ..UdpOptions::default() };
    let path = node.path(ctx, "w0", "w1", Family::V4);
    let report = udp_exchange(path, flows::EXCHANGES.into(), unsummed, ctx.patience(1_000));
    ctx.equal("datagrams without a checksum that were answered", report.echoed, flows::EXCHANGES.into());
    // The backend itself is still there under its own address, and untranslated.
    let before = node.counters(W0, Direction::FromWorkload)?.translated;
    node.all_pass(ctx, "w0", "w1")?;
    ctx.equal(
        "packets translated on the way to the backend itself",
        node.counters(W0, Direction::FromWorkload)?.translated - before,
        0,
    );
    Ok(())
}

fn hairpin(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = Node::pods(ctx, variant.device())?;
    let mechanism = node.mechanism(node.attach_type(ctx, W0, variant.attach())?)?;
    let _attached = node.attach_one(ctx, &mechanism, W0, variant.attach())?;
    node.serve(ctx, "w0")?;
    node.service_passes(ctx, W0, "w0", service_address)
}

fn icmp_errors(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = Node::pods(ctx, variant.device())?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    node.serve(ctx, "w1")?;
    for family in Family::ALL {
        let path = node.path(ctx, "w0", "w1", family);
        let heard = icmp_error(path.from, path.dial, None, ctx.patience(1_000))?;
        let refused = heard == IcmpError::Errno(REFUSED);
        ctx.require(&format!("nobody listens behind the service, {family}"), refused, heard)?;
        let related = node.counters(W0, Direction::ToWorkload)?.related;
        // One hop: as far as the node, which answers for a packet that is translated already.
        let heard = icmp_error(path.from, path.dial, Some(1), ctx.patience(1_000))?;
        ctx.equal(format!("one hop is too few, {family}"), heard, IcmpError::Errno(EXPIRED));
        let seen = node.counters(W0, Direction::ToWorkload)?.related - related;
        ctx.equal(format!("errors that belong to a connection, {family}"), seen, 1);
        let heard = icmp_error(path.from, path.dial, Some(2), ctx.patience(1_000))?;
        ctx.equal(format!("two hops are enough, {family}"), heard, IcmpError::Errno(REFUSED));
    }
    Ok(())
}

fn tc_to_tcx(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    upgrade(ctx, variant, &[AttachRequest::Tc, AttachRequest::Tcx])
}

fn tc_to_netkit(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    upgrade(ctx, variant, &[AttachRequest::Tc, AttachRequest::Tcx, AttachRequest::Netkit])
}

/// One mechanism after the other, the new one attached before the old one goes. Connections live on in the shared maps.
fn upgrade(ctx: &mut Ctx, variant: &Variant, steps: &[AttachRequest]) -> CaseResult {
    let node = Node::pods(ctx, variant.device())?;
    node.serve(ctx, "w1")?;
    let (mut mechanism, mut attached) = node.attach(ctx, steps[0])?;
    let client = |family| node.bench.net.addr("w0", family);
    node.service_passes(ctx, W0, "w1", client)?;
    let before = node.counters(W0, Direction::FromWorkload)?.translated;
    let streams = Family::ALL
        .map(|family| UdpStream::start(node.path(ctx, "w0", "w1", family), flows::STREAM_INTERVAL))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    for request in &steps[1..] {
        streams.iter().try_for_each(|stream| flows::some_traffic(ctx, stream))?;
        let attach_type = node.attach_type(ctx, W0, *request)?;
        let next = node.mechanism_beside(ctx, &mechanism, attach_type)?;
        let newer = node.attach_by(ctx, &next, *request)?;
        streams.iter().try_for_each(|stream| flows::some_traffic(ctx, stream))?;
        for old in std::mem::replace(&mut attached, newer) {
            node.detach(old)?;
        }
        mechanism = next;
    }
    streams.iter().try_for_each(|stream| flows::some_traffic(ctx, stream))?;
    let mut sent = 0;
    for (stream, family) in streams.into_iter().zip(Family::ALL) {
        let report = stream.stop(ctx.patience(500));
        sent += u64::from(report.sent);
        ctx.equal(format!("datagrams lost over {family}"), report.lost_count(), 0);
        ctx.equal(format!("datagrams refused over {family}"), report.send_errors.len(), 0);
    }
    let counted = node.counters(W0, Direction::FromWorkload)?;
    ctx.equal("every datagram was translated exactly once", counted.translated - before, sent);
    ctx.equal("packets that met an empty slot", counted.missed, 0);
    node.service_passes(ctx, W0, "w1", client)
}
