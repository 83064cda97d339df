//! The finding of a search, formatted for a mailing list, for a web page, or for a program. All three are functions of
//! [`BisectReport`].

mod mail;
mod markdown;

use super::{
    posterior::{Effect, Tally},
    search::{Revert, SearchFinding, SearchStep},
    trial::Mark,
};
use serde::Serialize;

/// Names of a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Name {
    /// For tables: a kernel's id, a commit's short hash.
    pub short: String,
    /// Description: a package with its version, a commit's title.
    pub long: String,
    /// For programs: a full hash, a version.
    pub exact: String,
}

/// Content of the report.
#[derive(Debug, Clone, Serialize)]
pub struct BisectReport {
    /// The predicate as text: `A02-…[netkit] fails (match: exact)`.
    pub question: String,
    /// Whether the question is about a failure, not about a capability.
    pub failing: bool,
    /// The title of the case, if the question is about one.
    pub promise: Option<String>,
    /// `kernel` or `commit`.
    pub unit: &'static str,
    /// The user's terms for the old and the new end.
    pub terms: (String, String),
    pub direction: Effect,
    /// Names of all points, both ends included.
    pub names: Vec<Name>,
    /// The requested confidence.
    pub wanted: f64,
    /// The result of the search.
    pub finding: SearchFinding,
    /// Details of the culprit: `git log`, or the package.
    pub culprit: Option<String>,
    /// The failure: signatures, then splat or failed check.
    pub failure: Vec<String>,
    /// Programs, accelerator, configuration.
    pub environment: Vec<(String, String)>,
    /// Commands that reproduce the failure.
    pub reproduce: Vec<String>,
    /// Line for regzbot, the kernel's regression tracker.
    pub regzbot: Option<String>,
    /// Output of `git bisect log`.
    pub log: Option<String>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// A line of the table of steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepRow {
    /// From 1, in the order of testing.
    pub step: usize,
    pub name: String,
    /// `3 of 3`; empty if there were no runs.
    pub fails: String,
    /// The mark in the user's terms.
    pub mark: String,
    /// The reason, or the point's description.
    pub remark: String,
}

impl BisectReport {
    /// A point's mark in the user's terms.
    pub fn term(&self, mark: Mark) -> &str {
        match mark {
            Mark::Old => &self.terms.0,
            Mark::New => &self.terms.1,
            Mark::Skip => "skip",
        }
    }

    /// One line for a step.
    pub fn row(&self, step: usize, it: &SearchStep) -> StepRow {
        let name = &self.names[it.point];
        let same = it.same_as.map(|point| format!("same image as {}", self.names[point].short));
        let skipped = (it.mark == Mark::Skip).then(|| it.note.clone()).flatten();
        StepRow {
            step,
            name: name.short.clone(),
            fails: if it.tally == Tally::default() { String::new() } else { it.tally.to_string() },
            mark: self.term(it.mark).to_owned(),
            remark: skipped.or(same).unwrap_or_else(|| name.long.clone()),
        }
    }

    fn rows(&self) -> Vec<StepRow> {
        self.finding.steps.iter().enumerate().map(|(at, step)| self.row(at + 1, step)).collect()
    }

    /// Verb for the effect of the culprit.
    const fn deed(&self) -> &'static str {
        match self.direction {
            Effect::Break => "since",
            Effect::Fix => "until",
        }
    }

    /// The last two lines of the text formats: culprit and confidence.
    pub fn last_lines(&self) -> String {
        let SearchFinding { suspects, confidence, sure, .. } = &self.finding;
        let names = |points: &[usize]| {
            let name = |point: &usize| format!("{} ({})", self.names[*point].short, self.names[*point].long);
            points.iter().map(name).collect::<Vec<_>>().join(", ")
        };
        let who = match (&**suspects, sure) {
            ([culprit], true) => format!("culprit: {}", names(&[*culprit])),
            ([likeliest], false) if matches!(self.finding.revert, Some(Revert::Tested { cured: false, .. })) => {
                format!(
                    "culprit: not sure; the likeliest is {}, but reverting it changes nothing",
                    names(&[*likeliest])
                )
            }
            (some, _) if *confidence >= self.wanted => format!("culprit: not sure, one of {}", names(some)),
            (some, _) => format!("culprit: not sure; the most likely are {}", names(&some[..some.len().min(5)])),
        };
        format!("{who}\nconfidence: {} (required: {})", percent(*confidence), percent(self.wanted))
    }

    fn revert(&self) -> Option<String> {
        // A package's change cannot be reverted.
        let revert = self.finding.revert.as_ref().filter(|_| self.log.is_some())?;
        Some(match revert {
            Revert::Impossible { reason } => format!("not tested: {reason}"),
            Revert::Tested { tally, cured: true } => {
                let (old, new) = &self.terms;
                format!("{tally} runs fail: without it the {new} end is {old}")
            }
            Revert::Tested { tally, cured: false } => {
                format!(
                    "{tally} runs fail: without it the {} end is unchanged, so there is another cause",
                    self.terms.1
                )
            }
        })
    }

    /// Formats the report for a kernel mailing list.
    pub fn mail(&self) -> String {
        mail::mail(self)
    }

    /// Formats the report for a web page or an issue.
    pub fn markdown(&self) -> String {
        markdown::markdown(self)
    }

    /// Formats the report for a program.
    ///
    /// # Errors
    /// Never in practice: all map keys are strings.
    pub fn json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Whole<'a> {
            version: u32,
            culprit_name: Option<&'a Name>,
            table: Vec<StepRow>,
            #[serde(flatten)]
            report: &'a BisectReport,
        }
        let culprit_name =
            self.finding.suspects.first().filter(|_| self.finding.sure).map(|culprit| &self.names[*culprit]);
        serde_json::to_string_pretty(&Whole { version: 1, culprit_name, table: self.rows(), report: self })
    }
}

/// Rounds down, so that no result claims certainty.
fn percent(share: f64) -> String {
    let hundredths = (share * 1e4).floor() / 100.0;
    format!("{} %", hundredths.min(99.99))
}

#[cfg(test)]
mod tests;
