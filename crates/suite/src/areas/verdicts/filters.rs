//! Chains of clsact filters, and the effect of a drop on TCP.

use lab_bpf::{Config, Program, ProgramKind, TcFilter, TcOptions};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{AttachedProgram, P0, Testbed},
    variants,
};
use lab_protocol::AttachRequest;
use lab_topology::{Family, library};
use lab_traffic::{Path, Proto, SILENCE_WINDOW, repeated_syns, tcp_exchange};
use nix::errno::Errno;
use std::{sync::Arc, time::Duration};

const DROP: i32 = 2;
/// Time limit of a connect that is dropped; includes creating both ends.
const HANDSHAKE: Duration = SILENCE_WINDOW.saturating_mul(4);

/// EtherTypes, include/uapi/linux/if_ether.h.
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

/// In the order in which they run.
pub const CASES: &[Case] = &[TCP_MEETS_A_DROP, FILTER_CHAIN, ONE_PROTOCOL, CHOSEN_PRIORITY];

const TCP_MEETS_A_DROP: Case = Case::new(
    "V09",
    "tcp-meets-a-drop",
    "A dropped TCP handshake gives no errno before the deadline, whereas a closed port refuses at once.",
    tcp_meets_a_drop,
)
.on(library::PAIR)
.over(variants::usual_hooks);
fn tcp_meets_a_drop(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (from, to) = variant.direction().ends("pod", "host");
    let program = testbed.load(ctx, P0, ProgramKind::Count, Config { verdict: DROP, ..Config::new(ctx.marker) })?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    let marker = ctx.marker;
    let path = |family| Path::direct(testbed.net.ns(from), testbed.net.ns(to), testbed.net.addr(to, family), marker);
    // Both families at once: neither may succeed in this time.
    let reports = std::thread::scope(|scope| {
        let start = |family: &Family| {
            let family = *family;
            scope.spawn(move || tcp_exchange(path(family), 1, HANDSHAKE))
        };
        // All of them, before the first one is waited for.
        let threads: Vec<_> = Family::available().iter().map(start).collect();
        let reports =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        reports.collect::<Vec<_>>()
    });
    for (family, report) in Family::available().iter().copied().zip(reports) {
        ctx.equal(format!("connected through a drop ({family})"), report.connected, false);
        ctx.equal(format!("errno of the connect ({family})"), report.errno, None);
    }
    // In a guest that has just been restored the first packet may take longer than the silence is listened to. One is
    // sent again only where the guest stood still for a second, and the sender's kernel counts it. The sockets are closed.
    let handshakes = Family::available().len() as u64;
    ctx.wait_until(2_000, || Ok(program.stats()?.marked >= handshakes))?;
    let repeated = repeated_syns(testbed.net.ns(from))?;
    ctx.equal("SYNs that the program dropped", program.stats()?.marked, handshakes + repeated);
    attachment.detach()?;
    // The port is closed, so connecting fails at once.
    let mut closed = path(Family::V4);
    closed.dial.set_port(marker ^ 1);
    let refused = tcp_exchange(closed, 1, ctx.patience(2_000));
    ctx.equal("errno of a connect to a closed port", refused.errno, Some(Errno::ECONNREFUSED as i32));
    testbed.flow_passes(ctx, from, to, Proto::Tcp, Family::V4);
    Ok(())
}

/// A filter before the observed one, with this verdict for marked packets.
fn ahead(
    ctx: &Ctx,
    testbed: &Testbed,
    direction: Direction,
    verdict: i32,
    direct_action: bool,
) -> Result<(TcFilter, Arc<Program>), Stop> {
    let program = testbed.load(ctx, P0, ProgramKind::Count, Config { verdict, ..Config::new(ctx.marker) })?;
    let options = TcOptions { priority: 1, handle: 7, direct_action, ..TcOptions::default() };
    let filter = testbed.filter(P0, direction, &program, options)?;
    Ok((filter, program))
}

/// A filter behind all others, and its program.
fn behind<'b>(
    ctx: &mut Ctx,
    testbed: &'b Testbed,
    variant: &Variant,
) -> Result<(Arc<Program>, AttachedProgram<'b>), Stop> {
    let program = testbed.counter(ctx, P0)?;
    let attached = testbed.attach_behind(ctx, P0, AttachRequest::Tc, variant.direction(), &program)?;
    Ok((program, attached))
}

const FILTER_CHAIN: Case = Case::new(
    "V12",
    "filter-chain",
    "Filters run by priority, newest first; UNSPEC, PIPE and RECLASSIFY continue, OK and SHOT end; without direct action 0 continues.",
    filter_chain,
)
.on(library::PAIR)
.over(variants::tc_hooks);
fn filter_chain(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (from, to) = variant.direction().ends("pod", "host");
    let (last, _last) = behind(ctx, &testbed, variant)?;
    // Behind the first one in the same priority: a classifier keeps its newest filter first (cls_bpf_change()).
    let beside = testbed.counter(ctx, P0)?;
    let older = TcOptions { priority: 1, handle: 3, ..TcOptions::default() };
    let _beside = testbed.filter(P0, variant.direction(), &beside, older)?;
    // The verdict of the first filter, whether it uses direct action, whether the packet passes, whether the filters
    // behind it run.
    for (name, verdict, direct, passes, goes_on) in [
        ("UNSPEC", -1, true, true, true),
        ("PIPE", 3, true, true, true),
        ("RECLASSIFY", 1, true, true, true),
        ("OK", 0, true, true, false),
        ("SHOT", DROP, true, false, false),
        ("class 0, not direct", 0, false, true, true),
        ("class 2, not direct", DROP, false, true, false),
    ] {
        let (filter, first) = ahead(ctx, &testbed, variant.direction(), verdict, direct)?;
        let before = (beside.stats()?.marked, last.stats()?.marked);
        let report = match passes {
            true => testbed.flow(ctx, from, to, Proto::Udp, Family::V4),
            false => testbed.silence(ctx, from, to, Proto::Udp, Family::V4),
        };
        let ended = if passes { report.complete() } else { report.lost() };
        ctx.check(format!("{name}: the packet {}", if passes { "passes" } else { "is dropped" }), ended, &report);
        let counts = || Ok([first.stats()?.marked, beside.stats()?.marked - before.0, last.stats()?.marked - before.1]);
        let wanted = u64::from(report.wanted);
        let behind = if goes_on { wanted } else { 0 };
        let what = format!("{name}: packets at the filter, behind it in its priority, and in the next");
        ctx.becomes(what, [wanted, behind, behind], counts)?;
        filter.detach()?;
    }
    let listed = testbed.observe(P0)?.len();
    ctx.equal("filters left", listed, 2);
    Ok(())
}

const ONE_PROTOCOL: Case = Case::new(
    "V23",
    "filter-of-one-protocol",
    "A filter for one protocol sees the packets of this protocol alone, and the filter behind it sees all.",
    one_protocol,
)
.on(library::PAIR)
.over(variants::tc_hooks);
fn one_protocol(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (from, to) = variant.direction().ends("pod", "host");
    let (last, _last) = behind(ctx, &testbed, variant)?;
    for (protocol, wanted) in [(ETH_P_IP, Family::V4), (ETH_P_IPV6, Family::V6)] {
        let first = testbed.counter(ctx, P0)?;
        let options = TcOptions { priority: 1, protocol, ..TcOptions::default() };
        let filter = testbed.filter(P0, variant.direction(), &first, options)?;
        for family in Family::available().iter().copied() {
            let before = (first.stats()?.marked, last.stats()?.marked);
            let report = testbed.flow(ctx, from, to, Proto::Udp, family);
            ctx.check(format!("{family} passes a filter for {wanted}"), report.complete(), &report);
            let sent = u64::from(report.wanted);
            let counts = || Ok([first.stats()?.marked - before.0, last.stats()?.marked - before.1]);
            let what = format!("packets of {family} at a filter for {wanted}, and behind it");
            ctx.becomes(what, [if family == wanted { sent } else { 0 }, sent], counts)?;
        }
        filter.detach()?;
    }
    Ok(())
}

const CHOSEN_PRIORITY: Case = Case::new(
    "V25",
    "chosen-priority",
    "Filters without a priority get 0xc000 and downwards from the kernel, so that the newest of them runs first.",
    chosen_priority,
)
.on(library::PAIR)
.over(variants::tc_hooks);
fn chosen_priority(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    /// `tcf_auto_prio()`, net/sched/cls_api.c.
    const FIRST: u16 = 0xc000;
    let testbed = ctx.testbed()?;
    let ifindex = testbed.ifindex(P0);
    let (from, to) = variant.direction().ends("pod", "host");
    let mut programs = Vec::new();
    for _ in 0..3 {
        let program = testbed.counter(ctx, P0)?;
        let any = TcOptions { priority: 0, ..TcOptions::default() };
        testbed.filter(P0, variant.direction(), &program, any)?;
        testbed.report(ctx, P0, AttachRequest::Tc, program.id(), Some(program.clone()))?;
        programs.push(program);
    }
    let listed = testbed.run(P0, || lab_bpf::filters(ifindex))?;
    let listed: Vec<_> = listed.iter().map(|filter| (filter.priority, filter.prog_id)).collect();
    let newest_first = programs.iter().rev();
    let wanted: Vec<_> = (FIRST - 2..=FIRST).zip(newest_first.clone().map(|program| program.id())).collect();
    ctx.equal("priorities and programs", listed, wanted);
    testbed.flow_passes(ctx, from, to, Proto::Udp, Family::V4);
    let ran: Vec<u64> = newest_first.map(|program| Ok(program.stats()?.last.time_ns)).collect::<Result<_, Stop>>()?;
    ctx.check("the newest runs first", ran.is_sorted(), format!("{ran:?}"));
    // A filter is deleted by its priority, and these know only the 0 that was asked for.
    testbed.run(P0, || lab_bpf::clsact_del(ifindex))?;
    Ok(())
}
