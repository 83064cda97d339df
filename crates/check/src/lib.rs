//! What `lab check` asks of an eBPF object ([`CheckOrder`]), what the loader in a guest answers ([`FactLine`]), and what is made
//! of the answers: classes of failure, unmet expectations, findings.
//!
//! Where to start: [`CheckFacts`] is everything that is known of one object on one kernel; [`classify`] says why a load failed;
//! [`unmet`] holds the facts against the expectations; [`findings`] compares hooks and kernels.
//!
//! *Architecture invariant:* no I/O. The host and the loader in the guest use the same code.

#![warn(missing_docs)]

mod btf;
mod capture;
mod changes;
mod class;
mod code;
mod elf;
mod expect;
mod facts;
mod fault;
mod finding;
mod flow;
#[cfg(test)]
mod fuzz;
mod hint;
mod kfuncs;
mod loader;
mod order;
mod packet;
mod predict;
mod relocation;
mod sections;

pub use capture::{CaptureError, MAX_CAPTURE, MAX_PACKETS, captured};
pub use changes::{CheckChange, changes};
pub use class::{LOCKED, LoadClass, Named, classify, explain, failed_program, failure};
pub use code::ObjectCode;
pub use elf::{ElfError, ElfObject, ElfProgram, Kfunc, MAX_OBJECT, inspect};
pub use expect::unmet;
pub use facts::{
    AttachFact, CheckFacts, CounterFact, CounterPlace, FactLine, Fate, HookFact, LoadAttempt, LoadFact, MAX_LINE,
    PacketFact, ProgramFact, RunFact, VerifierStats,
};
pub use fault::CheckFault;
pub use finding::{OnKernel, findings};
pub use hint::ifindex_keys;
pub use loader::{LIBBPF, loaders_differ};
pub use order::{
    CheckExpectation, CheckLoader, CheckMap, CheckOrder, CheckPacket, CheckSlot, Expected, HOOKS, InnerMap, MapEntries,
    MapShape, OBJECT_WORD, hook_named,
};
pub use packet::{PacketError, bytes_of_hex, frame};
pub use predict::{KernelTypes, Prediction};

/// Instructions that the verifier looks at, at most (`BPF_COMPLEXITY_LIMIT_INSNS`, include/linux/bpf_verifier.h).
pub const INSN_LIMIT: u32 = 1_000_000;
