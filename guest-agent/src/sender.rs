//! Sends messages to the host: one writer for the port.

use crate::error::AgentError;
use lab_harness::unpoisoned;
use lab_protocol::{AgentMessage, CellId, frame, message::HEARTBEAT_MS};
use std::{
    fs::File,
    io::Write,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// `CLOCK_BOOTTIME`, milliseconds.
pub fn boottime_ms() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(0, |now| Duration::from(now).as_millis() as u64)
}

/// The writing half of the port, shared by the session, the heartbeat and a shell.
#[derive(Clone)]
pub struct Sender {
    port: Arc<Mutex<File>>,
    current: Arc<Mutex<Option<CellId>>>,
}

impl Sender {
    /// The writing half of this port.
    pub fn new(port: File) -> Self {
        Self { port: Arc::new(Mutex::new(port)), current: Arc::default() }
    }

    /// Sends one message to the host.
    ///
    /// # Errors
    /// The port is gone, or the message is larger than a frame may be.
    pub fn send(&self, message: &AgentMessage) -> Result<(), AgentError> {
        let bytes = frame::encode(message)?;
        let mut port = unpoisoned(self.port.lock());
        port.write_all(&bytes).map_err(AgentError::Port)
    }

    /// Keeps other threads from sending until it is dropped.
    pub fn hold(&self) -> MutexGuard<'_, File> {
        unpoisoned(self.port.lock())
    }

    /// Reports splats of the kernel log, if there are any.
    pub fn report(&self, splats: &str) -> Result<(), AgentError> {
        if splats.is_empty() { Ok(()) } else { self.send(&AgentMessage::KernelLog { text: splats.to_owned() }) }
    }

    /// Sets the cell that heartbeats report.
    pub fn set_current(&self, cell: Option<CellId>) {
        *unpoisoned(self.current.lock()) = cell;
    }

    /// Sends heartbeats from a separate thread, so that a case that blocks until its deadline is not taken for a
    /// hung guest.
    pub fn start_heartbeat(&self) {
        let sender = self.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(HEARTBEAT_MS));
                let cell = unpoisoned(sender.current.lock()).clone();
                if sender.send(&AgentMessage::Heartbeat { uptime_ms: boottime_ms(), cell }).is_err() {
                    return;
                }
            }
        });
    }
}
