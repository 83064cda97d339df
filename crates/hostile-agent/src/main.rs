//! An agent that attacks its host. It boots like the lab's agent and lists attacks as cells: when the host requests a
//! cell, the agent runs the attack instead of a case.

mod attacks;
#[path = "../../../guest-agent/src/modules.rs"]
#[expect(dead_code, reason = "only the agent takes another one's place")]
mod modules;
#[path = "../../../guest-agent/src/port.rs"]
#[expect(dead_code, reason = "only the agent asks whether it is in a guest")]
mod port;

use lab_protocol::{
    AgentMessage, CellInfo, CellReport, HostMessage, KernelVersion, Listing, Outcome, PROTOCOL_VERSION,
    frame::{self, Decoder},
};
use nix::{
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    process::ExitCode,
};

/// A cell's own deadline, milliseconds. It ends endless attacks that nothing else ends.
const DEADLINE_MS: u32 = 1000;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        // On any error the machine powers off: the error cannot be reported.
        let _ = live();
        let _ = reboot(RebootMode::RB_AUTOBOOT);
        loop {
            std::thread::park();
        }
    }
    match std::env::args().nth(1).as_deref() {
        Some("--list") => show(&listing()),
        Some("--topologies") => show(&Vec::<u8>::new()),
        _ => ExitCode::from(2),
    }
}

fn listing() -> Listing {
    let cell = |(number, name): (usize, &&str)| CellInfo {
        id: lab_protocol::CellId(format!("X{number:02}-{name}").into()),
        catalogue: format!("X{number:02}"),
        area: "hostile".to_owned(),
        title: "an attack".to_owned(),
        topology: "solo".to_owned(),
        attach: None,
        device: None,
        requires: Vec::new(),
        deadline_ms: DEADLINE_MS,
        work: lab_protocol::Work::Case,
        file: String::new(),
        line: 0,
    };
    Listing {
        protocol: PROTOCOL_VERSION,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        cells: attacks::NAMES.iter().enumerate().map(cell).collect(),
        coverage: Vec::new(),
        mutants: Vec::new(),
        canaries: Vec::new(),
    }
}

fn show(listing: &impl serde::Serialize) -> ExitCode {
    let written = serde_json::to_writer(std::io::stdout().lock(), listing);
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The port to the host, with methods for attacks.
pub struct HostPort {
    port: File,
}

impl HostPort {
    /// Sends a message; ignores errors, since the host may have closed the port.
    pub fn say(&mut self, message: &AgentMessage) -> Option<()> {
        self.raw(&frame::encode(message).ok()?)
    }

    /// Writes bytes without a frame.
    pub fn raw(&mut self, bytes: &[u8]) -> Option<()> {
        self.port.write_all(bytes).ok()
    }
}

fn live() -> Option<()> {
    for (source, target, kind) in [("dev", "/dev", "devtmpfs"), ("proc", "/proc", "proc"), ("sys", "/sys", "sysfs")] {
        fs::create_dir_all(target).ok()?;
        // The kernel may have mounted it already.
        let _ = mount(Some(source), target, Some(kind), MsFlags::empty(), None::<&str>);
    }
    modules::load_all();
    let mut port = port::open(lab_protocol::message::PORT_NAME).ok()?;
    let mut host = HostPort { port: port.try_clone().ok()? };
    let uts = nix::sys::utsname::uname().ok()?;
    let (release, version) = (uts.release().to_string_lossy(), uts.version().to_string_lossy());
    let hello = |nonce| {
        Some(AgentMessage::Hello {
            protocol: PROTOCOL_VERSION,
            nonce,
            agent: "1".to_owned(),
            release: release.clone().into_owned(),
            version: version.clone().into_owned(),
            kernel: KernelVersion::from_uname(&release, &version)?,
            boot_ms: 0,
        })
    };
    let probed = AgentMessage::Probed { capabilities: Vec::new(), modules: Vec::new() };
    host.say(&hello(None)?)?;
    let (mut decoder, mut buffer) = (Decoder::new(), [0; 4096]);
    loop {
        while let Some(message) = decoder.next_message::<HostMessage>() {
            match message.ok()? {
                HostMessage::Hello { .. } => host.say(&probed)?,
                HostMessage::Settle => host.say(&AgentMessage::Settled)?,
                HostMessage::Resume { nonce, .. } => {
                    host.say(&hello(Some(nonce))?)?;
                    host.say(&probed)?;
                }
                HostMessage::Run { cells, .. } => {
                    for lab_protocol::CellJob { cell, .. } in &cells {
                        host.say(&AgentMessage::CellStarted { cell: cell.clone() })?;
                        let report = CellReport::bare(cell.clone(), Outcome::Passed);
                        let report = attacks::act(&mut host, cell, report)?;
                        host.say(&AgentMessage::CellFinished { report: Box::new(report) })?;
                    }
                    host.say(&AgentMessage::Done { ran: u32::try_from(cells.len()).unwrap_or(0) })?;
                }
                HostMessage::Shutdown => {
                    host.say(&AgentMessage::Farewell { left: Vec::new() })?;
                    return Some(());
                }
                _ => {}
            }
        }
        match port.read(&mut buffer).ok()? {
            // The host is not connected.
            0 => std::thread::sleep(std::time::Duration::from_millis(5)),
            count => decoder.feed(&buffer[..count]),
        }
    }
}
