//! Makes an account of what was attached: from the events that the witness's programs wrote, and from the kernel's lists of what is
//! attached at the begin and at the end.
//!
//! Where to start: [`AttachEvent::decode`] reads an event, [`Book::take`] enters it, [`Book::close`] holds what happened against what
//! is left and gives the account.
//!
//! *Architecture invariant:* no kernel and no I/O. Every byte of an event may be anything.

mod account;
mod book;
mod calls;
mod decode;
mod fault;
#[cfg(test)]
mod fuzz;
mod live;
mod names;
mod netkit;
mod request;
mod standing;
#[cfg(test)]
mod tests;

pub use book::{Book, EndedProgram, ListedAttachment};
pub use calls::{BpfCall, CallFacts, FilterNotice};
pub use decode::{AttachEvent, SeenDevice, SeenProgram, What};
pub use fault::WitnessFault;
pub use names::{Hooked, hook_of_link, hook_of_type};
pub use standing::OnHook;
