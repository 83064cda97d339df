//! Services of the miniature datapath: translation both ways, and errors about translated packets.

use crate::areas::datapath::node::{DatapathNode, EXPIRED, NEEDS, REFUSED, W0, service_address};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::Ctx,
    flows, variants,
};
use lab_topology::{Family, library};
use lab_traffic::{IcmpError, UdpOptions, icmp_error, udp_exchange};
use nix::errno::Errno;

/// In the order in which they run.
pub const CASES: &[Case] = &[SERVICE, SERVICE_HAIRPIN, ICMP_ERRORS_ABOUT_TRANSLATED];

const SERVICE: Case = Case::new(
    "T08",
    "service",
    "UDP and TCP to a service's address reach the other pod, answers come from the service, checksums are correct.",
    service,
)
.on(library::PODS)
.over(variants::mechanisms)
.needs(NEEDS);
fn service(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    for family in Family::available().iter().copied() {
        let path = node.path(ctx, "w0", "w1", family);
        let report = udp_exchange(path, flows::EXCHANGES.into(), UdpOptions::default(), lab_traffic::SILENCE_WINDOW);
        let tried =
            report.sent as usize + report.send_errors.iter().filter(|errno| **errno == Errno::ENOBUFS as i32).count();
        ctx.equal(
            format!("no service yet, {family}: sent, delivered, answered"),
            (tried, report.delivered, report.echoed + report.foreign),
            (flows::EXCHANGES.into(), 0, 0),
        );
    }
    node.datapath.forget_connections()?;
    node.serve(ctx, "w1")?;
    let before = node.counters(W0, Direction::ToWorkload)?;
    node.service_passes(ctx, W0, "w1", |family| node.testbed.net.addr("w0", family))?;
    let after = node.counters(W0, Direction::ToWorkload)?;
    let (answers, translated) = (after.entered - before.entered, after.translated - before.translated);
    ctx.equal("answers that were translated back", translated, answers);
    let unsummed = UdpOptions { checksum: false, ..UdpOptions::default() };
    let path = node.path(ctx, "w0", "w1", Family::V4);
    let report = udp_exchange(path, flows::EXCHANGES.into(), unsummed, ctx.patience(1_000));
    ctx.equal("datagrams without a checksum that were answered", report.echoed, flows::EXCHANGES.into());
    // The backend is still reachable at its own address, without translation.
    let before = node.counters(W0, Direction::FromWorkload)?.translated;
    node.all_pass(ctx, "w0", "w1")?;
    ctx.equal(
        "translated packets to the backend's own address",
        node.counters(W0, Direction::FromWorkload)?.translated - before,
        0,
    );
    Ok(())
}

const SERVICE_HAIRPIN: Case = Case::new(
    "T03",
    "service-hairpin",
    "A pod reaches itself through the service whose backend it is, and sees the service's address as the client.",
    hairpin,
)
.on(library::PODS)
.over(variants::mechanisms)
.needs(NEEDS);
fn hairpin(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let mechanism = node.mechanism(node.attach_type(ctx, W0, variant.attach())?)?;
    let _attached = node.attach_one(ctx, &mechanism, W0, variant.attach())?;
    node.serve(ctx, "w0")?;
    node.service_passes(ctx, W0, "w0", service_address)
}

const ICMP_ERRORS_ABOUT_TRANSLATED: Case = Case::new(
    "T15",
    "icmp-errors-about-translated",
    "Port unreachable and time exceeded reach the client of a service, quoting the packet as the client sent it.",
    icmp_errors,
)
.on(library::PODS)
.over(variants::paired_mechanisms)
.needs(NEEDS);
fn icmp_errors(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let node = DatapathNode::pods(ctx)?;
    let (_mechanism, _attached) = node.attach(ctx, variant.attach())?;
    node.serve(ctx, "w1")?;
    for family in Family::available().iter().copied() {
        let path = node.path(ctx, "w0", "w1", family);
        let heard = icmp_error(path.from, path.dial, None, ctx.patience(1_000))?;
        let refused = heard == IcmpError::Errno(REFUSED);
        ctx.require(&format!("no server behind the service, {family}"), refused, heard)?;
        let related = node.counters(W0, Direction::ToWorkload)?.related;
        // One hop: the node itself answers, for a packet that is already translated.
        let heard = icmp_error(path.from, path.dial, Some(1), ctx.patience(1_000))?;
        ctx.equal(format!("with one hop, {family}"), heard, IcmpError::Errno(EXPIRED));
        let seen = node.counters(W0, Direction::ToWorkload)?.related - related;
        ctx.equal(format!("errors that were assigned to a connection, {family}"), seen, 1);
        let heard = icmp_error(path.from, path.dial, Some(2), ctx.patience(1_000))?;
        ctx.equal(format!("with two hops, {family}"), heard, IcmpError::Errno(REFUSED));
    }
    Ok(())
}
