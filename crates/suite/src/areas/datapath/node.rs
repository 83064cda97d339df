//! A node that runs the miniature datapath: its workloads, their programs, and traffic through services.
//!
//! The workloads send with complete checksums, so that every receiver verifies the packets that the datapath rewrote. Where they
//! leave that to their device ([`DatapathNode::offloading`]), the node's devices complete them.

use lab_bpf::datapath::{
    Counters, Datapath, FROM_WORKLOAD, Mechanism, TO_WORKLOAD, WorkloadPrograms, WorkloadRule, fault,
};
use lab_harness::{
    case::Direction,
    ctx::{Ctx, Stop},
    detect,
    fault::Fault,
    flows::{self, EXCHANGES},
    testbed::{Handle, MprogCall, P0, P1, Spot, Testbed, attach_hook, hook},
};
use lab_protocol::{AttachRequest, AttachType, Capability};
use lab_topology::{Family, ethtool::send_checksummed, link};
use lab_traffic::{Flow, Path, Proto, UdpOptions, tcp_exchange, udp_exchange};
use nix::errno::Errno;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// The first workload's slot of the jump map; 0 is the forwarding program's.
const FIRST_SLOT: u32 = 1;
/// Time for one exchange, milliseconds on a fast guest.
const EXCHANGE_MS: u64 = 1_000;

/// A workload: its node, the node's end of its link, and its slot of the jump map.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// The workload's own namespace.
    pub name: &'static str,
    /// The node's end of its link.
    pub at: Spot,
    slot: u32,
}

/// The first workload of every topology.
pub const W0: Workload = Workload { name: "w0", at: P0, slot: FIRST_SLOT };
/// The second.
pub const W1: Workload = Workload { name: "w1", at: P1, slot: FIRST_SLOT + 1 };
/// The third, of the topology `mixed`.
pub const W2: Workload = Workload { name: "w2", at: Spot { node: "host", dev: "p2" }, slot: FIRST_SLOT + 2 };

/// The address of the service, outside of the networks of all topologies.
pub fn service_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 96, 0, 10]),
        Family::V6 => IpAddr::from([0xfd96, 0, 0, 0, 0, 0, 0, 10]),
    }
}

/// A testbed whose node has the datapath's maps; [`DatapathNode::attach`] adds the programs.
pub struct DatapathNode {
    pub testbed: Testbed,
    pub datapath: Arc<Datapath>,
    workloads: Vec<Workload>,
}

/// A mechanism that is attached to a workload.
pub struct Attached {
    pub programs: WorkloadPrograms,
    handles: Vec<Handle>,
}

/// What every case with a [`DatapathNode`] needs. Interpreted, programs of this depth that call each other by tail calls
/// share a stack that is too small for them (docs/findings.md): the kernel crashes.
pub const NEEDS: &[Capability] = &[Capability::BpfJit];

/// How the maps of the datapath name a direction.
const fn key(direction: Direction) -> u32 {
    match direction {
        Direction::FromWorkload => FROM_WORKLOAD,
        Direction::ToWorkload => TO_WORKLOAD,
    }
}

impl DatapathNode {
    /// The two workloads of a topology that has these only.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn pods(ctx: &Ctx) -> Result<Self, Stop> {
        Self::build(ctx, &[W0, W1])
    }

    /// The same, whose workloads send packets without a complete checksum (`CHECKSUM_PARTIAL`), as is usual for virtual devices.
    /// The node completes it when it sends to a workload, which then verifies what the datapath made of it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn offloading(ctx: &Ctx) -> Result<Self, Stop> {
        let node = Self::unsummed(ctx, &[W0, W1])?;
        for workload in &node.workloads {
            send_checksummed(node.testbed.net.ns(workload.at.node), workload.at.dev)?;
        }
        Ok(node)
    }

    /// These workloads of the topology that the case declares.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn build(ctx: &Ctx, workloads: &[Workload]) -> Result<Self, Stop> {
        let node = Self::unsummed(ctx, workloads)?;
        for workload in &node.workloads {
            send_checksummed(node.testbed.net.ns(workload.name), "eth0")?;
        }
        Ok(node)
    }

    /// These workloads, of which neither they nor the node completes checksums: nobody verifies them.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn unsummed(ctx: &Ctx, workloads: &[Workload]) -> Result<Self, Stop> {
        ctx.declared(Capability::BpfJit)?;
        let testbed = ctx.testbed()?;
        let built_in = match ctx.fault {
            Some(Fault::Datapath(number)) => number,
            _ => fault::NONE,
        };
        let datapath = Arc::new(Datapath::new(&ctx.datapath, built_in)?);
        let mut workloads = workloads.to_vec();
        for workload in &mut workloads {
            if ctx.fault == Some(Fault::SharedSlot) {
                workload.slot = FIRST_SLOT;
            }
            let addresses = Family::ALL.map(|family| testbed.net.addr(workload.name, family));
            datapath.register(testbed.ifindex(workload.at), &addresses)?;
        }
        Ok(Self { testbed, datapath, workloads })
    }

    /// A jump map for a mechanism, with the forwarding program in it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn mechanism(&self, attach_type: AttachType) -> Result<Mechanism, Stop> {
        Ok(self.datapath.mechanism(attach_type)?)
    }

    /// A jump map for a mechanism that is used in addition to another one.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn mechanism_beside(&self, ctx: &Ctx, other: &Mechanism, attach_type: AttachType) -> Result<Mechanism, Stop> {
        if ctx.fault == Some(Fault::SharedJump) {
            return Ok(self.datapath.mechanism_sharing(attach_type, other)?);
        }
        self.mechanism(attach_type)
    }

    /// The attach type that a request resolves to on a workload's device.
    ///
    /// # Errors
    /// The kernel refuses the query.
    pub fn attach_type(&self, ctx: &Ctx, workload: Workload, request: AttachRequest) -> Result<AttachType, Stop> {
        Ok(match request {
            AttachRequest::Tc => AttachType::Tc,
            AttachRequest::Tcx => AttachType::Tcx,
            AttachRequest::Netkit => AttachType::Netkit,
            AttachRequest::Auto => {
                let at = workload.at;
                let device = link::detect_kind(self.testbed.net.ns(at.node), self.testbed.ifindex(at))?;
                detect::choose(device, &ctx.capabilities, ctx.fault)
            }
        })
    }

    /// Attaches a request's mechanism to every workload. Dropping the returned values detaches links.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach(&self, ctx: &mut Ctx, request: AttachRequest) -> Result<(Mechanism, Vec<Attached>), Stop> {
        let mechanism = self.mechanism(self.attach_type(ctx, self.workloads[0], request)?)?;
        let attached = self.attach_by(ctx, &mechanism, request)?;
        Ok((mechanism, attached))
    }

    /// Attaches a mechanism's programs to every workload.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_by(
        &self,
        ctx: &mut Ctx,
        mechanism: &Mechanism,
        request: AttachRequest,
    ) -> Result<Vec<Attached>, Stop> {
        self.workloads.iter().map(|workload| self.attach_one(ctx, mechanism, *workload, request)).collect()
    }

    /// Attaches a mechanism's programs to both directions of one workload's device, and reports the attachments that
    /// the kernel lists.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_one(
        &self,
        ctx: &mut Ctx,
        mechanism: &Mechanism,
        workload: Workload,
        request: AttachRequest,
    ) -> Result<Attached, Stop> {
        let slot = self.workloads.iter().find(|known| known.name == workload.name).map_or(workload.slot, |it| it.slot);
        let ifindex = self.testbed.ifindex(workload.at);
        let programs = self.datapath.workload(mechanism, ifindex, slot)?;
        let ends = [(Direction::FromWorkload, &programs.from), (Direction::ToWorkload, &programs.to)];
        let mut handles = Vec::new();
        for (direction, program) in ends {
            let hook = hook(mechanism.attach_type(), direction);
            handles.push(self.testbed.run(workload.at, || attach_hook(hook, ifindex, program, MprogCall::Link))?);
            let record = self.testbed.record(workload.at, request, program.id)?;
            ctx.watch_link(&self.testbed.net, workload.at.node, workload.at.dev);
            let datapath = self.datapath.clone();
            let meter = move || datapath.counters(ifindex, key(direction)).map(|counters| counters.entered);
            ctx.report_metered(record, Some(Box::new(meter)));
        }
        Ok(Attached { programs, handles })
    }

    /// Detaches a mechanism's programs from a workload's device.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn detach(&self, attached: Attached) -> Result<(), Stop> {
        for handle in attached.handles {
            match handle {
                Handle::Filter(filter) => filter.detach()?,
                Handle::Link(link) => link.detach()?,
                Handle::Prog => return Err(Stop::check("the datapath attaches by link or filter")),
            }
        }
        Ok(())
    }

    /// A workload's counters in one direction.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn counters(&self, workload: Workload, direction: Direction) -> Result<Counters, Stop> {
        Ok(self.datapath.counters(self.testbed.ifindex(workload.at), key(direction))?)
    }

    /// A rule for one direction of a workload's packets: for everything or for one IP protocol and destination port, and for a network
    /// on the other side.
    pub fn rule(
        &self,
        workload: Workload,
        direction: Direction,
        service: Option<(u8, u16)>,
        remote: IpAddr,
        prefix: u32,
    ) -> WorkloadRule {
        let host_ifindex = self.testbed.ifindex(workload.at);
        WorkloadRule { host_ifindex, direction: key(direction), service, remote, prefix }
    }

    /// Maps the service's addresses to a workload, for UDP and TCP, with the cell's marker as port.
    ///
    /// # Errors
    /// The map can't be written.
    pub fn serve(&self, ctx: &Ctx, backend: &str) -> Result<(), Stop> {
        for family in Family::available().iter().copied() {
            let path = self.path(ctx, backend, backend, family);
            for protocol in [6, 17] {
                self.datapath.set_service(protocol, path.dial, path.listen)?;
            }
        }
        Ok(())
    }

    /// From a workload to the service, behind which a backend listens. The ports differ too.
    pub fn path(&self, ctx: &Ctx, from: &str, backend: &str, family: Family) -> Path<'_> {
        let net = &self.testbed.net;
        Path {
            from: net.ns(from),
            to: net.ns(backend),
            dial: SocketAddr::new(service_address(family), ctx.marker),
            listen: SocketAddr::new(net.addr(backend, family), ctx.marker ^ 1),
        }
    }

    /// Checks that UDP and TCP pass from a workload to the service in both families, that each answer has the
    /// service's address, and that the backend sees the client address `seen_as`.
    ///
    /// # Errors
    /// The counters can't be read.
    pub fn service_passes(
        &self,
        ctx: &mut Ctx,
        from: Workload,
        backend: &str,
        seen_as: impl Fn(Family) -> IpAddr,
    ) -> Result<(), Stop> {
        for family in Family::available().iter().copied() {
            let path = self.path(ctx, from.name, backend, family);
            let before = self.counters(from, Direction::FromWorkload)?;
            let report = udp_exchange(path, EXCHANGES.into(), UdpOptions::default(), ctx.patience(EXCHANGE_MS));
            let name = format!("UDP over {family} from {} to the service", from.name);
            let answered = report.echoed == u32::from(EXCHANGES);
            let seen = report.answers(path.dial);
            ctx.require(&format!("{name}: answered by the service"), answered, seen)?;
            ctx.equal(format!("{name}: client address"), report.source_seen, Some(seen_as(family)));
            let after = self.counters(from, Direction::FromWorkload)?;
            // To itself a workload sends both the requests and the answers.
            let sent = u64::from(EXCHANGES) * if from.name == backend { 2 } else { 1 };
            ctx.equal(format!("{name}: packets translated"), after.translated - before.translated, sent);

            let bytes = u64::from(EXCHANGES) * Flow::TCP_BLOCK;
            let report = tcp_exchange(path, bytes, ctx.patience(EXCHANGE_MS));
            let name = format!("TCP over {family} from {} to the service", from.name);
            let whole = report.content_ok && report.bytes_echoed == bytes;
            ctx.require(&format!("{name}: the content is returned"), whole, report.to_string())?;
            ctx.equal(format!("{name}: client address"), report.source_seen, Some(seen_as(family)));
        }
        Ok(())
    }

    /// Checks that a flow passes, and ends the case otherwise: if the datapath passes nothing, every further flow
    /// would wait for its deadline.
    ///
    /// # Errors
    /// The flow does not pass.
    pub fn passes(&self, ctx: &mut Ctx, from: &str, to: &str, proto: Proto, family: Family) -> Result<(), Stop> {
        if self.testbed.flow_passes(ctx, from, to, proto, family) {
            return Ok(());
        }
        Err(Stop::check(format!("{proto} over {family} does not pass from {from} to {to}")))
    }

    /// [`DatapathNode::passes`] for all protocols and families.
    ///
    /// # Errors
    /// The first flow that does not pass.
    pub fn all_pass(&self, ctx: &mut Ctx, from: &str, to: &str) -> Result<(), Stop> {
        flows::all().try_for_each(|(proto, family)| self.passes(ctx, from, to, proto, family))
    }

    /// Checks that a flow passes from one workload to another, and that every stage of both workloads' programs counted
    /// exactly the packets that the sockets sent. For TCP the kernel chooses the number of packets.
    ///
    /// # Errors
    /// The counters can't be read.
    pub fn passes_counted(
        &self,
        ctx: &mut Ctx,
        from: Workload,
        to: Workload,
        proto: Proto,
        family: Family,
    ) -> Result<(), Stop> {
        let ends = [(from, Direction::FromWorkload), (to, Direction::ToWorkload)];
        let before = self.all_counters(&ends)?;
        self.passes(ctx, from.name, to.name, proto, family)?;
        let after = self.all_counters(&ends)?;
        for (((workload, direction), before), after) in ends.iter().zip(before).zip(after) {
            let entered = after.entered - before.entered;
            let what = format!("{} {}, {proto} over {family}", workload.name, direction.name());
            if proto == Proto::Tcp {
                ctx.check(format!("{what}: packets"), entered >= 3, entered);
            } else {
                ctx.equal(format!("{what}: packets"), entered, u64::from(EXCHANGES));
            }
            let redirected = if *direction == Direction::FromWorkload { entered } else { 0 };
            let stages = (
                after.judged - before.judged,
                after.forwarded - before.forwarded,
                after.redirected - before.redirected,
            );
            ctx.equal(format!("{what}: judged, forwarded, redirected"), stages, (entered, entered, redirected));
        }
        Ok(())
    }

    fn all_counters(&self, ends: &[(Workload, Direction)]) -> Result<Vec<Counters>, Stop> {
        ends.iter().map(|(workload, direction)| self.counters(*workload, *direction)).collect()
    }
}

/// The errno of a closed port.
pub const REFUSED: i32 = Errno::ECONNREFUSED as i32;
/// The errno of a packet whose time to live ran out.
pub const EXPIRED: i32 = Errno::EHOSTUNREACH as i32;
