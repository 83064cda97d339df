//! Deliberate faults (mutants): each is a mistake that developers of a datapath could make, and the suite must detect
//! it.

use lab_protocol::{Capability, CellId, cell::MutantInfo};

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
    /// One of [`lab_bpf::datapath::fault`], in every program of the miniature datapath.
    Datapath(u32),
}

/// Maximum factor for deadlines while a fault is built in or after a case has failed: a failing check waits for its
/// whole deadline, a passing one only for a fraction of it.
pub const MUTANT_TIME_SCALE: f32 = 2.5;

/// A fault, and the cells that must detect it.
#[derive(Debug)]
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
        }
    }
}
