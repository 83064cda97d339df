//! Runs a plan with a reporter of one's own, which prints every cell that counts as a failure as soon as it ends.
//!
//! `cargo run -p lab --example own_reporter -- 6.12 'A01-*'`, in a directory with `kernels.toml`.

use lab::{
    error::Error,
    guests::{GuestOptions, Guests},
    project::{
        Project,
        filter::{CellFilter, KernelFilter},
        select::select,
    },
};
use lab_base::file::FileError;
use lab_record::{
    event::{Event, Stamped},
    log::EventLog,
    plan::Plan,
    reporter::Reporter,
    run::RunRecord,
    verdict::Standing,
};
use lab_report::results::directory;
use std::{env, process::ExitCode};

/// Prints failures. A reporter gets events and never asks a guest anything, so that `events.jsonl` is enough to write any
/// report again.
#[derive(Default)]
struct Failures {
    count: u32,
}

impl Reporter for Failures {
    fn event(&mut self, stamped: &Stamped, _record: &RunRecord) -> Result<(), FileError> {
        if let Event::CellFinished { kernel, verdict, .. } = &stamped.event
            && matches!(verdict.standing(), Standing::Failed | Standing::Errored | Standing::NotRun)
        {
            self.count += 1;
            println!("{kernel} {}: {}", verdict.report.cell, verdict.outcome.message());
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    let (Some(kernel), Some(case)) = (words.next(), words.next()) else {
        eprintln!("usage: own_reporter KERNEL PATTERN");
        return ExitCode::from(2);
    };
    match run(&kernel, case) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(count) => {
            println!("{count} failures");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("own_reporter: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(kernel: &str, case: String) -> Result<u32, Error> {
    let project = Project::open(None)?;
    let kernels = project.kernels(&KernelFilter::of(kernel))?;
    let selected = select(&project, &CellFilter { case: vec![case], ..CellFilter::default() })?;
    let guests = Guests::open(&project, &kernels, &selected)?;
    let plan = Plan::new(guests.facts(), selected.cells, false);
    let id = directory::fresh_id();
    let place = directory::create(&project.root.join("results"), &id)?;
    // The event log is a reporter like any other.
    let (mut events, mut failures) = (EventLog::create(&place)?, Failures::default());
    guests.run(id, plan, &place, &GuestOptions::default(), &mut [&mut events, &mut failures])?;
    Ok(failures.count)
}
