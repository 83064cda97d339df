//! `known.toml`: known failures.

use super::{EntryTerms, read};
use lab_base::{selection::Pattern, strict_toml::ConfigError};
use lab_protocol::{CellId, ErrorKind, FailureKind, Outcome};
use lab_record::verdict::Verdict;

/// A `[[known]]` entry.
#[derive(Debug, Clone)]
pub struct Known {
    /// Kernels, reason, link and last day.
    pub terms: EntryTerms,
    text: String,
    case: Pattern,
    message: Option<Pattern>,
}

impl Known {
    /// Its pattern of cases, as written.
    pub fn about(&self) -> &str {
        &self.text
    }

    /// Whether its pattern matches a cell: its case or its whole id.
    pub fn is_about(&self, cell: &CellId) -> bool {
        self.case.matches(cell.case()) || self.case.matches(cell.as_str())
    }

    /// Whether it applies to a verdict: a pass that it did not expect, or a failure that it covers.
    ///
    /// Without a `message` an entry covers failed checks and unexpected errors only. A splat, a panic, a hang, a leak, another
    /// attach type or a missing capability is covered only if the entry's `message` matches it, so that an old failure never
    /// hides a new one of another kind. Outcomes that are no verdict on the kernel are never covered.
    pub fn matches(&self, verdict: &Verdict) -> bool {
        if !self.is_about(&verdict.report.cell) {
            return false;
        }
        let says = || self.message.as_ref().map(|pattern| pattern.matches(&verdict.outcome.message()));
        match &verdict.outcome {
            Outcome::Passed => true,
            Outcome::Failed {
                kind:
                    FailureKind::Splat
                    | FailureKind::AttachMismatch
                    | FailureKind::Leak
                    | FailureKind::Cleanup
                    | FailureKind::MissingCapability
                    | FailureKind::Isolation
                    | FailureKind::Reuse,
                ..
            }
            | Outcome::Errored { kind: ErrorKind::Panic | ErrorKind::Hang, .. } => says() == Some(true),
            Outcome::Failed { .. } => {
                says() != Some(false) && verdict.splats.iter().all(|splat| splat.allowed.is_some())
            }
            Outcome::Skipped { .. }
            | Outcome::SkippedItself { .. }
            | Outcome::Errored { .. }
            | Outcome::NotRun { .. } => false,
        }
    }
}

/// Parses a file with this name.
pub fn parse(text: &str, file: &str) -> Result<Vec<Known>, ConfigError> {
    read::entries(text, file, "known", &["case", "message"], |section, terms| {
        let case = section.required("case")?;
        Ok(Known {
            terms,
            text: case.to_owned(),
            case: Pattern::new(case),
            message: section.text("message")?.map(Pattern::new),
        })
    })
}
