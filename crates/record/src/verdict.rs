//! A cell's end as the host sees it, with everything that bears on whether it counts.

use crate::{excuse::Excuse, splat::Splat};
use lab_protocol::{CellId, CellReport, FailureKind, Outcome};
use serde::{Deserialize, Serialize};

/// A cell's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What the guest reported; its outcome is the guest's opinion.
    pub report: CellReport,
    /// The outcome that counts.
    pub outcome: Outcome,
    /// Worth a look, and no failure.
    pub warnings: Vec<String>,
    /// Console lines around a death.
    pub evidence: Option<String>,
    /// Files that the cell left, as paths from the run's directory on.
    #[serde(default)]
    pub files: Vec<String>,
    /// What the kernel complained of while the cell ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splats: Vec<Splat>,
    /// Why a failure does not count; where the cell passed, why it was expected to fail. An entry of `known.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Excuse>,
    /// Attempts before this one, each in a guest of its own, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Attempt>,
}

/// One attempt at a cell that did not pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Number of its guest.
    pub guest: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Wall time in the guest, microseconds.
    pub duration_us: u64,
    /// Checks that did not hold, the console around a death.
    pub evidence: Option<String>,
    /// What the kernel complained of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splats: Vec<Splat>,
    /// Files that it left, as paths from the run's directory on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

impl Attempt {
    /// What stays of an attempt's verdict.
    pub fn of(guest: u32, verdict: Verdict) -> Self {
        let failed = verdict.report.checks.iter().filter(|check| !check.ok);
        let failed: Vec<String> = failed.map(|check| format!("FAIL {}: {}", check.name, check.seen)).collect();
        let evidence = verdict.evidence.or((!failed.is_empty()).then(|| failed.join("\n")));
        let Verdict { report, outcome, splats, files, .. } = verdict;
        Self { guest, outcome, duration_us: report.duration_us, evidence, splats, files }
    }
}

/// What a verdict counts as: every cell is exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Passed at once.
    Passed,
    /// Passed when it was run again in a fresh guest.
    Flaky,
    /// Failed as `known.toml` says.
    Known,
    /// Failed.
    Failed,
    /// The kernel lacks something.
    Skipped,
    /// No verdict.
    Errored,
    /// Never started.
    NotRun,
}

impl Standing {
    /// The word used in tables and counters.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Flaky => "flaky",
            Self::Known => "known",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Errored => "errored",
            Self::NotRun => "not-run",
        }
    }

    /// Whether somebody has to do something about it.
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::Errored | Self::NotRun)
    }
}

impl Verdict {
    /// A verdict on a guest's report, with nothing beside it.
    pub const fn on(report: CellReport, outcome: Outcome) -> Self {
        Self {
            report,
            outcome,
            warnings: Vec::new(),
            evidence: None,
            files: Vec::new(),
            splats: Vec::new(),
            known: None,
            earlier: Vec::new(),
        }
    }

    /// A verdict without a guest's report behind it.
    pub fn bare(cell: CellId, outcome: Outcome) -> Self {
        Self::on(CellReport::bare(cell, outcome.clone()), outcome)
    }

    /// What it counts as.
    pub fn standing(&self) -> Standing {
        match &self.outcome {
            Outcome::Passed if !self.earlier.is_empty() => Standing::Flaky,
            Outcome::Passed => Standing::Passed,
            Outcome::Skipped { .. } => Standing::Skipped,
            Outcome::NotRun { .. } => Standing::NotRun,
            Outcome::Failed { .. } | Outcome::Errored { .. } if self.known.is_some() => Standing::Known,
            Outcome::Failed { .. } => Standing::Failed,
            Outcome::Errored { .. } => Standing::Errored,
        }
    }

    /// Whether nothing stands beside the outcome: no splat, no excuse and no earlier attempt.
    pub const fn is_plain(&self) -> bool {
        self.splats.is_empty() && self.known.is_none() && self.earlier.is_empty()
    }

    /// Whether it passed although `known.toml` says that it fails.
    pub fn is_unexpected_pass(&self) -> bool {
        self.known.is_some() && self.outcome == Outcome::Passed
    }

    /// Takes what the kernel complained of while the cell ran: a cell that passed fails, and the first splat that is
    /// not allowed is its evidence either way.
    pub fn add_splats(&mut self, splats: Vec<Splat>) {
        let Some(first) = splats.first() else { return };
        let culprit = splats.iter().find(|splat| splat.allowed.is_none());
        if let Some(culprit) = culprit
            && matches!(self.outcome, Outcome::Passed | Outcome::Skipped { .. })
        {
            self.outcome = Outcome::Failed { kind: FailureKind::Splat, message: culprit.title.clone() };
        }
        self.evidence.get_or_insert_with(|| culprit.unwrap_or(first).evidence.clone());
        self.splats = splats;
    }

    /// Whether outcome and splats are an earlier attempt's, which no later one takes back.
    pub fn repeats_an_attempt(&self) -> bool {
        !self.splats.is_empty() && self.earlier.iter().any(|attempt| attempt.splats == self.splats)
    }

    /// What beside the outcome a person wants to know: splats, excuses and earlier attempts, one line each.
    pub fn remarks(&self) -> Vec<String> {
        let splats = self.splats.iter().map(|splat| {
            let allowed = splat.allowed.as_ref().map_or_else(String::new, |it| format!("; allowed {}", it.line()));
            format!("{}{allowed}", splat.line())
        });
        let known = self.known.iter().map(|known| match self.is_unexpected_pass() {
            true => format!("passes, though known.toml says it fails {}: drop the entry", known.line()),
            false => format!("known {}", known.line()),
        });
        let earlier = self.earlier.iter().zip(1..).map(|(attempt, number)| {
            format!(
                "attempt {number} (guest {}) {}: {}",
                attempt.guest,
                attempt.outcome.word(),
                attempt.outcome.message()
            )
        });
        self.warnings.iter().cloned().chain(splats).chain(known).chain(earlier).collect()
    }
}
