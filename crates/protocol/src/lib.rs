//! The messages between the host runner and the guest agent, and their types.
//! Where to start: [`message`] has the messages and their order, [`cell`] the lists of an agent, [`outcome`] its
//! reports, [`capability`] the capabilities of kernels. [`frame`] encodes messages and decodes arbitrary bytes without
//! failing.
//!
//! *Architecture invariant:* no I/O, and no dependency on another crate of the lab.

#![warn(missing_docs)]

pub mod attach;
pub mod attachment;
mod bytes;
pub mod capability;
pub mod cell;
pub mod complaint;
pub mod drawing;
pub mod frame;
#[cfg(test)]
mod fuzz;
pub mod measure;
pub mod message;
pub mod outcome;
pub mod raw;
pub mod shell;
pub mod version;
pub mod witness;
pub mod work;
pub mod world;

pub use attach::{AttachRecord, AttachRequest, AttachType, DeviceKind, Hook, LinkKind, NotAnAttachType};
pub use capability::{Capability, CapabilityReport, CapabilityState, Since, Stated};
pub use cell::{CatalogueRow, CellId, CellInfo, Listing};
pub use message::{AgentMessage, HostMessage, PROTOCOL_VERSION};
pub use outcome::{CellReport, Check, ErrorKind, FailureKind, Outcome, SkipReason};
pub use raw::Raw;
pub use version::{KernelVersion, NotAVersion};
pub use work::{CellJob, CellProgram, HowEnded, ProgramEnd, Work};
