//! What a suite reported.

use lab_base::text;
use std::{collections::BTreeMap, time::Duration};

/// Name of the result of a program that skips itself as a whole, where the dialect has no name for it.
pub const ALL: &str = "all";
/// Most results of one program.
pub const MAX_RESULTS: usize = 20_000;
/// Most faults that are kept.
pub const MAX_FAULTS: usize = 50;
/// Most levels of a test's name.
pub const MAX_DEPTH: usize = 16;
/// Characters of one level of a name.
pub const MAX_NAME: usize = 200;
/// Characters of a reason.
pub const MAX_REASON: usize = 400;
/// Bytes of a test's output.
pub const MAX_OUTPUT: usize = 4 << 10;

/// How a test ended, by the suite's own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TestMark {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It did not run.
    Skipped,
    /// It failed, as the suite expects.
    ExpectedFailure,
    /// It passed, and the suite expects it to fail.
    UnexpectedPass,
    /// It began and never ended, or it could not be run.
    Errored,
}

impl TestMark {
    /// Whether it makes its suite fail.
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::Errored)
    }
}

/// A test that a suite reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestResult {
    /// Its name, from the outermost test on.
    pub path: Vec<String>,
    /// How it ended.
    pub mark: TestMark,
    /// Why, one line; may be empty.
    pub reason: String,
    /// The end of what it printed.
    pub output: String,
    /// How long it took, if the suite says it.
    pub duration: Option<Duration>,
    /// The class that the suite gives it, for JUnit.
    pub class: String,
    /// Its source file, if the suite says it.
    pub file: String,
}

impl TestResult {
    /// A test of this name.
    pub fn new<'a>(path: impl IntoIterator<Item = &'a str>, mark: TestMark) -> Self {
        Self {
            path: path.into_iter().map(name).filter(|part| !part.is_empty()).take(MAX_DEPTH).collect(),
            mark,
            reason: String::new(),
            output: String::new(),
            duration: None,
            class: String::new(),
            file: String::new(),
        }
    }

    /// With a reason.
    #[must_use]
    pub fn because(mut self, reason: &str) -> Self {
        self.reason = text::line(reason.trim(), MAX_REASON);
        self
    }

    /// With output.
    #[must_use]
    pub fn printing(mut self, output: &Printed) -> Self {
        self.output = output.text();
        self
    }

    /// With a duration in seconds.
    #[must_use]
    pub fn taking(mut self, seconds: Option<f64>) -> Self {
        self.duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        self
    }

    /// Its name on one line, as the suites with levels write it.
    pub fn full_name(&self, separator: &str) -> String {
        self.path.join(separator)
    }
}

/// A name without control characters, with single blanks, of bounded length.
pub fn name(text: &str) -> String {
    text::line(&text.split_whitespace().collect::<Vec<_>>().join(" "), MAX_NAME)
}

/// The end of what a test printed, bounded.
#[derive(Debug, Clone, Default)]
pub struct Printed {
    kept: String,
}

impl Printed {
    /// Adds a line.
    pub fn line(&mut self, line: &str) {
        self.kept.push_str(&text::line(line, MAX_REASON));
        self.kept.push('\n');
        if self.kept.len() > MAX_OUTPUT {
            let from = self.kept.len() - MAX_OUTPUT;
            let from = (from..self.kept.len()).find(|at| self.kept.is_char_boundary(*at)).unwrap_or(from);
            self.kept.drain(..from);
        }
    }

    /// The first line that is not empty.
    pub fn first(&self) -> &str {
        self.kept.lines().find(|line| !line.trim().is_empty()).unwrap_or_default()
    }

    /// The last line that is not empty.
    pub fn last(&self) -> &str {
        self.kept.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default()
    }

    /// The last line that contains this mark, else the last line that is not empty.
    pub fn last_with(&self, mark: &str) -> &str {
        self.kept.lines().rfind(|line| line.contains(mark)).unwrap_or_else(|| self.last())
    }

    /// The last line that says something, without the marks that the selftests' Python puts before each line of an exception
    /// (`# Exception| `, net/lib/py/ksft.py).
    pub fn last_said(&self) -> &str {
        let bare = |line| {
            let line = str::trim(line).trim_start_matches('#').trim_start();
            let marked =
                line.split_once('|').filter(|(mark, _)| matches!(*mark, "Exception" | "Defer Exception" | "Check"));
            marked.map_or(line, |(_, said)| said.trim())
        };
        self.kept.lines().map(bare).rfind(|said| !said.is_empty()).unwrap_or_default()
    }

    /// All that is kept.
    pub fn text(&self) -> String {
        self.kept.clone()
    }
}

/// What a program reported, with what is wrong in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SuiteAccount {
    /// Its tests, in the order of their results. No name occurs twice: a repeated one has its number behind it, `name#2`.
    pub results: Vec<TestResult>,
    /// Contradictions and gaps, one line each: a plan that ended early, a lost line, a summary that does not fit.
    pub faults: Vec<String>,
    /// Results beyond [`MAX_RESULTS`].
    pub dropped: usize,
    seen: BTreeMap<Vec<String>, usize>,
}

impl SuiteAccount {
    /// Adds a result.
    pub fn push(&mut self, mut result: TestResult) {
        if result.path.is_empty() {
            result.path.push("unnamed".to_owned());
        }
        if self.results.len() >= MAX_RESULTS {
            self.dropped += 1;
            return;
        }
        // A name may be one that a repeated one was given.
        loop {
            let count = self.seen.entry(result.path.clone()).or_insert(0);
            *count += 1;
            if *count == 1 {
                break;
            }
            let number = *count;
            if let Some(last) = result.path.last_mut() {
                *last = format!("{last}#{number}");
            }
        }
        self.results.push(result);
    }

    /// Adds a fault.
    pub fn fault(&mut self, fault: impl AsRef<str>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(text::line(fault.as_ref(), MAX_REASON));
        }
    }

    /// How many tests ended so.
    pub fn count(&self, mark: TestMark) -> usize {
        self.results.iter().filter(|result| result.mark == mark).count()
    }

    /// The first test that makes the suite fail.
    pub fn first_bad(&self) -> Option<&TestResult> {
        self.results.iter().find(|result| result.mark.is_bad())
    }
}
