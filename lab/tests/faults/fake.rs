//! Guests without a virtual machine: a process injects one fault into the real run loop and writes real reports.

use crate::fault::{Fault, How};
use lab::{
    error::Error,
    lists::Lists,
    run::{common::Retries, queue::Isolate, room::Room, timing::Timing},
    testing::{
        agent::{A, B, C, Script, timing},
        run::FakeRun,
    },
};
use lab_base::interrupt::Interrupt;
use lab_record::{
    exit::Exit,
    log::EventLog,
    plan::Plan,
    reporter::Reporter,
    testing::{cell, facts},
};
use lab_report::{
    html::HtmlReporter, junit::JunitReporter, progress::PlainLines, results::directory, run_json::RunJson,
};
use lab_vm::{Accel, fake::FakeLauncher, snapshot::SnapshotStore};
use std::{fs, path::Path, process::ExitCode, time::Duration};

/// Option that makes this program inject a fault.
pub const PLAY: &str = "--play";
/// The run's directory, relative to the scratch directory.
pub const RUN: &str = "results/run";

/// A fault that can be injected.
pub struct Scenario {
    launcher: FakeLauncher,
    timing: Timing,
    cells: Vec<String>,
    warm: bool,
    imageless: Option<&'static str>,
    arrange: fn(&Path),
}

impl Scenario {
    /// One kernel, three cells, and guests that run this script.
    pub fn of(script: impl Fn(Script<'_>) + Send + Sync + 'static) -> Self {
        Self {
            launcher: FakeLauncher::new(move |agent| script(Script { agent })),
            timing: timing(),
            cells: [A, B, C].map(str::to_owned).to_vec(),
            warm: false,
            imageless: None,
            arrange: |_| {},
        }
    }

    /// Changes the launcher.
    pub fn launching(mut self, change: impl FnOnce(FakeLauncher) -> FakeLauncher) -> Self {
        self.launcher = change(self.launcher);
        self
    }

    /// Shortens a deadline so that it passes during the test.
    pub fn quick(mut self, change: impl FnOnce(&mut Timing, Duration)) -> Self {
        change(&mut self.timing, Duration::from_millis(80));
        self
    }

    /// Sets a deadline as on the command line.
    pub fn choosing(mut self, deadline: &str) -> Self {
        let chosen = [deadline.parse().expect("a deadline")];
        self.timing = self.timing.choosing(lab::run::deadline::Chosen::of(&chosen));
        self
    }

    /// Sets the number of cells.
    pub fn cells(mut self, count: usize) -> Self {
        self.cells = (0..count).map(|number| format!("T{number:02}-many[tc,veth]")).collect();
        self
    }

    /// Restores guests from a snapshot.
    pub fn warm(mut self) -> Self {
        self.warm = true;
        self
    }

    /// No kernel has an image, for this reason.
    pub fn without_image(mut self, why: &'static str) -> Self {
        self.imageless = Some(why);
        self
    }

    /// Changes the run's directory before the run.
    pub fn after(mut self, arrange: fn(&Path)) -> Self {
        self.arrange = arrange;
        self
    }
}

/// A script that boots and calls `act` with its cells in the first guest; later guests pass all cells.
pub fn once(act: impl Fn(&mut Script<'_>, &[lab_protocol::CellId]) + Send + Sync + 'static) -> Scenario {
    Scenario::of(move |mut script| {
        let cells = script.boot();
        if script.agent.boot() == 0 {
            act(&mut script, &cells);
        } else {
            behave(&mut script, &cells);
        }
    })
}

/// Passes every cell and powers off.
pub fn behave(script: &mut Script<'_>, cells: &[lab_protocol::CellId]) {
    cells.iter().for_each(|cell| script.pass(cell));
    script.end(cells.len());
}

/// Injects a fault; the exit code is that of `lab run`.
pub fn play(fault: Fault, scratch: &Path) -> ExitCode {
    let How::Fake(scenario) = fault.how else { panic!("{} wants a real guest", fault.name) };
    // As the program ends, with all that it says.
    ExitCode::from(lab::cli::ended(run(scenario(), &scratch.join(RUN))).code())
}

fn run(scenario: Scenario, run: &Path) -> Result<Exit, Error> {
    fs::create_dir_all(run).map_err(Error::file("create", run))?;
    (scenario.arrange)(run);
    let cells = scenario.cells.iter().map(|id| cell(id)).collect();
    let mut events = EventLog::create(run)?;
    let mut junit = JunitReporter { directory: run.to_owned() };
    let mut json = RunJson { directory: run.to_owned() };
    let mut html = HtmlReporter { directory: run.to_owned() };
    let mut lines = PlainLines::new(lab_base::say::stderr());
    let mut reporters: [&mut dyn Reporter; 5] = [&mut events, &mut junit, &mut json, &mut html, &mut lines];
    let fake = FakeRun {
        id: directory::fresh_id(),
        plan: Plan::new(vec![facts("6.12", "6.12.43")], cells, true),
        timing: scenario.timing,
        rescale: &|_| 1.0,
        accel: Accel::Tcg,
        interrupt: Interrupt::install().map_err(Error::file("watch", "signals"))?,
        launcher: &scenario.launcher,
        snapshots: scenario.warm.then(|| SnapshotStore::below(&run.join("../../cache"))),
        room: Room::unlimited(),
        isolate: Isolate::Kernel,
        lists: Lists::default(),
        streams: None,
        retries: Retries::default(),
        imageless: scenario.imageless,
    };
    let record = fake.go(run, &mut reporters)?;
    Ok(record.finished.map_or(Exit::Infra, |(exit, _)| exit))
}
