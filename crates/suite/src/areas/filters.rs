//! Chains of clsact filters, and what TCP makes of a drop.

use crate::{
    bench::{Bench, P0},
    case::{Area, Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    variants,
};
use lab_bpf::{Config, Program, ProgramKind, TcFilter, TcOptions};
use lab_protocol::AttachRequest;
use lab_topology::Family;
use lab_traffic::{Path, Proto, SILENCE_WINDOW, tcp_exchange};
use nix::errno::Errno;
use std::{sync::Arc, time::Duration};

const DROP: i32 = 2;
/// What a connect that meets a drop is given: the time of making both ends is in it.
const HANDSHAKE: Duration = SILENCE_WINDOW.saturating_mul(4);

pub const CASES: &[Case] = &[
    Case::new(
        "V09",
        "tcp-meets-a-drop",
        Area::Verdicts,
        "pair",
        "A dropped TCP handshake is silence, not a reset: no errno before the deadline, where a closed port refuses.",
        tcp_meets_a_drop,
    )
    .over(variants::usual_hooks),
    Case::new(
        "V12",
        "filter-chain",
        Area::Verdicts,
        "pair",
        "Filters run by priority; UNSPEC, PIPE and RECLASSIFY go on, OK and SHOT end; without direct action 0 goes on.",
        filter_chain,
    )
    .over(variants::tc_hooks),
];

fn tcp_meets_a_drop(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let (from, to) = variant.direction().ends("pod", "host");
    let program = bench.load(ctx, P0, ProgramKind::Count, Config { verdict: DROP, ..Config::new(ctx.marker) })?;
    let attachment = bench.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    let marker = ctx.marker;
    let path = |family| Path::direct(bench.net.ns(from), bench.net.ns(to), bench.net.addr(to, family), marker);
    // Both families at once: nothing comes of either in this time.
    let reports = std::thread::scope(|scope| {
        let threads = Family::ALL.map(|family| scope.spawn(move || tcp_exchange(path(family), 1, HANDSHAKE)));
        threads.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    for (family, report) in Family::ALL.into_iter().zip(reports) {
        ctx.equal(format!("connected through a drop ({family})"), report.connected, false);
        ctx.equal(format!("errno of the connect ({family})"), report.errno, None);
    }
    // In a guest that has just been restored the first packet may take longer than the silence is listened to. Neither is
    // sent again within its time: the first repetition of a SYN comes after a second (TCP_TIMEOUT_INIT).
    let handshakes = Family::ALL.len() as u64;
    ctx.wait_until(2_000, || Ok(program.stats()?.marked >= handshakes))?;
    let met = program.stats()?.marked;
    ctx.equal("handshakes that the program dropped", met, handshakes);
    attachment.detach()?;
    // Nobody listens behind this port, and that is heard at once.
    let mut closed = path(Family::V4);
    closed.dial.set_port(marker ^ 1);
    let refused = tcp_exchange(closed, 1, ctx.patience(2_000));
    ctx.equal("errno of a connect to a closed port", refused.errno, Some(Errno::ECONNREFUSED as i32));
    bench.flow_passes(ctx, from, to, Proto::Tcp, Family::V4);
    Ok(())
}

/// A filter in front of the one under observation, with this verdict for marked packets.
fn ahead(
    ctx: &Ctx,
    bench: &Bench,
    direction: Direction,
    verdict: i32,
    direct_action: bool,
) -> Result<(TcFilter, Arc<Program>), Stop> {
    let program = bench.load(ctx, P0, ProgramKind::Count, Config { verdict, ..Config::new(ctx.marker) })?;
    let options = TcOptions { priority: 1, handle: 7, direct_action };
    let filter = bench.filter(P0, direction, &program, options)?;
    Ok((filter, program))
}

fn filter_chain(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let (from, to) = variant.direction().ends("pod", "host");
    let last = bench.counter(ctx, P0)?;
    let behind = TcOptions { priority: 9, handle: 9, direct_action: true };
    let _last = bench.filter(P0, variant.direction(), &last, behind)?;
    bench.report(ctx, P0, AttachRequest::Tc, last.id(), Some(last.clone()))?;
    // The verdict of the first filter, whether it is direct, whether the packet passes, whether it met the second.
    for (name, verdict, direct, passes, goes_on) in [
        ("UNSPEC", -1, true, true, true),
        ("PIPE", 3, true, true, true),
        ("RECLASSIFY", 1, true, true, true),
        ("OK", 0, true, true, false),
        ("SHOT", DROP, true, false, false),
        ("class 0, not direct", 0, false, true, true),
        ("class 2, not direct", DROP, false, true, false),
    ] {
        let (filter, first) = ahead(ctx, &bench, variant.direction(), verdict, direct)?;
        let before = last.stats()?.marked;
        let report = match passes {
            true => bench.flow(ctx, from, to, Proto::Udp, Family::V4),
            false => bench.silence(ctx, from, to, Proto::Udp, Family::V4),
        };
        let ended = if passes { report.complete() } else { report.tried() && report.silent() };
        ctx.check(format!("{name}: the packet {}", if passes { "passes" } else { "is dropped" }), ended, &report);
        let counts = (first.stats()?.marked, last.stats()?.marked - before);
        let wanted = u64::from(report.wanted);
        ctx.equal(
            format!("{name}: packets at the first and the second"),
            counts,
            (wanted, if goes_on { wanted } else { 0 }),
        );
        filter.detach()?;
    }
    let listed = bench.observe(P0)?.len();
    ctx.equal("filters left", listed, 1);
    Ok(())
}
