//! The verdicts that a suite's tests must have: `expected.toml`.

use crate::runs::{Cell, KERNELS, Told, Verdicts};
use serde::Deserialize;
use std::{collections::BTreeMap, fs};

pub const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/expected.toml");
/// Exit code of a selftest that skips.
const SKIP: u64 = 4;
/// A reason is a sentence.
const REASON: usize = 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    suite: BTreeMap<String, Expected>,
}

/// What is expected of a suite.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// What it is and where it comes from.
    about: String,
    /// The files to run, of suites that are files.
    #[serde(default)]
    pub tests: Vec<String>,
    /// The tests that do not pass.
    #[serde(default)]
    differs: Vec<Differs>,
}

/// A test that does not pass.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Differs {
    test: String,
    /// On these; all if there are none.
    #[serde(default)]
    kernels: Vec<String>,
    verdict: Wanted,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    Failed,
    Skipped,
    /// It passes or fails: the reason says what decides.
    Either,
}

fn read(text: &str) -> Document {
    toml::from_str(text).unwrap_or_else(|error| panic!("{FILE}: {error}"))
}

impl Expected {
    /// Of a suite.
    pub fn of(suite: &str) -> Self {
        let mut document = read(&fs::read_to_string(FILE).unwrap());
        document.suite.remove(suite).unwrap_or_else(|| panic!("{FILE} has no suite {suite}"))
    }

    fn on(&self, kernel: &str, test: &str) -> Option<&Differs> {
        self.differs
            .iter()
            .find(|it| it.test == test && (it.kernels.is_empty() || it.kernels.iter().any(|name| name == kernel)))
    }

    /// Compares the verdicts of every kernel; what does not fit, with the end of the output.
    #[must_use]
    pub fn check(&self, run: &BTreeMap<String, Cell>, read: impl Fn(&Cell) -> Verdicts) -> Vec<String> {
        let of = |(kernel, cell): (&String, &Cell)| {
            let verdicts = read(cell);
            // A suite that stops early has a test that failed, or an exit code of its own.
            let failed = verdicts.values().any(|told| *told == Told::Failed);
            let skips = verdicts.values().all(|told| *told == Told::Skipped);
            let fits = if failed { cell.code != Some(0) } else { cell.code == Some(if skips { SKIP } else { 0 }) };
            let code = (!fits)
                .then(|| format!("{kernel}: {}: the exit code is not that of the tests\n{}", self.about, cell.end()));
            code.into_iter().chain(self.check_one(kernel, &(verdicts, cell.end()))).collect::<Vec<_>>()
        };
        run.iter().flat_map(of).collect()
    }

    /// Compares the verdicts of one kernel; what does not fit, with the end of the output. Tests that the run left out are not
    /// missed; a suite that stops early is, by a test that failed.
    #[must_use]
    pub fn check_one(&self, kernel: &str, (verdicts, end): &(Verdicts, String)) -> Option<String> {
        let wrong: Vec<String> =
            verdicts.iter().filter_map(|(test, told)| self.objection(kernel, test, *told)).collect();
        let passed = verdicts.values().any(|told| *told == Told::Passed)
            || self.differs.iter().any(|it| verdicts.contains_key(&it.test));
        let objection = match () {
            () if verdicts.is_empty() => "no test told its verdict".to_owned(),
            () if !wrong.is_empty() => format!("{} of {FILE}:\n{}", self.about, wrong.join("\n")),
            () if !passed => format!("{}: nothing passed", self.about),
            () => return None,
        };
        Some(format!("{kernel}: {objection}\n{end}"))
    }

    fn objection(&self, kernel: &str, test: &str, told: Told) -> Option<String> {
        let wanted = self.on(kernel, test).map(|it| it.verdict);
        let fits = match (wanted, told) {
            // Skips are the suite's own answers to what a kernel has.
            (None, Told::Passed | Told::Skipped) | (Some(Wanted::Either), _) => true,
            (None, Told::Failed) => false,
            (Some(Wanted::Failed), told) => told == Told::Failed,
            (Some(Wanted::Skipped), told) => told == Told::Skipped,
        };
        (!fits).then(|| format!("  {test}: {told:?}, expected {wanted:?}"))
    }
}

/// Fails with all that did not fit, so that a night tells everything at once.
#[track_caller]
pub fn assert_all_fit(wrong: impl IntoIterator<Item = String>) {
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Every entry says why, and of kernels that there are.
pub fn check_reasons(text: &str) {
    for (suite, expected) in read(text).suite {
        assert!(expected.about.len() > REASON, "{suite}");
        for it in expected.differs {
            assert!(it.reason.len() > REASON, "{suite}: {}", it.test);
            assert!(it.kernels.iter().all(|kernel| KERNELS.contains(&kernel.as_str())), "{suite}: {}", it.test);
        }
    }
}
