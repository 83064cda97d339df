//! The interface of code that talks to a guest without running cells.

use lab_protocol::{AgentMessage, HostMessage};
use std::{ops::ControlFlow, time::Duration};

/// Why a visitor gives a guest up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VisitError {
    /// The guest did not deliver in time.
    #[error("no {what} within {limit:.0?}")]
    Overdue {
        /// What was waited for.
        what: &'static str,
        /// The visitor's deadline.
        limit: Duration,
    },
}

/// Talks to a guest that is up and probed. Used by one thread.
pub trait Visitor {
    /// The first message. `time_scale` is the factor for all deadlines in the guest, `now_unix_ns` the time to set its
    /// clock to.
    fn begin(&self, time_scale: f32, now_unix_ns: u64) -> HostMessage;

    /// Messages to send now, or `Break` to end the session. Called every few milliseconds.
    ///
    /// # Errors
    /// Why the guest is given up.
    fn say(&self) -> Result<ControlFlow<(), Vec<HostMessage>>, VisitError>;

    /// Handles a message of the guest; `Break` ends the session.
    fn hear(&self, message: AgentMessage) -> ControlFlow<()>;
}
