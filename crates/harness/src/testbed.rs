//! The testbed of a case: a built topology with methods to load and attach programs.

use crate::{
    case::Direction,
    ctx::{AsErrno, Ctx, Stop},
    detect,
    fault::{Fault, WeakCheck, weak},
};
use lab_bpf::{BpfError, BpfLink, Config, LoadOptions, Mprog, Observed, Program, ProgramKind, TcFilter, TcOptions};
use lab_netlink::NetlinkError;
use lab_protocol::{AttachRecord, AttachRequest, AttachType, Hook};
use lab_topology::{Net, Netns, Topology, link};
use nix::errno::Errno;
use std::{os::fd::AsFd, sync::Arc, time::Duration};

/// A device in its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// Node of the topology, whose namespace the device is in.
    pub node: &'static str,
    /// Name of the device, as the topology declares it.
    pub dev: &'static str,
}

/// The node's end of the first workload's link, in every topology with workloads.
pub const P0: Spot = Spot { node: "host", dev: "p0" };
/// The node's end of the second workload's link.
pub const P1: Spot = Spot { node: "host", dev: "p1" };

/// How long attaching takes with [`Fault::SlowAttach`].
const SLOW: Duration = Duration::from_millis(1_500);

/// `expected_attach_type` 0 is valid for every hook. If it is set explicitly, the loader does not read the kernel's BTF
/// for each program, which takes a tenth of a second and more under emulation.
pub const UNTYPED: LoadOptions<'static> = LoadOptions { expected_attach_type: Some(0), jump: None };

/// A built topology.
pub struct Testbed {
    /// The namespaces and devices.
    pub net: Arc<Net>,
}

impl Testbed {
    /// Builds a topology. Cases get theirs from [`Ctx::testbed`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn build(topology: &Topology) -> Result<Self, Stop> {
        Ok(Self { net: Arc::new(Net::build(topology)?) })
    }

    /// Index of a device in its node.
    pub fn ifindex(&self, at: Spot) -> u32 {
        self.net.ifindex(at.node, at.dev)
    }

    /// Loads a program with its device's index in a global variable, as Felix does, since `skb->ifindex` differs
    /// between netkit's hooks.
    ///
    /// # Errors
    /// The verifier's error.
    pub fn load(&self, ctx: &Ctx, at: Spot, kind: ProgramKind, config: Config) -> Result<Arc<Program>, Stop> {
        let config = Config { host_ifindex: self.ifindex(at), ..config };
        Ok(Arc::new(ctx.programs.load(kind, &config, &UNTYPED)?))
    }

    /// Loads the counting program, which returns UNSPEC for every packet.
    ///
    /// # Errors
    /// Like [`Testbed::load`].
    pub fn counter(&self, ctx: &Ctx, at: Spot) -> Result<Arc<Program>, Stop> {
        self.load(ctx, at, ProgramKind::Count, Config::new(ctx.marker))
    }

    /// Attaches as requested, and reports the attachment that the kernel then lists.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach(
        &self,
        ctx: &mut Ctx,
        at: Spot,
        request: AttachRequest,
        direction: Direction,
        program: &Arc<Program>,
    ) -> Result<AttachedProgram<'_>, Stop> {
        self.attach_as(ctx, at, request, direction, program, MprogCall::Link)
    }

    /// Like [`Testbed::attach`], behind the programs that are there: a link is appended, a filter gets a lower priority. One
    /// filter can be attached so.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_behind(
        &self,
        ctx: &mut Ctx,
        at: Spot,
        request: AttachRequest,
        direction: Direction,
        program: &Arc<Program>,
    ) -> Result<AttachedProgram<'_>, Stop> {
        let behind = TcOptions { priority: 9, handle: 9, ..TcOptions::default() };
        self.attach_placed(ctx, at, request, direction, program, (MprogCall::Link, behind))
    }

    /// Like [`Testbed::attach`], by link or by `BPF_PROG_ATTACH`. tc filters have no such choice.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_as(
        &self,
        ctx: &mut Ctx,
        at: Spot,
        request: AttachRequest,
        direction: Direction,
        program: &Arc<Program>,
        how: MprogCall,
    ) -> Result<AttachedProgram<'_>, Stop> {
        self.attach_placed(ctx, at, request, direction, program, (how, TcOptions::default()))
    }

    fn attach_placed(
        &self,
        ctx: &mut Ctx,
        at: Spot,
        request: AttachRequest,
        direction: Direction,
        program: &Arc<Program>,
        (how, place): (MprogCall, TcOptions),
    ) -> Result<AttachedProgram<'_>, Stop> {
        let ifindex = self.ifindex(at);
        let device = link::detect_kind(self.net.ns(at.node), ifindex)?;
        let attach_type = match request {
            AttachRequest::Tc => AttachType::Tc,
            AttachRequest::Tcx => AttachType::Tcx,
            AttachRequest::Netkit => AttachType::Netkit,
            AttachRequest::Auto => detect::choose(device, &ctx.capabilities, ctx.fault),
        };
        let direction = if ctx.fault == Some(Fault::OtherDirection) { direction.other() } else { direction };
        let hook = hook(attach_type, direction);
        if ctx.fault == Some(Fault::SlowAttach) {
            std::thread::sleep(SLOW);
        }
        let handle = self.run(at, || place_on_hook(hook, ifindex, &**program, how, place))?;
        self.report(ctx, at, request, program.id(), Some(program.clone()))?;
        let stays = match handle {
            Handle::Filter(_) => ctx.fault == Some(Fault::FilterStays),
            Handle::Link(_) => ctx.fault == Some(Fault::LinkStays),
            Handle::Prog => ctx.fault == Some(Fault::ProgramStays),
        };
        Ok(AttachedProgram { testbed: self, handle, hook, at, program: program.clone(), stays })
    }

    /// Attaches a clsact filter with the given options; the caller reports it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn filter(
        &self,
        at: Spot,
        direction: Direction,
        program: &Program,
        options: TcOptions,
    ) -> Result<TcFilter, Stop> {
        let ifindex = self.ifindex(at);
        let list = match direction {
            Direction::FromWorkload => lab_bpf::TcDirection::Ingress,
            Direction::ToWorkload => lab_bpf::TcDirection::Egress,
        };
        Ok(self.run(at, || lab_bpf::attach_tc(ifindex, list, program, options))?)
    }

    /// Adds the kernel's information about a program on a device to the report. A program without counters is given by
    /// its id only.
    ///
    /// # Errors
    /// The kernel refuses the query.
    pub fn report(
        &self,
        ctx: &mut Ctx,
        at: Spot,
        requested: AttachRequest,
        prog_id: u32,
        program: Option<Arc<Program>>,
    ) -> Result<(), Stop> {
        let record = self.record(at, requested, prog_id)?;
        ctx.watch_link(&self.net, at.node, at.dev);
        ctx.outlive(&self.net);
        ctx.report_attachment(record, program);
        Ok(())
    }

    /// The attachment of a program on a device, as listed by the kernel.
    ///
    /// # Errors
    /// The kernel refuses the query.
    pub fn record(&self, at: Spot, requested: AttachRequest, prog_id: u32) -> Result<AttachRecord, Stop> {
        record(self.net.ns(at.node), at.dev, requested, prog_id)
    }

    /// The hook at which the kernel lists a program on a device, if any.
    ///
    /// # Errors
    /// The kernel refuses the query.
    pub fn find(&self, at: Spot, program: &Program) -> Result<Option<Observed>, Stop> {
        let ifindex = self.ifindex(at);
        Ok(self.run(at, || lab_bpf::find(ifindex, program.id()))?)
    }

    /// All programs that the kernel lists on a device.
    ///
    /// # Errors
    /// The kernel refuses the query.
    pub fn observe(&self, at: Spot) -> Result<Vec<Observed>, Stop> {
        let ifindex = self.ifindex(at);
        Ok(self.run(at, || lab_bpf::observe(ifindex))?)
    }

    /// Runs `work` in a device's namespace, where its index is valid.
    pub fn run<R: Send>(&self, at: Spot, work: impl FnOnce() -> R + Send) -> R {
        self.net.ns(at.node).run(work)
    }
}

/// [`Testbed::record`] for a device outside of a testbed.
///
/// # Errors
/// The kernel refuses the query.
pub fn record(ns: &Netns, dev: &str, requested: AttachRequest, prog_id: u32) -> Result<AttachRecord, Stop> {
    let info = link::info(ns, dev)?;
    let seen = match weak(WeakCheck::AnyProgram) {
        true => ns.run(|| lab_bpf::observe(info.ifindex))?.first().copied(),
        false => ns.run(|| lab_bpf::find(info.ifindex, prog_id))?,
    };
    let used = seen.map(|seen| seen.hook.attach_type());
    let copied = match requested {
        AttachRequest::Tc => Some(AttachType::Tc),
        AttachRequest::Tcx => Some(AttachType::Tcx),
        AttachRequest::Netkit => Some(AttachType::Netkit),
        AttachRequest::Auto => used,
    };
    Ok(AttachRecord {
        interface: dev.into(),
        device: info.kind,
        requested,
        used: if weak(WeakCheck::RequestCopied) { copied } else { used },
        hook: seen.map(|seen| if weak(WeakCheck::HookMirrored) { mirrored(seen.hook) } else { seen.hook }),
        prog_id,
        link_id: seen.and_then(|seen| seen.link_id).filter(|_| !weak(WeakCheck::LinkUnseen)),
        ran: None,
    })
}

/// How to attach to a multi-program hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MprogCall {
    /// `BPF_LINK_CREATE`.
    Link,
    /// `BPF_PROG_ATTACH`.
    Prog,
}

/// The object that keeps a program attached.
pub enum Handle {
    /// A clsact filter.
    Filter(AttachedFilter),
    /// `BPF_LINK_CREATE`: dropping it detaches.
    Link(BpfLink),
    /// None: a program attached by `BPF_PROG_ATTACH` stays until it is detached or the device is deleted.
    Prog,
}

/// A filter that is detached on drop, like a link. Without that, its program would exist until the namespace is
/// deleted, and the leak check would wait for that.
pub struct AttachedFilter(Option<TcFilter>);

impl AttachedFilter {
    fn new(filter: TcFilter) -> Self {
        Self(Some(filter))
    }

    /// Detaches it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn detach(mut self) -> Result<(), BpfError> {
        self.0.take().map_or(Ok(()), TcFilter::detach)
    }
}

impl Drop for AttachedFilter {
    fn drop(&mut self) {
        // Already detached if the case deleted its device or qdisc.
        _ = self.0.take().map(TcFilter::detach);
    }
}

/// A program on a hook. Dropping it detaches a link or a filter; a program attached without a link stays until its
/// device is deleted.
pub struct AttachedProgram<'b> {
    testbed: &'b Testbed,
    handle: Handle,
    /// The hook that it was attached to.
    pub hook: Hook,
    /// Where it is attached.
    pub at: Spot,
    /// The program that was attached first.
    pub program: Arc<Program>,
    stays: bool,
}

impl AttachedProgram<'_> {
    /// The link, if it is one.
    ///
    /// # Errors
    /// A failed check if it is not a link.
    pub fn link(&self) -> Result<&BpfLink, Stop> {
        match &self.handle {
            Handle::Link(link) => Ok(link),
            _ => Err(Stop::check(format!("{} on {} is not a link", self.hook, self.at.dev))),
        }
    }

    /// The link itself, for cases about its owner.
    ///
    /// # Errors
    /// Like [`AttachedProgram::link`].
    pub fn into_link(self) -> Result<BpfLink, Stop> {
        match self.handle {
            Handle::Link(link) => Ok(link),
            _ => Err(Stop::check(format!("{} on {} is not a link", self.hook, self.at.dev))),
        }
    }

    /// Leaves a filter attached, as after its owner was killed.
    pub fn abandon(mut self) {
        if let Handle::Filter(AttachedFilter(filter)) = &mut self.handle {
            drop(filter.take());
        }
    }

    /// The filter, if it is one.
    ///
    /// # Errors
    /// Like [`AttachedProgram::link`].
    pub fn filter(&mut self) -> Result<&mut TcFilter, Stop> {
        match &mut self.handle {
            Handle::Filter(AttachedFilter(Some(filter))) => Ok(filter),
            _ => Err(Stop::check(format!("{} on {} is not a filter", self.hook, self.at.dev))),
        }
    }

    /// Detaches the program.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn detach(self) -> Result<(), Stop> {
        let ifindex = self.testbed.ifindex(self.at);
        match self.handle {
            Handle::Link(link) if self.stays => std::mem::forget(link),
            Handle::Filter(mut filter) if self.stays => drop(filter.0.take()),
            Handle::Prog if self.stays => {}
            Handle::Filter(filter) => filter.detach()?,
            Handle::Link(link) => link.detach()?,
            Handle::Prog => self.testbed.run(self.at, || {
                lab_bpf::detach_prog(self.hook, ifindex, Some(self.program.as_fd()), &Mprog::default())
            })?,
        }
        Ok(())
    }
}

/// The hook of an attach type that sees packets in this direction.
pub const fn hook(attach_type: AttachType, direction: Direction) -> Hook {
    match (attach_type, direction) {
        (AttachType::Tc, Direction::FromWorkload) => Hook::ClsactIngress,
        (AttachType::Tc, Direction::ToWorkload) => Hook::ClsactEgress,
        (AttachType::Tcx, Direction::FromWorkload) => Hook::TcxIngress,
        (AttachType::Tcx, Direction::ToWorkload) => Hook::TcxEgress,
        // The peer transmits packets from the workload; its programs are also attached through the primary.
        (AttachType::Netkit, Direction::FromWorkload) => Hook::NetkitPeer,
        (AttachType::Netkit, Direction::ToWorkload) => Hook::NetkitPrimary,
    }
}

/// The hook of the same attach type in the other direction.
const fn mirrored(hook: Hook) -> Hook {
    match hook {
        Hook::ClsactIngress => Hook::ClsactEgress,
        Hook::ClsactEgress => Hook::ClsactIngress,
        Hook::TcxIngress => Hook::TcxEgress,
        Hook::TcxEgress => Hook::TcxIngress,
        Hook::NetkitPrimary => Hook::NetkitPeer,
        Hook::NetkitPeer => Hook::NetkitPrimary,
    }
}

/// Attaches a program to a hook of a device of the calling thread's namespace.
pub fn attach_hook(hook: Hook, ifindex: u32, program: &impl AsFd, how: MprogCall) -> Result<Handle, BpfError> {
    place_on_hook(hook, ifindex, program, how, TcOptions::default())
}

fn place_on_hook(
    hook: Hook,
    ifindex: u32,
    program: &impl AsFd,
    how: MprogCall,
    place: TcOptions,
) -> Result<Handle, BpfError> {
    let direction = match hook {
        Hook::ClsactIngress => lab_bpf::TcDirection::Ingress,
        Hook::ClsactEgress => lab_bpf::TcDirection::Egress,
        _ => {
            return match how {
                MprogCall::Link => lab_bpf::attach_link(hook, ifindex, program, &Mprog::default()).map(Handle::Link),
                MprogCall::Prog => {
                    lab_bpf::attach_prog(hook, ifindex, program, &Mprog::default()).map(|()| Handle::Prog)
                }
            };
        }
    };
    lab_bpf::attach_tc(ifindex, direction, program, place).map(|filter| Handle::Filter(AttachedFilter::new(filter)))
}

impl AsErrno for BpfError {
    fn errno(&self) -> Option<Errno> {
        BpfError::errno(self)
    }
}

impl AsErrno for NetlinkError {
    fn errno(&self) -> Option<Errno> {
        NetlinkError::errno(self).map(Errno::from_raw)
    }
}
