//! Traffic that is counted at both hooks of a workload's link, wherever its other end is.

use crate::{
    case::Direction,
    ctx::{Ctx, Stop},
    fault::{WeakCheck, weak},
    flows::EXCHANGES,
    testbed::{AttachedProgram, Spot, Testbed},
};
use lab_bpf::{Config, Program, ProgramKind};
use lab_protocol::AttachRequest;
use lab_topology::Family;
use lab_traffic::{Flow, FlowReport, Proto};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Counting programs on both hooks of one workload's link.
pub struct HookCounters<'b> {
    /// Sees packets from the workload.
    pub outgoing: Arc<Program>,
    /// Sees packets to the workload.
    pub incoming: Arc<Program>,
    _attachments: [AttachedProgram<'b>; 2],
}

/// Counts of a [`HookCounters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Marked packets from the workload.
    pub from: u64,
    /// Marked packets to the workload.
    pub to: u64,
}

impl<'b> HookCounters<'b> {
    /// Attaches by the variant's attach type; packets are counted by the cell's marker.
    pub fn new(ctx: &mut Ctx, testbed: &'b Testbed, at: Spot, attach: AttachRequest) -> Result<Self, Stop> {
        let marker = ctx.marker;
        Self::marking(ctx, testbed, at, attach, marker)
    }

    /// As above, for a port that is set by the topology instead of the cell.
    pub fn marking(
        ctx: &mut Ctx,
        testbed: &'b Testbed,
        at: Spot,
        attach: AttachRequest,
        marker: u16,
    ) -> Result<Self, Stop> {
        let mut counting = |direction| {
            let program = testbed.load(ctx, at, ProgramKind::Count, Config::new(marker))?;
            let attachment = testbed.attach(ctx, at, attach, direction, &program)?;
            Ok::<_, Stop>((program, attachment))
        };
        let (outgoing, first) = counting(Direction::FromWorkload)?;
        let (incoming, second) = counting(Direction::ToWorkload)?;
        Ok(Self { outgoing, incoming, _attachments: [first, second] })
    }

    /// Marked packets so far.
    pub fn counted(&self) -> Result<Counted, Stop> {
        Ok(Counted { from: self.outgoing.stats()?.marked, to: self.incoming.stats()?.marked })
    }
}

/// Client, server, and how addresses are translated between them.
#[derive(Clone, Copy)]
pub struct Trip<'a> {
    /// Node of the client.
    pub from: &'a str,
    /// Node of the server.
    pub to: &'a str,
    /// The server's port, and the ICMP identifier.
    pub marker: u16,
    /// Protocols of the trip.
    pub protos: &'a [Proto],
    /// Destination of the client's packets; by default the server's first address.
    pub dial: Option<[SocketAddr; 2]>,
    /// The server's address, if it is not its node's first one.
    pub listen: Option<[IpAddr; 2]>,
    /// The client's address as the server sees it; by default the client's first address.
    pub source: Option<[IpAddr; 2]>,
}

impl<'a> Trip<'a> {
    /// ICMP, UDP and TCP between two nodes' first addresses, without translation.
    pub fn new(ctx: &Ctx, from: &'a str, to: &'a str) -> Self {
        Self { from, to, marker: ctx.marker, protos: &Proto::ALL, dial: None, listen: None, source: None }
    }

    /// UDP only: the positive control of a case that tests something else.
    pub fn control(ctx: &Ctx, from: &'a str, to: &'a str) -> Self {
        Self { protos: &[Proto::Udp], ..Self::new(ctx, from, to) }
    }

    /// One flow of the trip.
    pub fn flow(&self, ctx: &Ctx, testbed: &Testbed, proto: Proto, family: Family) -> FlowReport {
        ctx.watch(&testbed.net, [self.from, self.to]);
        let at = family as usize;
        let addr = self.listen.map_or_else(|| testbed.net.addr(self.to, family), |listen| listen[at]);
        let dial = self.dial.map_or(SocketAddr::new(addr, self.marker), |dial| dial[at]);
        let (from, to) = (testbed.net.ns(self.from), testbed.net.ns(self.to));
        Flow { from, to, addr, proto, marker: self.marker }.run_to(dial, EXCHANGES, ctx.patience(2_000))
    }

    /// Checks that every protocol passes in both families, that the server sees the right client address, and that
    /// every watched link carried exactly the packets of both directions: every packet has an answer.
    ///
    /// # Errors
    /// Counters can't be read.
    pub fn passes(&self, ctx: &mut Ctx, testbed: &Testbed, watches: &[&HookCounters<'_>]) -> Result<(), Stop> {
        for &proto in self.protos {
            for family in Family::available().iter().copied() {
                self.one_passes(ctx, testbed, watches, proto, family)?;
            }
        }
        Ok(())
    }

    fn one_passes(
        &self,
        ctx: &mut Ctx,
        testbed: &Testbed,
        watches: &[&HookCounters<'_>],
        proto: Proto,
        family: Family,
    ) -> Result<(), Stop> {
        let before = watches.iter().map(|watch| watch.counted()).collect::<Result<Vec<_>, _>>()?;
        let report = self.flow(ctx, testbed, proto, family);
        let what = format!("{proto} over {family} from {} to {}", self.from, self.to);
        if !ctx.check(format!("{what} passes"), report.complete(), &report) {
            return Ok(());
        }
        let source = self.source.map_or_else(|| testbed.net.addr(self.from, family), |source| source[family as usize]);
        ctx.equal(format!("{what}: client address that the server sees"), report.source_seen, Some(source));
        for (watch, before) in watches.iter().zip(before) {
            let now = watch.counted()?;
            let seen = Counted { from: now.from - before.from, to: now.to - before.to };
            let name = format!("{what}: packets that the programs counted");
            let wanted = u64::from(EXCHANGES);
            if weak(WeakCheck::TripUncounted) {
                continue;
            }
            match proto {
                Proto::Icmp | Proto::Udp => ctx.equal(name, seen, Counted { from: wanted, to: wanted }),
                // A conversation has at least a handshake, data and an end in each direction.
                Proto::Tcp => ctx.check(name, seen.from >= 3 && seen.to >= 3, format!("{seen:?}")),
            };
        }
        Ok(())
    }
}
