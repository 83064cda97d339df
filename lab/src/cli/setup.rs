//! `lab doctor` and `lab setup`.

use crate::{
    error::Error,
    setup::{self, Place, Purpose},
};
use lab_base::{interrupt::Interrupt, say::show};
use lab_record::exit::Exit;

/// What the flag `--tests` asks for.
fn purpose(tests: bool) -> Purpose {
    if tests { Purpose::Tests } else { Purpose::Runs }
}

pub(super) fn doctor(json: bool, tests: bool) -> Result<Exit, Error> {
    let report = setup::doctor(purpose(tests))?;
    if json {
        let json = serde_json::to_string_pretty(&report).map_err(|error| Error::Host(error.to_string()))?;
        show(format_args!("{json}\n"))?;
    } else {
        show(&report)?;
    }
    Ok(if report.ready() { Exit::Passed } else { Exit::Infra })
}

pub(super) fn setup(tests: bool, builds: bool, system: bool) -> Result<Exit, Error> {
    let purpose = if builds { Purpose::Builds } else { purpose(tests) };
    // Whatever is under way ends with a signal, and leaves no half of anything.
    Interrupt::install().map_err(Error::file("watch", "signals"))?;
    let place = if system { Place::System } else { Place::Cache };
    setup::setup(purpose, place, &mut std::io::stderr())?;
    Ok(Exit::Passed)
}
