//! What passes between the host runner and the guest agent, and nothing else.
//!
//! The crate has no I/O: [`frame`] turns messages into bytes and survives any bytes that come back,
//! [`message`] names the messages, the other modules are the vocabulary that both sides share.

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
pub mod shell;
pub mod version;

pub use attach::{AttachRecord, AttachRequest, AttachType, DeviceKind, Hook, LinkKind};
pub use capability::{Capability, CapabilityReport, CapabilityState};
pub use cell::{CatalogueRow, CellId, CellInfo, Listing};
pub use message::{AgentMessage, HostMessage, PROTOCOL_VERSION};
pub use outcome::{CellReport, Check, ErrorKind, FailureKind, Outcome, SkipReason};
pub use version::KernelVersion;
