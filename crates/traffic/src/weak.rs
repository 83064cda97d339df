//! Deliberate weaknesses of the meters: each takes away something that a meter is there to notice. `lab mutants` turns them on
//! one by one, and a case must fail for each.
//!
//! None is on unless a host asks for a mutant by name, and only for the length of one cell.

use std::sync::{PoisonError, RwLock};

/// What a meter does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    /// "Nothing arrives" holds without waiting.
    NoWindow,
    /// Silent flows are not looked at again.
    NoLateLook,
    /// The sockets of a silent flow are closed unread when their namespace is needed.
    RoomUnread,
    /// Answers from any address count.
    AnyAnswerer,
    /// Datagrams count whatever is in them.
    UdpDamageUnseen,
    /// A TCP stream counts as intact whatever is in it.
    TcpDamageUnseen,
    /// Errnos of UDP sockets are dropped.
    ErrorsUnheard,
    /// Echo replies of any identifier count.
    AnyEcho,
    /// A stream has lost nothing.
    LossUnseen,
    /// A flow is complete with one answer.
    OneIsAll,
    /// A flow is complete although packets arrived twice.
    CopiesUnseen,
    /// A flow that could not be sent counts as tried.
    UnsentIsTried,
    /// A flow is silent although the server got its packets.
    DeliveredIsSilent,
    /// A flow is silent although its answers came back.
    ReturnedIsSilent,
    /// The first source is not recorded.
    SourceUnseen,
}

static NOW: RwLock<Option<Weakness>> = RwLock::new(None);

/// Turns a weakness on, or whichever is on off.
pub fn weaken(weakness: Option<Weakness>) {
    *NOW.write().unwrap_or_else(PoisonError::into_inner) = weakness;
}

/// Whether this one is on.
pub(crate) fn has(weakness: Weakness) -> bool {
    *NOW.read().unwrap_or_else(PoisonError::into_inner) == Some(weakness)
}
