//! The real loop against guests without a machine: what a kernel or an agent can do wrong, in milliseconds.

use super::{dispatch::Run, kernel::Prepared, queue::Isolate, timing::Timing};
use crate::{
    error::{Error, Exit},
    event::{Accelerator, Event, ImageInfo, RunInfo, Stamped, Versions},
    interrupt::Interrupt,
    plan::Plan,
    report::{Reporter, record::RunRecord},
    testing::{attached, cell, facts, passed},
    vm::{
        Recv,
        fake::{FakeAgent, FakeLauncher, specification},
        snapshot::Store,
    },
};
use lab_protocol::{
    AgentMessage, AttachRequest, AttachType, Capability, CellId, CellReport, Check, DeviceKind, FailureKind,
    HostMessage, Outcome, PROTOCOL_VERSION, SkipReason,
    frame::{self, Decoder},
};
use std::{borrow::Cow, fs, path::Path, time::Duration};

mod deaths;
mod host;
mod isolation;
mod port;
mod verdicts;
mod warm;

const A: &str = "A01-first[auto,nk-l3]";
const B: &str = "B02-second[tcx,veth]";
const C: &str = "C03-third[tc,veth]";

/// Deadlines for threads: long enough for a loaded machine, short where the test waits for them to pass.
fn timing() -> Timing {
    Timing {
        boot: Duration::from_secs(5),
        restore: Duration::from_secs(5),
        silence: Duration::from_secs(5),
        idle: Duration::from_secs(5),
        cell_grace: Duration::from_secs(5),
        shutdown: Duration::from_secs(1),
        evidence: Duration::from_secs(1),
        poll: Duration::from_millis(2),
        scale: 1.0,
        chosen: super::deadline::Chosen::default(),
    }
}

/// A well-behaved agent, in pieces, so that each test can spoil one of them.
struct Script<'a> {
    agent: &'a mut FakeAgent,
}

impl Script<'_> {
    fn say(&mut self, message: &AgentMessage) {
        // The host may have given up already, which is what some tests are about.
        let _ = self.agent.channel().send(&frame::encode(message).unwrap());
    }

    fn hello(&mut self, protocol: u32) {
        self.hello_to(protocol, None);
    }

    fn hello_to(&mut self, protocol: u32, nonce: Option<u64>) {
        let kernel = if self.agent.spec().name.starts_with("6.1-") { "6.1.170" } else { "6.12.43" };
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

    /// Hello, and the cells that the host wants; none where the guest becomes a snapshot.
    fn boot(&mut self) -> Vec<CellId> {
        if !self.agent.restored() {
            self.hello(PROTOCOL_VERSION);
        }
        self.more()
    }

    /// The next cells that the host wants; none where it wants no more.
    fn more(&mut self) -> Vec<CellId> {
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
                        return cells;
                    }
                    HostMessage::Resume { nonce, .. } => self.hello_to(PROTOCOL_VERSION, Some(nonce)),
                    HostMessage::Settle => self.say(&AgentMessage::Settled),
                    HostMessage::Hello { .. } => {}
                    HostMessage::Shutdown => return Vec::new(),
                }
            }
        }
    }

    fn start(&mut self, cell: &CellId) {
        self.agent.console(&format!("[    1.0] netkit-lab: begin {cell}\n"));
        self.say(&AgentMessage::CellStarted { cell: cell.clone() });
    }

    fn finish(&mut self, report: CellReport) {
        self.agent.console(&format!("[    1.1] netkit-lab: end {}\n", report.cell));
        self.say(&AgentMessage::CellFinished { report: Box::new(report) });
    }

    fn pass(&mut self, cell: &CellId) {
        self.start(cell);
        self.finish(good(cell));
    }

    fn done(&mut self, ran: usize) {
        self.say(&AgentMessage::Done { ran: u32::try_from(ran).unwrap() });
    }

    fn hang(&mut self) {
        let mut buffer = [0; 64];
        while !matches!(self.agent.channel().recv(&mut buffer, Duration::from_secs(60)), Ok(Recv::Closed) | Err(_)) {}
    }
}

fn good(cell: &CellId) -> CellReport {
    let record = match cell.as_str() {
        A => attached(AttachRequest::Auto, DeviceKind::NetkitL3, AttachType::Netkit),
        B => attached(AttachRequest::Tcx, DeviceKind::Veth, AttachType::Tcx),
        _ => attached(AttachRequest::Tc, DeviceKind::Veth, AttachType::Tc),
    };
    passed(cell.as_str(), vec![record])
}

/// Collects the words of the events.
#[derive(Default)]
struct Heard(Vec<Event>);

impl Reporter for Heard {
    fn event(&mut self, stamped: &Stamped, _record: &RunRecord) -> Result<(), Error> {
        self.0.push(stamped.event.clone());
        Ok(())
    }
}

struct Outcomes {
    record: RunRecord,
    events: Vec<Event>,
    boots: u32,
    dir: tempfile::TempDir,
}

impl Outcomes {
    /// `id: outcome: message` per cell of the plan.
    fn lines(&self) -> Vec<String> {
        let line = |(_, _, verdict): (_, _, Cow<'_, crate::judge::Verdict>)| {
            let case = verdict.report.cell.as_str()[..3].to_owned();
            let message = verdict.outcome.message();
            format!("{case} {}{}{message}", verdict.outcome.word(), if message.is_empty() { "" } else { ": " })
        };
        self.record.verdicts().map(line).collect()
    }

    /// The run's directory.
    fn directory(&self) -> &Path {
        self.dir.path()
    }

    fn exit(&self) -> u8 {
        self.record.finished.unwrap().0.code()
    }

    fn notes(&self) -> &[String] {
        &self.record.kernels["6.12"].notes
    }
}

fn info(plan: Plan) -> RunInfo {
    let accelerator = Accelerator { name: "tcg".to_owned(), reason: "test".to_owned(), time_scale: 1.0 };
    RunInfo::new("test".to_owned(), Versions::default(), accelerator, plan)
}

fn run_on(
    kernels: &[(&str, &str)],
    timing: Timing,
    interrupt: Interrupt,
    script: impl Fn(Script<'_>) + Send + Sync + 'static,
) -> Outcomes {
    let launcher = FakeLauncher::new(move |agent| script(Script { agent }));
    run_with(kernels, timing, interrupt, &launcher, None, Isolate::Kernel)
}

fn run_with(
    kernels: &[(&str, &str)],
    timing: Timing,
    interrupt: Interrupt,
    launcher: &FakeLauncher,
    snapshots: Option<Store>,
    isolate: Isolate,
) -> Outcomes {
    let before = launcher.boots();
    let kernels = kernels.iter().map(|(id, version)| facts(id, version)).collect();
    let plan = Plan::new(kernels, [A, B, C].map(cell).to_vec(), true);
    let dir = tempfile::tempdir().unwrap();
    let prepare = |kernel: &crate::plan::PlannedKernel| {
        let console = dir.path().join(&kernel.facts.id);
        fs::create_dir_all(&console).unwrap();
        let mut spec = specification(dir.path().to_owned());
        spec.name.clone_from(&kernel.facts.id);
        spec.console = console;
        Ok(Prepared { spec, image: ImageInfo { key: "k".to_owned(), cached: true, missing: Vec::new() } })
    };
    let mut heard = Heard::default();
    let info = info(plan);
    let run =
        Run { info, jobs: 2, timing, snapshots, isolate, launcher, rescale: &|_| 1.0, prepare: &prepare, interrupt };
    let record = run.go(&mut [&mut heard]).unwrap();
    let finished = heard.0.iter().filter(|event| matches!(event, Event::CellFinished { .. })).count();
    assert_eq!(finished, record.verdicts().count(), "exactly one verdict per planned cell");
    Outcomes { record, events: heard.0, boots: launcher.boots() - before, dir }
}

fn run(script: impl Fn(Script<'_>) + Send + Sync + 'static) -> Outcomes {
    run_on(&[("6.12", "6.12.43")], timing(), Interrupt::default(), script)
}
