//! Traffic across a testbed, verified by two independent counts.
//! The first count is that of the sockets: sequence numbers and contents of the received packets. The second count is
//! that of the programs. For ICMP and UDP, which never retransmit here, both must be equal.

use crate::{
    case::Direction,
    ctx::{Ctx, Stop},
    fault::{WeakCheck, weak},
    testbed::Testbed,
};
use lab_bpf::Program;
use lab_topology::Family;
use lab_traffic::{Flow, FlowReport, Path, Proto, SILENCE_WINDOW, StreamReport, UdpStream};
use std::{sync::Arc, time::Duration};

/// Exchanges per flow: enough to distinguish "all" from "some", few enough for an emulated guest.
pub const EXCHANGES: u16 = 3;
/// Time between two datagrams of a stream: short enough for several per attach operation, long enough under emulation.
pub const STREAM_INTERVAL: Duration = Duration::from_millis(4);
/// Time without a datagram of a stream after which missing datagrams count as lost: a busy host may delay the
/// thread that receives.
pub const DRAIN_WINDOW: Duration = SILENCE_WINDOW.saturating_mul(10);
/// Time for one flow, milliseconds on a fast guest.
const FLOW_MS: u64 = 2_000;

/// All protocols in all address families of the machine.
pub fn all() -> impl Iterator<Item = (Proto, Family)> {
    Proto::ALL.into_iter().flat_map(|proto| Family::available().iter().map(move |family| (proto, *family)))
}

impl Testbed {
    /// One flow from one node to another, with the cell's marker.
    pub fn flow(&self, ctx: &Ctx, from: &str, to: &str, proto: Proto, family: Family) -> FlowReport {
        self.between(ctx, from, to, proto, family).run(EXCHANGES, ctx.patience(FLOW_MS))
    }

    /// A flow that is expected to be blocked; it is observed for a short time.
    pub fn silence(&self, ctx: &Ctx, from: &str, to: &str, proto: Proto, family: Family) -> FlowReport {
        Flow::silence(&[self.between(ctx, from, to, proto, family)], EXCHANGES).remove(0)
    }

    /// Observes several blocked flows at the same time.
    pub fn silences<const N: usize>(&self, ctx: &Ctx, flows: [(&str, &str, Proto, Family); N]) -> Vec<FlowReport> {
        let flows = flows.map(|(from, to, proto, family)| self.between(ctx, from, to, proto, family));
        Flow::silence(&flows, EXCHANGES)
    }

    fn between(&self, ctx: &Ctx, from: &str, to: &str, proto: Proto, family: Family) -> Flow<'_> {
        ctx.watch(&self.net, [from, to]);
        ctx.asks_for(family);
        let (from, addr, to) = (self.net.ns(from), self.net.addr(to, family), self.net.ns(to));
        Flow { from, to, addr, proto, marker: ctx.marker }
    }

    /// Checks that ICMP, UDP and TCP pass in both families, and that the receiver sees the sender's own address.
    ///
    /// # Errors
    /// None; a flow that does not pass is a failed check.
    pub fn passes(&self, ctx: &mut Ctx, from: &str, to: &str) -> Result<(), Stop> {
        for (proto, family) in all() {
            self.flow_passes(ctx, from, to, proto, family);
        }
        Ok(())
    }

    /// Checks that one flow passes.
    pub fn flow_passes(&self, ctx: &mut Ctx, from: &str, to: &str, proto: Proto, family: Family) -> bool {
        let report = self.flow(ctx, from, to, proto, family);
        let source = self.net.addr(from, family);
        let name = format!("{proto} over {family} passes from {from} to {to}");
        let complete = report.complete() || weak(WeakCheck::OneWayPasses) && report.delivered == report.wanted;
        ctx.check(name, complete, &report)
            && match report.source_seen {
                Some(_) if weak(WeakCheck::AnySource) => true,
                Some(seen) => ctx.equal(format!("{to} sees the address of {from} ({proto}, {family})"), seen, source),
                None => true,
            }
    }

    /// Checks that nothing passes in either family. Only UDP and ICMP: what blocks UDP also blocks TCP, and waiting
    /// for a timeout of connect would take seconds.
    pub fn blocked(&self, ctx: &mut Ctx, from: &str, to: &str) {
        self.none_pass(
            ctx,
            [
                (from, to, Proto::Udp, Family::V4),
                (from, to, Proto::Icmp, Family::V4),
                (from, to, Proto::Udp, Family::V6),
                (from, to, Proto::Icmp, Family::V6),
            ],
        );
    }

    /// Checks that none of these flows passes.
    pub fn none_pass<const N: usize>(&self, ctx: &mut Ctx, flows: [(&str, &str, Proto, Family); N]) {
        let flows: Vec<_> = flows.into_iter().filter(|(_, _, _, family)| family.is_available()).collect();
        let all: Vec<Flow<'_>> =
            flows.iter().map(|(from, to, proto, family)| self.between(ctx, from, to, *proto, *family)).collect();
        let reports = Flow::silence(&all, EXCHANGES).into_iter().enumerate();
        for ((from, to, proto, family), (at, report)) in flows.into_iter().zip(reports) {
            let unsent = report.silent() && weak(WeakCheck::UnsentIsDropped);
            let ok = report.lost() || unsent || at > 0 && weak(WeakCheck::FirstIsAll);
            ctx.check(format!("no {proto} over {family} from {from} to {to}"), ok, &report);
        }
    }

    /// Starts a one-way stream of numbered datagrams with the cell's marker: what losses are counted by.
    ///
    /// # Errors
    /// Where a socket can't be made.
    pub fn stream(&self, ctx: &Ctx, from: &str, to: &str, family: Family) -> Result<UdpStream, Stop> {
        ctx.asks_for(family);
        let (from, addr, to) = (self.net.ns(from), self.net.addr(to, family), self.net.ns(to));
        Ok(UdpStream::start(Path::direct(from, to, addr, ctx.marker), STREAM_INTERVAL)?)
    }

    /// Asserts that every flow between a workload and another node passes *and* that the program on the workload's
    /// link counted exactly the packets that the sockets sent in its direction.
    ///
    /// # Errors
    /// Where the program's counters can't be read.
    pub fn passes_counted(
        &self,
        ctx: &mut Ctx,
        workload: &str,
        other: &str,
        direction: Direction,
        program: &Arc<Program>,
    ) -> Result<(), Stop> {
        for (proto, family) in all() {
            let before = program.stats()?.marked;
            if !self.flow_passes(ctx, workload, other, proto, family) {
                continue;
            }
            let counted = program.stats()?.marked - before;
            let name = format!(
                "the program counts the packets that the sockets sent ({proto}, {family}, {})",
                direction.name()
            );
            match proto {
                Proto::Icmp | Proto::Udp => {
                    let sent = u64::from(EXCHANGES);
                    let more = counted > sent && weak(WeakCheck::CountedMore);
                    let less = counted < sent && weak(WeakCheck::CountedLess);
                    ctx.equal(name, if more || less { sent } else { counted }, sent)
                }
                // A TCP conversation has at least a handshake, data and an end in each direction.
                Proto::Tcp => ctx.check(name, counted >= 3 || weak(WeakCheck::TcpUncounted), counted),
            };
        }
        Ok(())
    }
}

/// Checks that no datagram of a stream arrived twice, or after a later one.
pub fn in_order(ctx: &mut Ctx, report: &StreamReport) {
    ctx.equal("datagrams that arrived twice, or late", (report.duplicates, report.reordered), (0, 0));
}

/// Waits until nothing of a stream arrives any more: what was delivered before may still lie in the receiver's queue. False if
/// it goes on.
pub fn falls_silent(stream: &UdpStream) -> bool {
    /// A stream that goes on sends a few datagrams in each window.
    const WINDOWS: u32 = 100;
    (0..WINDOWS).any(|_| !stream.wait_received(1, SILENCE_WINDOW))
}

/// Waits until a stream has received a few more datagrams.
///
/// # Errors
/// A failed check if it does not.
pub fn some_traffic(ctx: &Ctx, stream: &UdpStream) -> Result<(), Stop> {
    const DATAGRAMS: u32 = 3;
    match stream.wait_received(DATAGRAMS, ctx.patience(3_000)) {
        true => Ok(()),
        false => Err(Stop::check("the stream makes no progress")),
    }
}
