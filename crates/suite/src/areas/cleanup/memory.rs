//! Memory of packets: what a program drops is freed.

use lab_bpf::{Config, ProgramKind};
use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
    slab::SlabCache,
    testbed::{P0, Testbed},
    variants,
};
use lab_topology::{Family, library};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

/// In the order in which they run.
pub const CASES: &[Case] = &[DROPPED_PACKETS_ARE_FREED];

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
        let before = SlabCache::Packets.used()?;
        send(&testbed, from, to)?;
        ctx.equal(format!("{how}: packets at the program"), program.stats()?.marked, SENT);
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
    let before = SlabCache::Packets.used()?;
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
