//! Who is taken to a guest for something else than cells.

use lab_protocol::{AgentMessage, HostMessage};
use std::ops::ControlFlow;

/// Who talks to a guest once it is up and probed. One thread does.
pub trait Visitor {
    /// The first word. `time_scale` is the factor on every deadline in the guest, `now_unix_ns` the clock for it.
    fn begin(&self, time_scale: f32, now_unix_ns: u64) -> HostMessage;

    /// What is to be said now; breaks off where the visit is over. Asked every few milliseconds.
    ///
    /// # Errors
    /// One line why the guest is given up: it takes too long, say.
    fn say(&self) -> Result<ControlFlow<(), Vec<HostMessage>>, String>;

    /// Takes what the guest says; breaks off when the visit is over.
    fn hear(&self, message: AgentMessage) -> ControlFlow<()>;
}
