//! Defines which outcomes are the failure under investigation, and which are no result.

use super::trial::{Answer, SearchStop};
use lab_base::text;
use lab_protocol::{Capability, CapabilityState, CellId, ErrorKind, FailureKind, Outcome};
use lab_record::run::RunRecord;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Maximum characters of a failure's text.
const WORDS: usize = 200;

/// Which failures of the case count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Match {
    /// The same cell, the same kind of failure, and the same text except for numbers.
    #[default]
    Exact,
    /// Any failure of the same case.
    SameCase,
    /// Any crash, hang or splat of the kernel while the case runs.
    AnyCrash,
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Exact => "exact",
            Self::SameCase => "same-case",
            Self::AnyCrash => "any-crash",
        })
    }
}

/// The test of each kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Predicate {
    /// Whether cells fail.
    Cells {
        cells: Vec<CellId>,
        /// Which of their failures count.
        rule: Match,
    },
    /// Whether the kernel has a capability: if so, this counts as the failure.
    Capability(Capability),
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cells { cells, rule } => {
                let names: Vec<&str> = cells.iter().map(CellId::as_str).collect();
                write!(f, "{} fails (match: {rule})", names.join(", "))
            }
            Self::Capability(capability) => write!(f, "{capability} is supported"),
        }
    }
}

/// Identity of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    pub cell: CellId,
    /// `check`, `splat`, `panic`, …
    pub kind: String,
    /// Its message without numbers.
    pub words: String,
}

impl Signature {
    fn new(cell: &CellId, kind: impl fmt::Display, message: &str) -> Self {
        Self { cell: cell.clone(), kind: kind.to_string(), words: text::line(&numberless(message), WORDS) }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.cell, self.kind, self.words)
    }
}

/// Replaces counts, addresses, times and ids, which differ between runs and kernels.
fn numberless(message: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut String| {
        let digits = word.trim_start_matches("0x");
        let number =
            word.bytes().any(|byte| byte.is_ascii_digit()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        out.push_str(if number { "#" } else { word });
        word.clear();
    };
    for c in message.chars() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
        } else {
            flush(&mut word, &mut out);
            out.push(c);
        }
    }
    flush(&mut word, &mut out);
    out
}

/// Whether a cell is a subtest of another: its test reports it while it runs.
pub fn is_subtest(id: &CellId, of: &CellId) -> bool {
    id.as_str().strip_prefix(of.as_str()).is_some_and(|rest| rest.starts_with("::"))
}

/// Kind and message of a lost guest.
pub type Loss = (ErrorKind, String);

/// Result of the runs of one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// A result.
    Answer {
        answer: Answer,
        /// The failures that count, if the result is a failure.
        signatures: Vec<Signature>,
        /// Splat or failed check, several lines.
        evidence: Option<String>,
    },
    /// The host failed; trying again may help.
    Trouble(String),
}

impl Reading {
    fn untestable(reason: impl Into<String>) -> Self {
        Self::plain(Answer::Untestable { reason: text::line(&reason.into(), WORDS) })
    }

    const fn plain(answer: Answer) -> Self {
        Self::Answer { answer, signatures: Vec::new(), evidence: None }
    }
}

impl Predicate {
    /// Evaluates the record of a run of one kernel. `known` are the signatures of the failure; if there are none yet,
    /// every failure counts.
    ///
    /// # Errors
    /// [`SearchStop::Interrupted`].
    pub fn read(&self, record: &RunRecord, losses: &[Loss], known: &[Signature]) -> Result<Reading, SearchStop> {
        let Some((_, kernel)) = record.planned().next() else {
            return Ok(Reading::Trouble("no kernel ran".to_owned()));
        };
        let booted = kernel.is_some_and(|kernel| kernel.boot.is_some());
        if let (false, Some(lost)) = (booted, losses.last()) {
            return Ok(match lost {
                (ErrorKind::Boot | ErrorKind::Panic | ErrorKind::Hang | ErrorKind::GuestLost, why) => {
                    Reading::untestable(format!("does not boot: {why}"))
                }
                (_, why) => Reading::Trouble(why.clone()),
            });
        }
        match self {
            Self::Capability(wanted) => {
                let reports = kernel.map(|kernel| &*kernel.capabilities).unwrap_or_default();
                let Some(report) = reports.iter().find(|report| report.capability == *wanted) else {
                    return Ok(Reading::Trouble(format!("the guest did not report whether it has {wanted}")));
                };
                if report.state == CapabilityState::Supported {
                    let symptom = format!("{wanted} is supported: {}", text::line(&report.detail, WORDS));
                    let evidence = Some(symptom.clone());
                    return Ok(Reading::Answer { answer: Answer::Fails { symptom }, signatures: Vec::new(), evidence });
                }
                Ok(Reading::plain(Answer::Passes))
            }
            Self::Cells { cells, rule } => self.read_cells(record, cells, *rule, known),
        }
    }

    fn read_cells(
        &self,
        record: &RunRecord,
        cells: &[CellId],
        rule: Match,
        known: &[Signature],
    ) -> Result<Reading, SearchStop> {
        let (mut matching, mut others, mut evidence, mut passed) = (Vec::new(), Vec::new(), None, false);
        let mut lacking = None;
        for (_, cell, verdict) in record.verdicts().filter(|(_, cell, _)| cells.contains(&cell.id)) {
            let (kind, message, crash) = match &verdict.outcome {
                Outcome::Passed => {
                    passed = true;
                    continue;
                }
                Outcome::Skipped { reason } => {
                    lacking = Some(reason.to_string());
                    continue;
                }
                Outcome::SkippedItself { message } => {
                    lacking = Some(format!("it skipped itself: {message}"));
                    continue;
                }
                Outcome::Failed { kind, message } => (kind.to_string(), message, *kind == FailureKind::Splat),
                Outcome::Errored { kind: kind @ (ErrorKind::Panic | ErrorKind::Hang), message } => {
                    (kind.to_string(), message, true)
                }
                Outcome::Errored { message, .. } | Outcome::NotRun { message } => {
                    return Ok(Reading::Trouble(format!("{}: {message}", cell.id)));
                }
            };
            // A splat is identified by its fingerprint, which is the same on all kernels. A failed check beside a splat
            // is identified by its own text: on a busy host a kernel may report a stall at any time.
            let fingerprint = verdict.splats.first().filter(|_| crash).map(|splat| &*splat.fingerprint);
            let signature = Signature::new(&cell.id, &kind, fingerprint.unwrap_or(message));
            let is_known = known.contains(&signature);
            let requirement = kind == FailureKind::MissingCapability.to_string();
            let counts = match rule {
                Match::Exact => known.is_empty() || is_known,
                Match::SameCase => !requirement || known.is_empty() || known.iter().any(|it| it.kind == kind),
                Match::AnyCrash => crash,
            };
            if counts {
                let checks = verdict.report.checks.iter().filter(|check| !check.ok);
                let checks: Vec<String> = checks.map(|check| format!("{}: {}", check.name, check.seen)).collect();
                evidence = evidence
                    .or_else(|| verdict.evidence.clone())
                    .or_else(|| (!checks.is_empty()).then(|| checks.join("\n")))
                    .or_else(|| Some(message.clone()));
                matching.push((signature, message.clone()));
            } else {
                others.push(format!("{signature}"));
            }
        }
        Ok(match (matching.first(), others.first(), lacking) {
            (Some((first, message)), _, _) => Reading::Answer {
                answer: Answer::Fails {
                    symptom: format!("{}: {}: {}", first.cell, first.kind, text::line(message, WORDS)),
                },
                signatures: matching.into_iter().map(|(signature, _)| signature).collect(),
                evidence,
            },
            (None, Some(other), _) => Reading::untestable(format!("another failure: {other}")),
            (None, None, Some(lacking)) if !passed => {
                Reading::untestable(format!("lacks a capability that the case needs: {lacking}"))
            }
            (None, None, _) if passed => Reading::plain(Answer::Passes),
            // A subtest comes to be by its report, and another kernel's test may end before it.
            _ if record.verdicts().any(|(_, cell, verdict)| {
                let is_parent = cells.iter().any(|id| is_subtest(id, &cell.id));
                is_parent
                    && matches!(
                        verdict.outcome,
                        Outcome::Passed | Outcome::Failed { .. } | Outcome::SkippedItself { .. }
                    )
            }) =>
            {
                Reading::untestable("the test ended without reporting this subtest")
            }
            _ => Reading::Trouble("no cell finished".to_owned()),
        })
    }
}

#[cfg(test)]
#[path = "predicate_tests.rs"]
mod tests;
