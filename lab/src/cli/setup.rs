//! `lab doctor` and `lab setup`.

use super::args::OutputArgs;
use crate::{
    error::Error,
    setup::{self, InstallPlace, Purpose},
};
use lab_base::interrupt::Interrupt;
use lab_record::exit::Exit;

/// The purpose that `--tests` selects.
fn purpose(tests: bool) -> Purpose {
    if tests { Purpose::Tests } else { Purpose::Runs }
}

pub(super) fn doctor(output: &OutputArgs, tests: bool) -> Result<Exit, Error> {
    let report = setup::doctor(purpose(tests))?;
    output.show("doctor", &report, || report.to_string())?;
    Ok(if report.ready() { Exit::Passed } else { Exit::Infra })
}

pub(super) fn setup(tests: bool, builds: bool, arm64: bool, system: bool) -> Result<Exit, Error> {
    let purpose = match (builds, arm64) {
        (true, _) => Purpose::Builds,
        (_, true) => Purpose::Arm64,
        _ => purpose(tests),
    };
    // A signal ends running steps without leaving partial files.
    Interrupt::install().map_err(Error::file("watch", "signals"))?;
    let place = if system { InstallPlace::System } else { InstallPlace::Cache };
    setup::setup(purpose, place, &mut *lab_base::say::redrawn())?;
    Ok(Exit::Passed)
}
