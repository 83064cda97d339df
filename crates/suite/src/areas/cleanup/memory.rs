//! Memory that no list has: packets that a program drops, and namespaces, are freed.

use lab_bpf::{Config, Mprog, ProgramKind};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    slab::SlabCache,
    testbed::{P0, Testbed},
    variants,
};
use lab_protocol::LinkKind;
use lab_topology::{Family, Netns, library};
use lab_traffic::Proto;
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

/// In the order in which they run.
pub const CASES: &[Case] = &[DROPPED_PACKETS_ARE_FREED, NAMESPACES_ARE_FREED];

/// Packets per way to drop them: many times what else happens in the guest at the time.
const SENT: u64 = 200;
/// Of these, at most so many may be in use for other reasons.
const OTHERS: u64 = SENT / 4;
const SHOT: i32 = 2;

/// Sends datagrams from one node to another; the kernel may report a drop.
fn send(testbed: &Testbed, from: &str, to: SocketAddr) -> Result<(), Stop> {
    let socket = testbed.net.ns(from).run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    for _ in 0..SENT {
        socket.send_to(b"dropped", to)?;
    }
    Ok(())
}

/// Objects in use, once the kernel has freed what earlier work left for later: two readings agree.
fn in_use(ctx: &Ctx, cache: SlabCache) -> Result<u64, Stop> {
    let mut last = cache.used()?;
    ctx.wait_until(500, || {
        let before = std::mem::replace(&mut last, cache.used()?);
        Ok(before == last)
    })?;
    Ok(last)
}

const DROPPED_PACKETS_ARE_FREED: Case = Case::new(
    "X09",
    "dropped-packets-are-freed",
    "Packets that a program drops, redirects to nowhere or hands to bpf_redirect_peer on a hook that can't leave no memory in use.",
    dropped_packets_are_freed,
)
.on(library::PAIR)
.over(variants::usual_hooks);
fn dropped_packets_are_freed(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    /// No device has it.
    const NOWHERE: u32 = 4_000;
    let testbed = ctx.testbed()?;
    let (from, to) = variant.direction().ends("pod", "host");
    let to = SocketAddr::new(testbed.net.addr(to, Family::V4), ctx.marker);
    let dropping = Config { verdict: SHOT, ..Config::new(ctx.marker) };
    let astray = Config { target_ifindex: NOWHERE, ..Config::new(ctx.marker) };
    // At tc ingress the packet comes back to the sender, who is not its receiver; at the other hooks the helper's caller drops it.
    let into_peer = Config { target_ifindex: testbed.ifindex(P0), ..Config::new(ctx.marker) };
    for (how, kind, config) in [
        ("SHOT", ProgramKind::Count, dropping),
        ("bpf_redirect to no device", ProgramKind::Redirect, astray),
        ("bpf_redirect_peer", ProgramKind::RedirectPeer, into_peer),
    ] {
        let program = testbed.load(ctx, P0, kind, config)?;
        let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
        let before = in_use(ctx, SlabCache::Packets)?;
        send(&testbed, from, to)?;
        ctx.becomes(format!("{how}: packets at the program"), SENT, || Ok(program.stats()?.marked))?;
        let mut kept = 0;
        let freed = ctx.wait_until(1_000, || {
            kept = SlabCache::Packets.used()?.saturating_sub(before);
            Ok(kept <= OTHERS)
        })?;
        ctx.check(format!("{how}: packets are freed"), freed, format!("{kept} of {SENT} are in use"));
        attachment.detach()?;
    }
    // The same count finds packets that wait in a socket.
    let socket = testbed.net.ns(if from == "pod" { "host" } else { "pod" }).run(|| UdpSocket::bind(to))?;
    let before = in_use(ctx, SlabCache::Packets)?;
    send(&testbed, from, to)?;
    let mut kept = 0;
    let held = ctx.wait_until(2_000, || {
        kept = SlabCache::Packets.used()?.saturating_sub(before);
        Ok(kept > SENT - OTHERS)
    })?;
    ctx.check("packets that wait in a socket are counted", held, format!("{kept} of {SENT} are in use"));
    drop(socket);
    Ok(())
}

const NAMESPACES_ARE_FREED: Case = Case::new(
    "X10",
    "namespaces-are-freed",
    "The kernel frees namespaces whose devices had programs and traffic: nothing holds them once they are deleted.",
    namespaces_are_freed,
)
.on(library::PAIR)
.over(|| variants::link_mechanisms().into_iter().filter(|variant| variant.device() != LinkKind::NetkitL2).collect())
.within(30_000);
/// Waits for one more pass of the kernel's clean-up of namespaces, which frees what the last one has left.
fn clean_up() -> Result<(), Stop> {
    /// It takes about as long.
    const CLEANUP: Duration = Duration::from_millis(50);
    drop(Netns::new("last")?);
    thread::sleep(CLEANUP);
    Ok(())
}

/// Namespaces in use, once a pass of the clean-up has freed none of those that earlier cells have left.
fn namespaces_in_use(ctx: &Ctx) -> Result<u64, Stop> {
    let mut last = SlabCache::Namespaces.used()?;
    ctx.wait_until(3_000, || {
        clean_up()?;
        let before = std::mem::replace(&mut last, SlabCache::Namespaces.used()?);
        Ok(last >= before)
    })?;
    Ok(last)
}

fn namespaces_are_freed(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    /// With two namespaces each; fewer than the rounds may stay for other reasons ([`SlabCache::Namespaces`]).
    const ROUNDS: u64 = 6;
    let reported = ctx.testbed()?;
    let program = reported.counter(ctx, P0)?;
    let attachment = reported.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    reported.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    let before = namespaces_in_use(ctx)?;
    let mut held = Vec::new();
    for _ in 0..ROUNDS {
        let testbed = ctx.testbed()?;
        let program = testbed.counter(ctx, P0)?;
        let ifindex = testbed.ifindex(P0);
        let hook = attachment.hook;
        let link = testbed.run(P0, || lab_bpf::attach_link(hook, ifindex, &*program, &Mprog::default()))?;
        testbed.flow_passes(ctx, "pod", "host", Proto::Tcp, Family::V4);
        held.push((testbed, link));
    }
    let all = SlabCache::Namespaces.used()?.saturating_sub(before);
    ctx.check("namespaces in use are counted", all >= ROUNDS, format!("{all} of {}", 2 * ROUNDS));
    drop(held);
    let mut kept = 0;
    let freed = ctx.wait_until(3_000, || {
        clean_up()?;
        kept = SlabCache::Namespaces.used()?.saturating_sub(before);
        Ok(kept < ROUNDS)
    })?;
    ctx.check("namespaces are freed", freed, format!("{kept} of {} are in use", 2 * ROUNDS));
    Ok(())
}
