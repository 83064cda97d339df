//! Deliberate faults: each is a mistake that a datapath team could make, and a suite must detect it.

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
    /// Two workloads' policies get one slot.
    SharedSlot,
    /// One of [`lab_bpf::datapath::fault`], in every program of the miniature datapath.
    Datapath(u32),
}

/// Factor by which deadlines are stretched at most while a fault is built in, and once a case has failed: a check that
/// fails waits for its whole deadline, and one that passes needs a fraction of it.
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
    /// Cells that are run with it: at least one must fail. Few, since each failing one waits for its deadline.
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
