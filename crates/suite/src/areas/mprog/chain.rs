//! One multi-program hook and the calls that change it.

use lab_bpf::{BpfError, BpfLink, Mprog, Query, raw, raw::RawProgram};
use lab_harness::{
    case::{Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, Testbed, hook},
};
use lab_protocol::{AttachRequest, AttachType, Hook};
use std::os::fd::AsFd;

/// A multi-program hook on the workload's link.
pub struct Chain {
    pub testbed: Testbed,
    /// The request of the variant.
    pub request: AttachRequest,
    pub hook: Hook,
    /// Index of the device by which the hook is accessed.
    pub ifindex: u32,
}

impl Chain {
    /// The hook of a variant, on its own topology; the direction is from the workload if the variant has none.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn new(ctx: &Ctx, variant: &Variant) -> Result<Self, Stop> {
        let testbed = ctx.testbed()?;
        let attach_type = match variant.attach() {
            AttachRequest::Netkit => AttachType::Netkit,
            _ => AttachType::Tcx,
        };
        let ifindex = testbed.ifindex(P0);
        let request = variant.attach();
        Ok(Self {
            testbed,
            request,
            hook: hook(attach_type, variant.direction.unwrap_or(Direction::FromWorkload)),
            ifindex,
        })
    }

    /// `BPF_LINK_CREATE`.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn link(&self, program: &(impl AsFd + Sync), options: &Mprog<'_>) -> Result<BpfLink, BpfError> {
        self.testbed.run(P0, || lab_bpf::attach_link(self.hook, self.ifindex, program, options))
    }

    /// `BPF_PROG_ATTACH`.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach(&self, program: &(impl AsFd + Sync), options: &Mprog<'_>) -> Result<(), BpfError> {
        self.testbed.run(P0, || lab_bpf::attach_prog(self.hook, self.ifindex, program, options))
    }

    /// Reports a program without counters as the kernel lists it.
    ///
    /// # Errors
    /// The kernel refuses the query.
    pub fn report(&self, ctx: &mut Ctx, prog_id: u32) -> Result<(), Stop> {
        self.testbed.report(ctx, P0, self.request, prog_id, None)
    }

    /// `BPF_PROG_QUERY`.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn query(&self) -> Result<Query, BpfError> {
        self.testbed.run(P0, || lab_bpf::query(self.hook, self.ifindex))
    }

    /// `BPF_PROG_DETACH`, by program or by position.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn detach(&self, program: Option<&(impl AsFd + Sync)>, options: &Mprog<'_>) -> Result<(), BpfError> {
        let program = program.map(AsFd::as_fd);
        self.testbed.run(P0, || lab_bpf::detach_prog(self.hook, self.ifindex, program, options))
    }

    /// The program ids on the hook, in order.
    ///
    /// # Errors
    /// Those of [`Chain::query`].
    pub fn order(&self) -> Result<Vec<u32>, BpfError> {
        Ok(self.query()?.prog_ids())
    }
}

/// A program that returns UNSPEC.
///
/// # Errors
/// The verifier refuses it.
pub fn next() -> Result<RawProgram, BpfError> {
    raw::minimal(raw::BPF_PROG_TYPE_SCHED_CLS, 0, -1)
}
