//! The interface of code that talks to a guest without running cells.

use lab_protocol::{AgentMessage, HostMessage};
use std::ops::ControlFlow;

/// Talks to a guest that is up and probed. Used by one thread.
pub trait Visitor {
    /// The first message. `time_scale` is the factor for all deadlines in the guest, `now_unix_ns` the time to set its
    /// clock to.
    fn begin(&self, time_scale: f32, now_unix_ns: u64) -> HostMessage;

    /// Messages to send now, or `Break` to end the session. Called every few milliseconds.
    ///
    /// # Errors
    /// One line: why the guest is given up, for example because a deadline has passed.
    fn say(&self) -> Result<ControlFlow<(), Vec<HostMessage>>, String>;

    /// Handles a message of the guest; `Break` ends the session.
    fn hear(&self, message: AgentMessage) -> ControlFlow<()>;
}
