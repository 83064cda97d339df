//! `lab doctor` and `lab setup`.

use super::show;
use crate::{
    error::{Error, Exit},
    setup,
};

pub(super) fn doctor(json: bool) -> Result<Exit, Error> {
    let report = setup::doctor()?;
    if json {
        let json = serde_json::to_string_pretty(&report).map_err(|error| Error::Host(error.to_string()))?;
        show(format_args!("{json}\n"))?;
    } else {
        show(&report)?;
    }
    Ok(if report.ready() { Exit::Passed } else { Exit::Infra })
}

pub(super) fn setup() -> Result<Exit, Error> {
    setup::setup(&mut std::io::stderr())?;
    Ok(Exit::Passed)
}
