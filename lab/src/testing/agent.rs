//! A scripted agent for guests without a virtual machine, used by tests of the run loop and by fault injection.

use crate::run::{deadline::Chosen, timing::Timing};
use lab_protocol::{
    AgentMessage, AttachRequest, AttachType, CellId, CellReport, DeviceKind, HostMessage, PROTOCOL_VERSION,
    frame::{self, Decoder},
};
use lab_record::testing::{attached, passed};
use lab_vm::{Recv, fake::FakeAgent};
use std::time::Duration;

/// A cell with the attach type `auto`.
pub const A: &str = "A01-first[auto,nk-l3]";
/// A cell on tcx.
pub const B: &str = "B02-second[tcx,veth]";
/// A cell on tc.
pub const C: &str = "C03-third[tc,veth]";

/// Deadlines for threads: long enough for a busy machine, short where a test waits for them.
pub fn timing() -> Timing {
    Timing {
        boot: Duration::from_secs(5),
        restore: Duration::from_secs(5),
        silence: Duration::from_secs(5),
        idle: Duration::from_secs(5),
        cell_grace: Duration::from_secs(5),
        shutdown: Duration::from_secs(1),
        evidence: Duration::from_secs(1),
        poll: Duration::from_millis(2),
        floor: Duration::ZERO,
        scale: 1.0,
        chosen: Chosen::default(),
    }
}

/// A correct agent in small steps, so that each test can make one step fail.
pub struct Script<'a> {
    /// The guest's side.
    pub agent: &'a mut FakeAgent,
}

impl Script<'_> {
    /// Sends a message.
    pub fn say(&mut self, message: &AgentMessage) {
        // The host may already have given the guest up, as some tests expect.
        let _ = self.agent.channel().send(&frame::encode(message).unwrap());
    }

    /// Sends Hello with this protocol version.
    pub fn hello(&mut self, protocol: u32) {
        self.hello_to(protocol, None);
    }

    /// Sends Hello with a nonce, as after a restore.
    pub fn hello_to(&mut self, protocol: u32, nonce: Option<u64>) {
        let usual = if self.agent.spec().name.starts_with("6.1-") { "6.1.170" } else { "6.12.43" };
        let kernel = self.agent.kernel().unwrap_or(usual).to_owned();
        self.say(&AgentMessage::Hello {
            protocol,
            nonce,
            agent: "1".to_owned(),
            release: format!("{kernel}-cloud"),
            version: "#1 SMP".to_owned(),
            kernel: kernel.parse().unwrap(),
            boot_ms: 1,
        });
    }

    /// Sends Hello, and returns the cells that the host requests; empty if the guest becomes a snapshot.
    pub fn boot(&mut self) -> Vec<CellId> {
        self.hear(|_| ())
    }

    /// The same, and tells what the host says beside it.
    pub fn hear(&mut self, other: impl FnMut(HostMessage)) -> Vec<CellId> {
        if !self.agent.restored() {
            self.hello(PROTOCOL_VERSION);
        }
        self.more_and(other)
    }

    /// The next cells that the host requests; empty if there are none.
    pub fn more(&mut self) -> Vec<CellId> {
        self.more_and(|_| ())
    }

    /// The same, and tells what the host says beside it.
    pub fn more_and(&mut self, mut other: impl FnMut(HostMessage)) -> Vec<CellId> {
        let mut decoder = Decoder::new();
        let mut buffer = [0; 4096];
        loop {
            match self.agent.channel().recv(&mut buffer, Duration::from_secs(5)).unwrap() {
                Recv::Bytes(count) => decoder.feed(&buffer[..count]),
                Recv::Timeout | Recv::Closed => return Vec::new(),
            }
            while let Some(message) = decoder.next_message::<HostMessage>() {
                match message.unwrap() {
                    HostMessage::Run { cells, .. } => {
                        self.say(&AgentMessage::Probed { capabilities: Vec::new(), modules: Vec::new() });
                        return cells.into_iter().map(|job| job.cell).collect();
                    }
                    HostMessage::Resume { nonce, .. } => self.hello_to(PROTOCOL_VERSION, Some(nonce)),
                    HostMessage::Settle => self.say(&AgentMessage::Settled),
                    message @ (HostMessage::Hello { .. }
                    | HostMessage::Measure(_)
                    | HostMessage::Shell(_)
                    | HostMessage::Input { .. }
                    | HostMessage::Object { .. }
                    | HostMessage::AgentPiece { .. }
                    | HostMessage::StartAgent { .. }
                    | HostMessage::Resize(_)
                    | HostMessage::MapStreams
                    | HostMessage::InputAt { .. }
                    | HostMessage::OutputTaken { .. }
                    | HostMessage::OutputClosed { .. }
                    | HostMessage::Signal { .. }) => other(message),
                    HostMessage::Shutdown => {
                        self.say(&AgentMessage::Farewell { left: Vec::new() });
                        return Vec::new();
                    }
                }
            }
        }
    }

    /// Reports the end of all cells, and powers off on request.
    pub fn end(&mut self, ran: usize) {
        self.done(ran);
        let more = self.more();
        assert!(more.is_empty(), "the script does not run {more:?}");
    }

    /// Starts a cell, on the console and on the port.
    pub fn start(&mut self, cell: &CellId) {
        self.agent.console(&format!("[    1.0] netkit-lab: begin {cell}\n"));
        self.say(&AgentMessage::CellStarted { cell: cell.clone() });
    }

    /// Ends a cell.
    pub fn finish(&mut self, report: CellReport) {
        self.agent.console(&format!("[    1.1] netkit-lab: end {}\n", report.cell));
        self.say(&AgentMessage::CellFinished { report: Box::new(report) });
    }

    /// Runs a cell that passes.
    pub fn pass(&mut self, cell: &CellId) {
        self.start(cell);
        self.finish(good(cell));
    }

    /// Reports the end of all cells.
    pub fn done(&mut self, ran: usize) {
        self.say(&AgentMessage::Done { ran: u32::try_from(ran).unwrap() });
    }

    /// Does nothing until the host gives the guest up.
    pub fn hang(&mut self) {
        let mut buffer = [0; 64];
        while !matches!(self.agent.channel().recv(&mut buffer, Duration::from_secs(60)), Ok(Recv::Closed) | Err(_)) {}
    }
}

/// A report that passes all checks of the host.
pub fn good(cell: &CellId) -> CellReport {
    let record = match cell.as_str() {
        A => attached(AttachRequest::Auto, DeviceKind::NetkitL3, AttachType::Netkit),
        B => attached(AttachRequest::Tcx, DeviceKind::Veth, AttachType::Tcx),
        _ => attached(AttachRequest::Tc, DeviceKind::Veth, AttachType::Tc),
    };
    passed(cell.as_str(), vec![record])
}
