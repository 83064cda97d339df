//! The run loop with scripted guests: failures of kernels and agents, in milliseconds.

use super::{kernel::MAX_LOSSES, queue::Isolate, room::Room, timing::Timing};
use crate::{
    lists::Lists,
    run::{
        common::{Retries, SentObject},
        held::GuestHolder,
    },
    testing::{
        agent::{A, B, C, Script, good, timing},
        run::FakeRun,
    },
};
use lab_base::{file::FileError, held::HeldFile, interrupt::Interrupt};
use lab_protocol::{
    AgentMessage, AttachRequest, AttachType, Capability, CellId, CellInfo, CellReport, Check, DeviceKind, FailureKind,
    Outcome, PROTOCOL_VERSION, SkipReason,
};
use lab_record::{
    event::{Event, Stamped, Start},
    exit::Exit,
    plan::Plan,
    reporter::Reporter,
    rows,
    run::RunRecord,
    testing::{attached, cell, facts},
    verdict::Verdict,
};
use lab_vm::{Accel, fake::FakeLauncher, snapshot::SnapshotStore};
use std::{fs, path::Path, time::Duration};

mod budget;
mod deaths;
mod exchange;
mod guest_rows;
mod held;
mod host;
mod isolation;
mod port;
mod retries;
mod reuse;
mod slow;
mod splats;
mod verdicts;
mod warm;

/// Collects the events.
#[derive(Default)]
struct Heard(Vec<Event>);

impl Reporter for Heard {
    fn event(&mut self, stamped: &Stamped, _record: &RunRecord) -> Result<(), FileError> {
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
    /// `id: outcome: message` for each cell of the plan.
    fn lines(&self) -> Vec<String> {
        let cells = self.record.verdicts().filter(|(_, cell, _)| !rows::is_row(&cell.id));
        cells.map(|(_, cell, verdict)| told(&cell.id.as_str()[..3], &verdict)).collect()
    }

    /// The same for `boot`, `splat` and `teardown`.
    fn rows(&self) -> Vec<String> {
        let rows = self.record.verdicts().filter(|(_, cell, _)| rows::is_row(&cell.id));
        rows.map(|(_, cell, verdict)| told(cell.id.as_str(), &verdict)).collect()
    }

    /// A cell's verdict on 6.12.
    fn verdict(&self, cell: &str) -> Verdict {
        self.record.given_to(&self.record.kernels["6.12"], &CellId(cell.into())).unwrap().whole().into_owned()
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

fn told(name: &str, verdict: &Verdict) -> String {
    let message = verdict.outcome.message();
    format!("{name} {}{}{message}", verdict.standing().word(), if message.is_empty() { "" } else { ": " })
}

/// Parameters of a test in addition to the guests' behaviour.
struct Choice {
    timing: Timing,
    rescale: &'static (dyn Fn(Duration) -> f32 + Sync),
    accel: Accel,
    interrupt: Interrupt,
    snapshots: Option<SnapshotStore>,
    room: Room,
    isolate: Isolate,
    lists: Lists,
    retries: Retries,
    cells: Vec<CellInfo>,
    objects: Vec<SentObject>,
    agent: Option<HeldFile>,
    holder: Option<&'static dyn GuestHolder>,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            timing: timing(),
            rescale: &|_| 1.0,
            accel: Accel::Tcg,
            interrupt: Interrupt::default(),
            snapshots: None,
            room: Room::unlimited(),
            isolate: Isolate::Kernel,
            lists: Lists::default(),
            retries: Retries::default(),
            cells: [A, B, C].map(cell).to_vec(),
            objects: Vec::new(),
            agent: None,
            holder: None,
        }
    }
}

/// How the guests of a run began.
fn starts(outcomes: &Outcomes) -> Vec<Start> {
    let start = |event: &Event| match event {
        Event::GuestStarted { start, .. } => Some(*start),
        _ => None,
    };
    outcomes.events.iter().filter_map(start).collect()
}

/// A run of these kernels with scripted guests.
fn fake<'a>(kernels: &[(&str, &str)], launcher: &'a FakeLauncher, choice: Choice) -> FakeRun<'a> {
    let Choice {
        timing,
        rescale,
        accel,
        interrupt,
        snapshots,
        room,
        isolate,
        lists,
        retries,
        cells,
        objects,
        agent,
        holder,
    } = choice;
    let plan = Plan::new(kernels.iter().map(|(id, version)| facts(id, version)).collect(), cells, true);
    let (id, imageless) = (lab_record::testing::id("test"), None);
    FakeRun {
        streams: None,
        holder,
        earlier: None,
        pace: None,
        slow_fails: false,
        id,
        plan,
        timing,
        rescale,
        accel,
        interrupt,
        launcher,
        snapshots,
        room,
        isolate,
        lists,
        retries,
        objects,
        agent,
        imageless,
    }
}

fn run_on(
    kernels: &[(&str, &str)],
    timing: Timing,
    interrupt: Interrupt,
    script: impl Fn(Script<'_>) + Send + Sync + 'static,
) -> Outcomes {
    let launcher = FakeLauncher::new(move |agent| script(Script { agent }));
    run_with(kernels, &launcher, Choice { timing, interrupt, ..Choice::default() })
}

fn run_with(kernels: &[(&str, &str)], launcher: &FakeLauncher, choice: Choice) -> Outcomes {
    let before = launcher.boots();
    let run = fake(kernels, launcher, choice);
    let planned: usize = run.plan.kernels.iter().map(|kernel| kernel.cells.len()).sum();
    let dir = tempfile::tempdir().unwrap();
    let mut heard = Heard::default();
    let record = run.go(dir.path(), &mut [&mut heard]).unwrap();
    let finished = heard.0.iter().filter(|event| matches!(event, Event::CellFinished { .. })).count();
    assert_eq!(finished, planned, "exactly one verdict per planned cell");
    Outcomes { record, events: heard.0, boots: launcher.boots() - before, dir }
}

fn run(script: impl Fn(Script<'_>) + Send + Sync + 'static) -> Outcomes {
    run_on(&[("6.12", "6.12.43")], timing(), Interrupt::default(), script)
}
