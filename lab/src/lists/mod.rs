//! Two lists beside `kernels.toml`: `splats.toml` allows kernel splats for a limited time, and `known.toml` lists known
//! failures. Every entry has a reason and a last day. Whatever an entry excuses is still reported, and an expired entry
//! fails the run.

mod known;
mod range;
mod read;
mod splats;

pub use known::Known;
pub use range::KernelRange;
pub use splats::Allowed;

use chrono::{DateTime, NaiveDate};
use lab_base::strict_toml::ConfigError;
use lab_record::{
    excuse::{Excuse, Expired},
    plan::{KernelFacts, Plan},
    splat::Splat,
    verdict::Verdict,
};
use std::{io::ErrorKind, path::Path, time::SystemTime};

/// Splats that fail nothing for now.
pub const SPLATS_TOML: &str = "splats.toml";
/// Known failures.
pub const KNOWN_TOML: &str = "known.toml";

/// Keys that both kinds of entry have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryTerms {
    /// The file that has it.
    pub file: String,
    /// Line of the entry, from 1.
    pub line: usize,
    /// Kernels that the entry applies to; all if `None`.
    pub kernels: Option<KernelRange>,
    /// Reason, link and last day.
    pub excuse: Excuse,
    last_day: NaiveDate,
}

impl EntryTerms {
    fn hold(&self, kernel: &KernelFacts, today: NaiveDate) -> bool {
        self.last_day >= today && self.covers(kernel)
    }

    fn covers(&self, kernel: &KernelFacts) -> bool {
        self.kernels.as_ref().is_none_or(|range| range.holds(kernel.version))
    }
}

/// Both lists, evaluated for a day.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    allowed: Vec<Allowed>,
    known: Vec<Known>,
    today: NaiveDate,
}

impl Lists {
    /// The entries of both lists as text, whatever the day.
    pub fn entries(&self) -> String {
        format!("{:?} {:?}", self.allowed, self.known)
    }

    /// Reads both files of a project; a missing file is an empty list.
    ///
    /// # Errors
    /// A file can't be read, or an entry is invalid: the error names file, line and key.
    pub fn load(root: &Path) -> Result<Self, ConfigError> {
        let text = |name: &str| match lab_guard::bounded::text(&root.join(name)) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(ConfigError { file: name.to_owned(), line: 1, message: error.to_string() }),
        };
        Self::parse(&text(SPLATS_TOML)?, &text(KNOWN_TOML)?, today())
    }

    /// Parses both files, evaluated for the day `today`.
    ///
    /// # Errors
    /// The first invalid entry.
    pub fn parse(splats: &str, known: &str, today: NaiveDate) -> Result<Self, ConfigError> {
        Ok(Self { allowed: splats::parse(splats)?, known: known::parse(known, KNOWN_TOML)?, today })
    }

    /// Adds the known failures of another file, which has the form of `known.toml`. Its entries come first.
    ///
    /// # Errors
    /// The file can't be read, or an entry is invalid.
    pub fn with_known(mut self, path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = lab_guard::bounded::text(path).map_err(|error| ConfigError {
            file: file.clone(),
            line: 1,
            message: error.to_string(),
        })?;
        self.known.splice(..0, known::parse(&text, &file)?);
        Ok(self)
    }

    /// Marks a splat that an entry allows on a kernel.
    pub fn allow(&self, kernel: &KernelFacts, splat: &mut Splat) {
        let entry = self.allowed.iter().find(|entry| entry.terms.hold(kernel, self.today) && entry.matches(splat));
        splat.allowed = entry.map(|entry| entry.terms.excuse.clone());
    }

    /// Marks a verdict whose failure is known, or that passes although it is known to fail.
    pub fn recognise(&self, kernel: &KernelFacts, verdict: &mut Verdict) {
        let entry = self.known.iter().find(|entry| entry.terms.hold(kernel, self.today) && entry.matches(verdict));
        verdict.known = entry.map(|entry| entry.terms.excuse.clone());
    }

    /// Expired entries that match something in this plan.
    pub fn expired(&self, plan: &Plan) -> Vec<Expired> {
        let on = |terms: &EntryTerms| plan.kernels.iter().any(|kernel| terms.covers(&kernel.facts));
        let over = |terms: &EntryTerms| terms.last_day < self.today && on(terms);
        let tell = |terms: &EntryTerms, about: &str| Expired {
            file: terms.file.clone(),
            line: terms.line,
            about: about.to_owned(),
            excuse: terms.excuse.clone(),
        };
        let splats = self.allowed.iter().filter(|entry| over(&entry.terms));
        let known = self.known.iter().filter(|entry| over(&entry.terms));
        let known = known.filter(|entry| plan.cells.iter().any(|cell| entry.is_about(&cell.id)));
        splats
            .map(|entry| tell(&entry.terms, entry.about()))
            .chain(known.map(|entry| tell(&entry.terms, entry.about())))
            .collect()
    }
}

/// The current day in UTC by the host's clock.
fn today() -> NaiveDate {
    DateTime::<chrono::Utc>::from(SystemTime::now()).date_naive()
}

#[cfg(test)]
mod tests;
