//! Fragments on the way to the one who puts them together.

use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::Ctx,
    testbed::P0,
    trip::{HookCounters, Trip},
    variants,
};
use lab_topology::{Family, library, link};
use lab_traffic::{Oversized, UdpProbe, UdpSink, in_two_fragments, send_frame};
use std::net::SocketAddr;

/// In the order in which they run.
pub const CASES: &[Case] = &[FRAGMENTS];

const FRAGMENTS: Case = Case::new(
    "U11",
    "fragments-on-the-way",
    "Fragments are put together in whatever order they arrive, and those that a link on the way has no room for are cut again.",
    fragments,
)
.on(library::GATEWAY)
.over(variants::usual_mechanisms);
fn fragments(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const PAYLOAD: usize = 2_000;
    /// Units of 8 bytes in the first fragment.
    const FIRST: u16 = 150;
    const LONG: usize = 4_096;
    /// Smaller than the first fragments that the workload sends, and the smallest that IPv6 allows.
    const NARROW: u32 = 1_280;
    let testbed = ctx.testbed()?;
    let net = &testbed.net;
    let watch = HookCounters::new(ctx, &testbed, P0, variant.attach())?;
    let gateway = net.readback("host", P0.dev)?.mac.unwrap_or_default();
    for family in Family::available().iter().copied() {
        let to = SocketAddr::new(net.addr("ext", family), ctx.marker);
        let from = SocketAddr::new(net.addr("w0", family), ctx.marker);
        let sink = UdpSink::bind(net.ns("ext"), to)?;
        for (what, identifier, order) in [("in order", 1, [0, 1]), ("the last one first", 2, [1, 0])] {
            let before = watch.outgoing.stats()?.packets;
            let payload = vec![identifier as u8; PAYLOAD];
            let parts = in_two_fragments(from, to, &payload, FIRST, identifier);
            for (ethertype, packet) in order.map(|part: usize| &parts[part]) {
                send_frame(net.ns("w0"), net.ifindex("w0", "eth0"), gateway, *ethertype, packet)?;
            }
            let arrived = sink.receive(ctx.patience(2_000)).map(|(bytes, _)| bytes == payload);
            ctx.equal(format!("{family}: fragments {what} are put together"), arrived, Some(true));
            let ran = watch.outgoing.stats()?.packets - before;
            // What else the workload sends (MLD, for example) counts too.
            ctx.check(format!("{family}: fragments {what} that ran the program"), ran >= 2, ran);
        }
    }
    // IPv6 leaves that to the sender (RFC 8200, 5).
    link::set_mtu(net.ns("host"), "u0", NARROW)?;
    let to = SocketAddr::new(net.addr("ext", Family::V4), ctx.marker);
    let sink = UdpSink::bind(net.ns("ext"), to)?;
    let probe = UdpProbe::connect(net.ns("w0"), to)?;
    probe.set_oversized(Oversized::Fragment)?;
    let payload: Vec<u8> = (0..LONG).map(|at| (at / 7) as u8).collect();
    probe.send(&payload)?;
    let arrived = sink.receive(ctx.patience(2_000)).map(|(bytes, _)| bytes == payload);
    ctx.equal("fragments that are cut again are put together", arrived, Some(true));
    drop((sink, probe));
    Trip::control(ctx, "w0", "ext").passes(ctx, &testbed, &[&watch])
}
