//! What a search found, for a mailing list, for a web page, for a program. All three are functions of [`Report`].

mod mail;
mod markdown;

use super::{
    bench::Mark,
    posterior::{Direction, Tally},
    search::{Finding, Revert, Step},
};
use serde::Serialize;

/// A point's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Name {
    /// In tables: a kernel's id, a commit's short hash.
    pub short: String,
    /// What it is: a package with its version, a commit's title.
    pub long: String,
    /// For tools: a full hash, a version.
    pub exact: String,
}

/// Everything that is told.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The predicate in words: `A02-…[netkit] fails (match: exact)`.
    pub question: String,
    /// Whether that is a failure, and not merely something to know.
    pub failing: bool,
    /// What a case promises, where it is about one.
    pub promise: Option<String>,
    /// `kernel` or `commit`.
    pub unit: &'static str,
    /// What the old and the new end are called.
    pub terms: (String, String),
    /// Break or fix.
    pub direction: Direction,
    /// Every point's name, ends included.
    pub names: Vec<Name>,
    /// The confidence that was asked for.
    pub wanted: f64,
    /// The answer.
    pub finding: Finding,
    /// The culprit's own words: `git log`, or the package.
    pub culprit: Option<String>,
    /// What the failure looks like: signatures, then splat or failed check.
    pub failure: Vec<String>,
    /// Programs, accelerator, configuration.
    pub environment: Vec<(String, String)>,
    /// How anybody sees it again.
    pub reproduce: Vec<String>,
    /// For regzbot, the kernel's regression tracker.
    pub regzbot: Option<String>,
    /// `git bisect log`.
    pub log: Option<String>,
    /// What a person should know beside.
    pub notes: Vec<String>,
}

/// One line of the table of steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// From 1, in the order of testing.
    pub step: usize,
    /// The point.
    pub name: String,
    /// `3 of 3`; empty where nothing ran.
    pub fails: String,
    /// The mark in the user's terms.
    pub mark: String,
    /// Why, or what it is.
    pub remark: String,
}

impl Report {
    /// A point's mark, as the user calls it.
    pub fn term(&self, mark: Mark) -> &str {
        match mark {
            Mark::Old => &self.terms.0,
            Mark::New => &self.terms.1,
            Mark::Skip => "skip",
        }
    }

    /// One line for a step.
    pub fn row(&self, step: usize, it: &Step) -> Row {
        let name = &self.names[it.point];
        let same = it.same_as.map(|point| format!("same image as {}", self.names[point].short));
        let skipped = (it.mark == Mark::Skip).then(|| it.note.clone()).flatten();
        Row {
            step,
            name: name.short.clone(),
            fails: if it.tally == Tally::default() { String::new() } else { it.tally.to_string() },
            mark: self.term(it.mark).to_owned(),
            remark: skipped.or(same).unwrap_or_else(|| name.long.clone()),
        }
    }

    fn rows(&self) -> Vec<Row> {
        self.finding.steps.iter().enumerate().map(|(at, step)| self.row(at + 1, step)).collect()
    }

    /// What the culprit did.
    const fn deed(&self) -> &'static str {
        match self.direction {
            Direction::Break => "since",
            Direction::Fix => "no more since",
        }
    }

    /// The last two lines of everything: who it was, and how sure that is.
    pub fn last_lines(&self) -> String {
        let Finding { suspects, confidence, sure, .. } = &self.finding;
        let names = |points: &[usize]| {
            let name = |point: &usize| format!("{} ({})", self.names[*point].short, self.names[*point].long);
            points.iter().map(name).collect::<Vec<_>>().join(", ")
        };
        let who = match (&**suspects, sure) {
            ([culprit], true) => format!("culprit: {}", names(&[*culprit])),
            ([likeliest], false) if matches!(self.finding.revert, Some(Revert::Tested { cured: false, .. })) => {
                format!("culprit: not sure; the likeliest is {}, but without it nothing changes", names(&[*likeliest]))
            }
            (some, _) if *confidence >= self.wanted => format!("culprit: not sure, one of {}", names(some)),
            (some, _) => format!("culprit: not sure; the likeliest are {}", names(&some[..some.len().min(5)])),
        };
        format!("{who}\nconfidence: {} (wanted: {})", percent(*confidence), percent(self.wanted))
    }

    fn revert(&self) -> Option<String> {
        // Nobody takes a package's change back.
        let revert = self.finding.revert.as_ref().filter(|_| self.log.is_some())?;
        Some(match revert {
            Revert::Impossible { reason } => format!("not tested: {reason}"),
            Revert::Tested { tally, cured: true } => {
                let (old, new) = &self.terms;
                format!("{tally} runs fail: the {new} end is {old} again without it")
            }
            Revert::Tested { tally, cured: false } => {
                format!(
                    "{tally} runs fail: the {} end stays as it is without it; something else does it too",
                    self.terms.1
                )
            }
        })
    }

    /// For a kernel mailing list.
    pub fn mail(&self) -> String {
        mail::mail(self)
    }

    /// For a web page or an issue.
    pub fn markdown(&self) -> String {
        markdown::markdown(self)
    }

    /// For a program.
    ///
    /// # Errors
    /// Never in practice: every map has strings for keys.
    pub fn json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Whole<'a> {
            version: u32,
            culprit_name: Option<&'a Name>,
            table: Vec<Row>,
            #[serde(flatten)]
            report: &'a Report,
        }
        let culprit_name =
            self.finding.suspects.first().filter(|_| self.finding.sure).map(|culprit| &self.names[*culprit]);
        serde_json::to_string_pretty(&Whole { version: 1, culprit_name, table: self.rows(), report: self })
    }
}

/// Never rounded up to certainty.
fn percent(share: f64) -> String {
    let hundredths = (share * 1e4).floor() / 100.0;
    format!("{} %", hundredths.min(99.99))
}

#[cfg(test)]
mod tests;
