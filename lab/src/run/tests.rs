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
use std::{fs, path::Path, time::Duration};

mod isolation;
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
        poll: Duration::from_millis(2),
        scale: 1.0,
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
    _dir: tempfile::TempDir,
}

impl Outcomes {
    /// `id: outcome: message` per cell of the plan.
    fn lines(&self) -> Vec<String> {
        let line = |(_, _, verdict): (_, _, crate::judge::Verdict)| {
            let case = verdict.report.cell.as_str()[..3].to_owned();
            let message = verdict.outcome.message();
            format!("{case} {}{}{message}", verdict.outcome.word(), if message.is_empty() { "" } else { ": " })
        };
        self.record.verdicts().map(line).collect()
    }

    fn exit(&self) -> u8 {
        self.record.finished.unwrap().0.code()
    }

    fn notes(&self) -> &[String] {
        &self.record.kernels["6.12"].notes
    }
}

fn info(plan: Plan) -> RunInfo {
    RunInfo {
        id: "test".to_owned(),
        versions: Versions::default(),
        accelerator: Accelerator { name: "tcg".to_owned(), reason: "test".to_owned(), time_scale: 1.0 },
        mutant: None,
        plan,
    }
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
    Outcomes { record, events: heard.0, boots: launcher.boots() - before, _dir: dir }
}

fn run(script: impl Fn(Script<'_>) + Send + Sync + 'static) -> Outcomes {
    run_on(&[("6.12", "6.12.43")], timing(), Interrupt::default(), script)
}

#[test]
fn everything_passes_in_one_guest() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.done(cells.len());
        script.hang();
    });
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 passed", "C03 passed"]);
    assert_eq!((outcomes.exit(), outcomes.boots), (0, 1));
    assert!(matches!(outcomes.events.first(), Some(Event::RunStarted { .. })));
    assert!(matches!(outcomes.events.last(), Some(Event::RunFinished { exit: Exit::Passed, .. })));
}

#[test]
fn kernels_run_side_by_side_and_each_is_judged_by_its_own_version() {
    let outcomes = run_on(&[("6.1", "6.1.170"), ("6.12", "6.12.43")], timing(), Interrupt::default(), |mut script| {
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.done(cells.len());
    });
    assert_eq!(
        outcomes.lines(),
        [
            "A01 failed: attach-mismatch: eth0 (nk-l3): plan demands tc, kernel reports netkit/peer",
            "B02 passed",
            "C03 passed",
            "A01 passed",
            "B02 passed",
            "C03 passed",
        ]
    );
    assert_eq!(outcomes.exit(), 1);
}

#[test]
fn a_failed_check_and_a_mismatch_fail_the_run() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        script.start(&cells[0]);
        let mut report = good(&cells[0]);
        report.outcome = Outcome::Failed { kind: FailureKind::Check, message: "0 of 5 arrived".to_owned() };
        report.checks.push(Check { name: "arrives".to_owned(), ok: false, seen: "0 of 5".to_owned() });
        script.finish(report);
        script.start(&cells[1]);
        let wrong = attached(AttachRequest::Tcx, DeviceKind::Veth, AttachType::Tc);
        script.finish(CellReport { attach: vec![wrong], ..good(&cells[1]) });
        script.pass(&cells[2]);
        script.done(3);
    });
    assert_eq!(
        outcomes.lines(),
        [
            "A01 failed: check: 0 of 5 arrived",
            "B02 failed: attach-mismatch: eth0 (veth): plan demands tcx, kernel reports clsact/ingress",
            "C03 passed",
        ]
    );
    assert_eq!(outcomes.exit(), 1);
}

fn skipping(capability: Capability) -> Outcomes {
    run(move |mut script| {
        let cells = script.boot();
        for cell in &cells {
            script.start(cell);
            let reason = SkipReason { capability, detail: "EINVAL".to_owned(), lifted_by: capability.since().mainline };
            script.finish(CellReport::bare(cell.clone(), Outcome::Skipped { reason }));
        }
        script.done(cells.len());
    })
}

#[test]
fn a_skip_is_fine_below_the_version_and_a_failure_above() {
    let old = skipping(Capability::NetkitSingle);
    assert_eq!(old.lines()[0], "A01 skipped: no netkit-single: EINVAL (lifted by kernel 7.1)");
    assert_eq!(old.exit(), 0);
    let new = skipping(Capability::Netkit);
    assert!(new.lines()[0].starts_with("A01 failed: missing-capability: no netkit on kernel 6.12.43"));
    assert_eq!(new.exit(), 1);
}

#[test]
fn a_kernel_that_never_boots_is_tried_a_few_times() {
    let quick = Timing { boot: Duration::from_millis(30), ..timing() };
    let outcomes = run_on(&[("6.12", "6.12.43")], quick, Interrupt::default(), |mut script| script.hang());
    assert_eq!(
        outcomes.lines()[0],
        "A01 not-run: 3 guests in a row died without a verdict; the last one: no hello within 30.0ms of launch"
    );
    assert_eq!((outcomes.exit(), outcomes.boots), (3, 3));
}

#[test]
fn another_protocol_or_another_kernel_is_refused_at_once() {
    let protocol = run(|mut script| {
        script.hello(PROTOCOL_VERSION + 1);
        script.hang();
    });
    assert!(protocol.lines()[0].starts_with("A01 not-run: the agent speaks protocol 3, this lab speaks 2"));
    assert_eq!((protocol.exit(), protocol.boots), (3, 1));
    let kernel = run_on(&[("7.2", "7.2.13")], timing(), Interrupt::default(), |mut script| {
        script.hello(PROTOCOL_VERSION);
        script.hang();
    });
    assert_eq!(
        kernel.lines()[0],
        "A01 not-run: the plan is for kernel 7.2.13, the guest booted 6.12.43 (6.12.43-cloud)"
    );
    assert_eq!(kernel.boots, 1);
}

#[test]
fn garbage_before_hello_does_no_harm() {
    let outcomes = run(|mut script| {
        script.agent.channel().send(b"\x1b[2JSeaBIOS\0\xF5NK").unwrap();
        script.say(&AgentMessage::Heartbeat { uptime_ms: 1, cell: None });
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.done(cells.len());
    });
    assert_eq!(outcomes.exit(), 0, "{:?}", outcomes.lines());
    assert!(outcomes.notes().iter().any(|note| note.contains("bytes outside any frame")), "{:?}", outcomes.notes());
    assert!(outcomes.notes().iter().any(|note| note == "a message before hello was ignored"));
}

#[test]
fn a_panic_costs_its_cell_and_the_rest_goes_on_in_a_fresh_guest() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        for cell in &cells {
            if cell.as_str() == B {
                script.start(cell);
                script.agent.console("[    3.1] BUG: kernel NULL pointer dereference\n[    3.2] Kernel panic - x\n");
                return;
            }
            script.pass(cell);
        }
        script.done(cells.len());
    });
    assert_eq!(
        outcomes.lines(),
        [
            "A01 passed",
            "B02 errored: panic: BUG: kernel NULL pointer dereference (the guest ended before its time (exit code 0))",
            "C03 passed",
        ]
    );
    assert_eq!((outcomes.exit(), outcomes.boots), (1, 2));
    let verdict = &outcomes.record.kernels["6.12"].verdicts[&CellId(B.to_owned())];
    assert!(verdict.evidence.as_deref().unwrap().contains("Kernel panic - x"));
}

#[test]
fn a_warning_that_the_kernel_survives_fails_its_cell_and_no_other() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        for cell in &cells {
            script.start(cell);
            if cell.as_str() == B {
                script
                    .agent
                    .console("[    3.1] WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2\n[    3.1] Call Trace:\n");
            }
            script.finish(good(cell));
        }
        script.done(cells.len());
    });
    assert_eq!(
        outcomes.lines(),
        ["A01 passed", "B02 failed: splat: WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2", "C03 passed"]
    );
    assert_eq!((outcomes.exit(), outcomes.boots), (1, 1));
}

#[test]
fn a_silent_guest_is_a_hang() {
    let quick = Timing { silence: Duration::from_millis(50), ..timing() };
    let outcomes = run_on(&[("6.12", "6.12.43")], quick, Interrupt::default(), |mut script| {
        let cells = script.boot();
        if script.agent.boot() == 0 {
            script.pass(&cells[0]);
            script.start(&cells[1]);
            script.hang();
        }
        cells.iter().for_each(|cell| script.pass(cell));
        script.done(cells.len());
    });
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 errored: hang: no heartbeat for 50.0ms", "C03 passed"]);
    assert_eq!(outcomes.exit(), 1);
}

#[test]
fn a_cell_that_only_beats_its_heart_runs_into_its_deadline() {
    let quick = Timing { cell_grace: Duration::ZERO, ..timing() };
    let outcomes = run_on(&[("6.12", "6.12.43")], quick, Interrupt::default(), |mut script| {
        let cells = script.boot();
        if script.agent.boot() == 0 {
            script.start(&cells[0]);
            for uptime_ms in 0..100 {
                script.say(&AgentMessage::Heartbeat { uptime_ms, cell: Some(cells[0].clone()) });
                let _ = script.agent.channel().recv(&mut [0; 8], Duration::from_millis(5));
            }
            script.hang();
        }
        cells.iter().for_each(|cell| script.pass(cell));
        script.done(cells.len());
    });
    assert_eq!(
        outcomes.lines(),
        [format!("A01 errored: hang: {A} ran for more than 100.0ms"), "B02 passed".into(), "C03 passed".into()]
    );
}

#[test]
fn an_exit_in_a_cell_is_a_lost_guest() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        script.start(&cells[0]);
        script.agent.console("[    1.0] fine so far\n");
    });
    assert_eq!(outcomes.boots, 3, "each guest costs a cell, which is progress of a kind");
    assert_eq!(outcomes.lines()[0], "A01 errored: guest-lost: the guest ended before its time (exit code 0)");
    assert_eq!(outcomes.exit(), 3);
}

#[test]
fn guests_that_die_at_once_are_not_booted_for_ever() {
    let outcomes = run(|mut script| {
        script.boot();
    });
    assert_eq!(
        outcomes.lines()[2],
        "C03 not-run: 3 guests in a row died without a verdict; the last one: the guest ended before its time (exit code 0)"
    );
    assert_eq!((outcomes.exit(), outcomes.boots), (3, 3));
}

#[test]
fn only_the_running_cell_can_report_and_only_once() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        script.finish(good(&cells[1]));
        script.pass(&cells[0]);
        let mut second = good(&cells[0]);
        second.outcome = Outcome::Failed { kind: FailureKind::Check, message: "late".to_owned() };
        script.finish(second);
        script.pass(&CellId("Z99-unknown\x1b[2J".to_owned()));
        script.pass(&cells[1]);
        script.pass(&cells[2]);
        script.done(cells.len());
    });
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 passed", "C03 passed"]);
    assert_eq!(
        outcomes.notes(),
        [
            format!("a report of {B}, which is not running, was ignored (passed)"),
            format!("a report of {A}, which is not running, was ignored (failed)"),
            "Z99-unknown\\u{1b}[2J began, which nobody asked for: ignored".to_owned(),
            "a report of Z99-unknown\\u{1b}[2J, which is not running, was ignored (passed)".to_owned(),
        ]
    );
}

#[test]
fn done_with_cells_unreported_is_not_done() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        script.pass(&cells[0]);
        script.done(cells.len());
        script.hang();
    });
    assert_eq!(outcomes.lines()[..2], ["A01 passed", "B02 passed"], "each fresh guest brings one");
    assert_eq!((outcomes.exit(), outcomes.boots), (0, 3));
}

#[test]
fn ctrl_c_ends_the_guests_and_leaves_a_report() {
    let interrupt = Interrupt::default();
    let flag = interrupt.clone();
    let outcomes = run_on(&[("6.12", "6.12.43")], timing(), interrupt, move |mut script| {
        let cells = script.boot();
        script.pass(&cells[0]);
        script.start(&cells[1]);
        flag.raise(signal_hook::consts::SIGINT);
        script.hang();
    });
    let lines = outcomes.lines();
    assert_eq!(lines[2], "C03 not-run: the run was interrupted");
    assert!(lines[0] == "A01 passed" || lines[0].contains("interrupted"), "{lines:?}");
    assert_eq!((outcomes.exit(), outcomes.boots), (130, 1));
}

#[test]
fn a_kernel_without_an_image_runs_nothing_and_says_why() {
    let plan = Plan::new(vec![facts("6.12", "6.12.43")], vec![cell(A)], true);
    let launcher = FakeLauncher::new(|_| {});
    let prepare = |_: &crate::plan::PlannedKernel| Err("image: no space".to_owned());
    let interrupt = Interrupt::default();
    let run = Run {
        info: info(plan),
        jobs: 1,
        timing: timing(),
        snapshots: None,
        isolate: Isolate::Kernel,
        launcher: &launcher,
        rescale: &|_| 1.0,
        prepare: &prepare,
        interrupt,
    };
    let record = run.go(&mut []).unwrap();
    let (_, _, verdict) = record.verdicts().next().unwrap();
    assert_eq!(verdict.outcome, Outcome::NotRun { message: "image: no space".to_owned() });
    assert_eq!(record.exit(), Exit::Infra);
}

#[test]
fn a_reporter_that_can_not_write_ends_the_run() {
    struct Full;
    impl Reporter for Full {
        fn event(&mut self, stamped: &Stamped, _: &RunRecord) -> Result<(), Error> {
            match stamped.event {
                Event::Booted { .. } => {
                    Err(Error::file("write", Path::new("events.jsonl"))(std::io::ErrorKind::StorageFull.into()))
                }
                _ => Ok(()),
            }
        }
    }
    let plan = Plan::new(vec![facts("6.12", "6.12.43")], vec![cell(A)], true);
    let dir = tempfile::tempdir().unwrap();
    let launcher = FakeLauncher::new(|agent| {
        let mut script = Script { agent };
        script.boot();
        script.hang();
    });
    let prepare = |_: &crate::plan::PlannedKernel| {
        let mut spec = specification(dir.path().to_owned());
        spec.console = dir.path().to_owned();
        Ok(Prepared { spec, image: ImageInfo { key: String::new(), cached: true, missing: Vec::new() } })
    };
    let interrupt = Interrupt::default();
    let run = Run {
        info: info(plan),
        jobs: 1,
        timing: timing(),
        snapshots: None,
        isolate: Isolate::Kernel,
        launcher: &launcher,
        rescale: &|_| 1.0,
        prepare: &prepare,
        interrupt,
    };
    let error = run.go(&mut [&mut Full]).unwrap_err();
    assert_eq!(error.exit(), Exit::Infra);
    assert!(error.to_string().starts_with("can't write events.jsonl: "));
}
