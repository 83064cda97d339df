//! The report of `lab doctor`.

use std::fmt;

use serde::Serialize;

use super::{
    apt,
    catalogue::checks,
    check::{CheckState, Fix, Purpose, SetupCheck},
    host::Host,
    private,
};

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetupFinding {
    /// The check's name.
    pub name: &'static str,
    /// What it is needed for.
    pub why: &'static str,
    /// `ok`, `warn`, `unfit` or `missing`.
    pub state: &'static str,
    /// What was found, or what is missing.
    pub found: String,
    /// The command or the advice that fixes it; `None` if nothing is to be fixed.
    pub fix: Option<String>,
}

impl SetupFinding {
    pub(super) fn of(check: &SetupCheck, host: &Host) -> Self {
        let finding = |state, found, fix| Self { name: check.name, why: check.why, state, found, fix };
        match (check.probe)(host) {
            CheckState::Ok { found } => finding("ok", found, None),
            CheckState::Warn { found, advice } => finding("warn", found, Some(advice)),
            CheckState::Unfit { found, advice } => finding("unfit", found, Some(advice)),
            CheckState::Missing { absent } => {
                let fix = match check.fix {
                    Fix::Packages { set: Some(_), .. } if host.on_debian() => host.setup().into(),
                    Fix::Packages { .. } if host.on_debian() => apt::command_line(&absent),
                    Fix::Packages { .. } => host.distribution.advice(&absent),
                    Fix::TestTools | Fix::CargoDeny | Fix::Unpack(&private::SUITES | &private::SLURM) => {
                        "make setup-tests".into()
                    }
                    Fix::VirtmeNg | Fix::BpfLinker | Fix::Unpack(_) => host.setup().into(),
                    Fix::ByHand => check.why.into(),
                };
                finding("missing", absent.join(", "), Some(fix))
            }
        }
    }

    /// Whether the lab can run with this finding.
    pub fn usable(&self) -> bool {
        matches!(self.state, "ok" | "warn")
    }
}

/// The findings of all checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetupReport {
    /// In the order of the checks.
    pub findings: Vec<SetupFinding>,
    /// The command that installs what is missing.
    #[serde(skip)]
    setup: &'static str,
}

impl SetupReport {
    /// Runs all checks on a machine.
    pub fn of(host: &Host, purpose: Purpose) -> Self {
        let findings = checks(purpose, host.installed).iter().map(|check| SetupFinding::of(check, host)).collect();
        Self { findings, setup: host.setup() }
    }

    /// Whether the lab can run here, possibly with warnings.
    pub fn ready(&self) -> bool {
        self.findings.iter().all(SetupFinding::usable)
    }
}

impl fmt::Display for SetupReport {
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
            _ => {
                writeln!(f, "\n{broken} of {} checks failed; `{}` fixes what it can.", self.findings.len(), self.setup)
            }
        }
    }
}
