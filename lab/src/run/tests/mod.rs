//! The real loop against guests without a machine: what a kernel or an agent can do wrong, in milliseconds.

use super::{dispatch::Run, kernel::Prepared, queue::Isolate, room::Room, timing::Timing};
use crate::{
    error::{Error, Exit},
    event::{Accelerator, Event, ImageInfo, RunInfo, Stamped, Versions},
    interrupt::Interrupt,
    plan::Plan,
    report::{Reporter, record::RunRecord},
    testing::{
        agent::{A, B, C, Script, good, timing},
        attached, cell, facts,
        run::FakeRun,
    },
    vm::{
        fake::{FakeLauncher, specification},
        snapshot::Store,
    },
};
use lab_protocol::{
    AgentMessage, AttachRequest, AttachType, Capability, CellId, CellReport, Check, DeviceKind, FailureKind, Outcome,
    PROTOCOL_VERSION, SkipReason,
};
use std::{borrow::Cow, fs, path::Path, time::Duration};

mod deaths;
mod host;
mod isolation;
mod port;
mod verdicts;
mod warm;

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
    let mut heard = Heard::default();
    let (id, imageless) = ("test".to_owned(), None);
    let run = FakeRun { id, plan, timing, interrupt, launcher, snapshots, isolate, imageless };
    let record = run.go(dir.path(), &mut [&mut heard]).unwrap();
    let finished = heard.0.iter().filter(|event| matches!(event, Event::CellFinished { .. })).count();
    assert_eq!(finished, record.verdicts().count(), "exactly one verdict per planned cell");
    Outcomes { record, events: heard.0, boots: launcher.boots() - before, dir }
}

fn run(script: impl Fn(Script<'_>) + Send + Sync + 'static) -> Outcomes {
    run_on(&[("6.12", "6.12.43")], timing(), Interrupt::default(), script)
}
