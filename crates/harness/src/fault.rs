//! Deliberate faults (mutants): each is a mistake that developers of a datapath could make, and the suite must detect
//! it.

use lab_protocol::{Capability, CellId, cell::MutantInfo};
use lab_traffic::Weakness;
use lab_witness::WitnessFault;
use std::sync::{PoisonError, RwLock};

/// A fault that is built into the harness or into the miniature datapath.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `auto` uses tcx on netkit devices too.
    AutoTcx,
    /// Programs are attached to the hook of the other direction.
    OtherDirection,
    /// A detached link stays attached.
    LinkStays,
    /// Pins are not removed.
    PinStays,
    /// Programs of all mechanisms share one jump map.
    SharedJump,
    /// The policies of two workloads use the same slot.
    SharedSlot,
    /// A detached filter stays attached.
    FilterStays,
    /// A program that was attached without a link stays attached.
    ProgramStays,
    /// Attaching a program takes more than a second.
    SlowAttach,
    /// One of [`lab_bpf::datapath::fault`], in every program of the miniature datapath.
    Datapath(u32),
    /// A check of the harness notices less than it is there for.
    Check(WeakCheck),
    /// A traffic meter notices less than it is there for.
    Meter(Weakness),
    /// The witness sees less than it is there for: only runs that it watches can notice that.
    Witness(WitnessFault),
}

/// What a check of the harness does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeakCheck {
    /// All values are equal.
    AllEqual,
    /// Any errno is the wanted one.
    AnyErrno,
    /// A success counts as a refusal.
    SuccessIsRefusal,
    /// Failed checks are not recorded.
    FailureForgotten,
    /// A case goes on after a condition that does not hold.
    RequireGoesOn,
    /// A condition holds when the time for it is over.
    TimeoutIsTrue,
    /// A condition is asked once.
    AskedOnce,
    /// Failed clean-up is ignored.
    CleanupIgnored,
    /// A case without checks passes.
    NoChecksPass,
    /// A case that does not build its topology passes.
    UnbuiltPasses,
    /// Late packets are not part of the report.
    LateIgnored,
    /// A skip hides the checks that failed before it.
    SkipHidesFailure,
    /// Every program that was attached has run.
    RunInvented,
    /// The report has the requested attach type as the used one.
    RequestCopied,
    /// The report has whatever program the kernel lists first.
    AnyProgram,
    /// The report has no link.
    LinkUnseen,
    /// The report has the hook of the other direction.
    HookMirrored,
    /// A flow passes in one direction.
    OneWayPasses,
    /// The source that the receiver sees is not compared.
    AnySource,
    /// Flows that were never sent count as dropped.
    UnsentIsDropped,
    /// Of several flows, only the first must be dropped.
    FirstIsAll,
    /// Programs may count more packets than were sent.
    CountedMore,
    /// Programs may count fewer packets than were sent.
    CountedLess,
    /// TCP packets are not counted.
    TcpUncounted,
    /// Packets of routed flows are not counted.
    TripUncounted,
    /// Leaked objects of this kind are not listed.
    LeaksUnseen(&'static str),
}

static NOW: RwLock<Option<WeakCheck>> = RwLock::new(None);

/// Whether a check has this weakness now.
pub(crate) fn weak(check: WeakCheck) -> bool {
    *NOW.read().unwrap_or_else(PoisonError::into_inner) == Some(check)
}

/// A fault of helpers that have no context to ask, built in until it is dropped: for one cell.
pub(crate) struct BuiltIn(());

impl BuiltIn {
    pub fn of(fault: Option<Fault>) -> Self {
        let (check, meter) = match fault {
            Some(Fault::Check(check)) => (Some(check), None),
            Some(Fault::Meter(weakness)) => (None, Some(weakness)),
            _ => (None, None),
        };
        *NOW.write().unwrap_or_else(PoisonError::into_inner) = check;
        lab_traffic::weaken(meter);
        Self(())
    }
}

impl Drop for BuiltIn {
    fn drop(&mut self) {
        *NOW.write().unwrap_or_else(PoisonError::into_inner) = None;
        lab_traffic::weaken(None);
    }
}

/// Maximum factor for deadlines while a fault is built in or after a case has failed: a failing check waits for its
/// whole deadline, a passing one only for a fraction of it.
pub const MUTANT_TIME_SCALE: f32 = 2.5;

/// A fault, and the cells that must detect it.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// Unique name: `lab mutants NAME`.
    pub name: &'static str,
    /// What the harness or the eBPF programs do wrong.
    pub fault: Fault,
    /// Description of the fault.
    pub breaks: &'static str,
    /// Cells that run with the fault; at least one must fail. There are few, since each failing cell waits for its
    /// deadline.
    pub noticed_by: &'static [&'static str],
    /// Capabilities without which the fault has no effect.
    pub needs: &'static [Capability],
}

impl Mutant {
    /// Information for the host.
    pub fn info(&self) -> MutantInfo {
        MutantInfo {
            name: self.name.into(),
            breaks: self.breaks.into(),
            noticed_by: self.noticed_by.iter().map(|id| CellId((*id).into())).collect(),
            needs: self.needs.to_vec(),
            of_witness: matches!(self.fault, Fault::Witness(_)),
            slows: self.fault == Fault::SlowAttach,
        }
    }
}
