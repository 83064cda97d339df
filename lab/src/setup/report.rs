//! What `lab doctor` shows.

use std::fmt;

use serde::Serialize;

use super::{
    apt,
    catalogue::checks,
    check::{Check, Fix, Purpose, State},
    host::Host,
};

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name.
    pub name: &'static str,
    /// What breaks without it.
    pub why: &'static str,
    /// `ok`, `warn`, `unfit` or `missing`.
    pub state: &'static str,
    /// What was found, or what is absent.
    pub found: String,
    /// The command or the advice that mends it; `None` where there is nothing to mend.
    pub fix: Option<String>,
}

impl Finding {
    pub(super) fn of(check: &Check, host: &Host) -> Self {
        let finding = |state, found, fix| Self { name: check.name, why: check.why, state, found, fix };
        match (check.probe)(host) {
            State::Ok { found } => finding("ok", found, None),
            State::Warn { found, advice } => finding("warn", found, Some(advice)),
            State::Unfit { found, advice } => finding("unfit", found, Some(advice)),
            State::Missing { absent } => {
                let fix = match check.fix {
                    Fix::Packages { set: Some(_), .. } if host.on_debian() => host.setup().into(),
                    Fix::Packages { .. } if host.on_debian() => apt::command_line(&absent),
                    Fix::Packages { .. } => host.distribution.advice(&absent),
                    Fix::VirtmeNg | Fix::BpfLinker => host.setup().into(),
                    Fix::TestTools | Fix::CargoDeny => "make setup-tests".into(),
                    Fix::ByHand => check.why.into(),
                };
                finding("missing", absent.join(", "), Some(fix))
            }
        }
    }

    /// Whether the lab can run with it.
    pub fn usable(&self) -> bool {
        matches!(self.state, "ok" | "warn")
    }
}

/// Every check's finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order of the checks.
    pub findings: Vec<Finding>,
    /// The command that installs what is missing.
    #[serde(skip)]
    setup: &'static str,
}

impl Report {
    /// Judges a machine.
    pub fn of(host: &Host, purpose: Purpose) -> Self {
        let findings = checks(purpose, host.installed).iter().map(|check| Finding::of(check, host)).collect();
        Self { findings, setup: host.setup() }
    }

    /// Whether the lab can run here; warnings do not count.
    pub fn ready(&self) -> bool {
        self.findings.iter().all(Finding::usable)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
        for finding in &self.findings {
            writeln!(f, "{:7}  {:width$}  {}", finding.state, finding.name, finding.found)?;
            if let Some(fix) = &finding.fix {
                if finding.usable() {
                    writeln!(f, "{:7}  {:width$}  note: {fix}", "", "")?;
                } else {
                    writeln!(f, "{:7}  {:width$}  why: {}", "", "", finding.why)?;
                    writeln!(f, "{:7}  {:width$}  fix: {fix}", "", "")?;
                }
            }
        }
        let broken = self.findings.iter().filter(|finding| !finding.usable()).count();
        match broken {
            0 => writeln!(f, "\nThis machine is ready."),
            _ => writeln!(f, "\n{broken} of {} to mend; `{}` does what it can.", self.findings.len(), self.setup),
        }
    }
}
