//! Cells whose program is a test suite, or one test of it: what the suite prints is read while it runs, and held against the plan
//! and the program's end.

use lab_base::text;
use lab_dialects::{
    ALL, Conclusion, ProgramExit, SuiteAccount, SuiteDialect, SuiteOutput, TestMark, TestResult, conclude,
};
use lab_protocol::{
    CellId, CellInfo, CellReport, ErrorKind, FailureKind, Outcome, Raw, Work, cell::NO_DEADLINE, work::HowEnded,
};
use lab_record::{excuse::Excuse, plan::ADOPTED, verdict::Verdict};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

/// Most tests of one cell that are adopted; the cell's message counts the others.
pub const MAX_CHILDREN: usize = 4000;
/// Lines of a test's output in reports.
const LINES: usize = 40;

/// How the output of a cell is read.
#[derive(Debug, Clone)]
pub struct SuiteCell {
    /// What its program prints.
    pub dialect: SuiteDialect,
    /// The test that the cell is, as the suite names it; empty where the cell is the whole suite.
    pub own: Vec<String>,
    /// Tests that must report, as the suite lists them; of a cell that is the whole suite.
    pub expected: Vec<Vec<String>>,
    /// What names of tests are appended to.
    pub base: String,
    /// Variants of the cell, with brackets; may be empty.
    pub variant: String,
    /// Whether the command line gave its timeout, which then holds on every kernel, whatever the settings are.
    pub is_limited: bool,
    /// Its timeout for a fast guest, seconds, as its suite's settings have it: it grows with the accelerator's factor.
    pub settings_s: Option<u64>,
    /// Kernels that run another program for it: their own version of the test.
    pub on: BTreeMap<String, OwnProgram>,
}

/// A kernel's own version of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnProgram {
    /// Its folder.
    pub cwd: PathBuf,
    /// Its command.
    pub argv: Vec<Raw>,
    /// Its timeout for a fast guest, seconds.
    pub settings_s: Option<u64>,
    /// Tests of this version that must report, beside those of the cell.
    pub expected: Vec<Vec<String>>,
}

/// The cells of a run that are of suites.
#[derive(Debug, Clone, Default)]
pub struct SuiteCells(BTreeMap<CellId, SuiteCell>);

impl FromIterator<(CellId, SuiteCell)> for SuiteCells {
    fn from_iter<T: IntoIterator<Item = (CellId, SuiteCell)>>(cells: T) -> Self {
        Self(cells.into_iter().collect())
    }
}

impl SuiteCells {
    /// How a cell is read; `None` if its program is no suite.
    pub fn get(&self, cell: &CellId) -> Option<&SuiteCell> {
        self.0.get(cell)
    }
}

impl SuiteCell {
    /// Adapts the work of the cell to a kernel, in a guest that is `scale` times slower than one under KVM.
    pub fn prepare(&self, work: &mut Work, kernel: &str, scale: f32) {
        let Work::Program(program) = work else { return };
        let own = self.on.get(kernel);
        if let Some(own) = own {
            program.argv.clone_from(&own.argv);
            program.cwd = Raw::from(own.cwd.as_os_str().as_encoded_bytes());
            if let Some(world) = &mut program.world {
                world.cwd = own.cwd.as_os_str().as_encoded_bytes().to_vec();
            }
        }
        if !self.is_limited {
            program.timeout_ms = self.limit(kernel).map(|seconds| scaled_ms(seconds, scale));
        }
        let is_stated = |name: &[u8]| program.env.iter().any(|(stated, _)| stated.as_bytes() == name);
        if self.dialect == SuiteDialect::Kselftest && scale > 1.0 && !is_stated(SLOW.as_bytes()) {
            program.env.push((Raw::from(SLOW), Raw::from("yes")));
        }
    }

    /// The timeout of the suite's settings on a kernel, seconds; `None` if they have none, or if the caller gave another.
    fn limit(&self, kernel: &str) -> Option<u64> {
        if self.is_limited {
            return None;
        }
        self.on.get(kernel).map_or(self.settings_s, |own| own.settings_s)
    }

    /// The timeout of the suite's settings as a person reads it: `3600 s of its settings × 6.0`.
    fn shown_limit(&self, kernel: &str, scale: f32) -> Option<String> {
        let seconds = self.limit(kernel)?;
        let factor = scale.max(1.0);
        let slow = if factor > 1.0 { format!(" × {factor:.1}, the accelerator's factor") } else { String::new() };
        Some(format!("{seconds} s of its settings{slow}"))
    }

    /// The id of a test.
    pub fn id(&self, path: &[String]) -> CellId {
        let name = path.join(self.dialect.separator());
        CellId(format!("{}{name}{}", self.base, self.variant).into())
    }
}

/// Variable by which selftests know that time passes slowly (kselftest, net/lib.sh).
const SLOW: &str = "KSFT_MACHINE_SLOW";

/// Seconds on a fast machine as milliseconds in a guest.
fn scaled_ms(seconds: u64, scale: f32) -> u64 {
    let longer = Duration::from_secs(seconds).mul_f32(scale.max(1.0)).as_millis();
    u64::try_from(longer).unwrap_or(u64::MAX)
}

/// A test that a suite reported.
#[derive(Debug, Clone)]
pub struct Child {
    /// What is known of it.
    pub info: CellInfo,
    report: CellReport,
    warnings: Vec<String>,
    expected: Option<String>,
}

impl Child {
    fn new(cell: &SuiteCell, parent: &CellInfo, result: &TestResult) -> Self {
        let id = cell.id(&result.path);
        let message =
            if result.reason.is_empty() { "the suite gives no reason".to_owned() } else { result.reason.clone() };
        let outcome = match result.mark {
            TestMark::Passed | TestMark::UnexpectedPass => Outcome::Passed,
            TestMark::Failed | TestMark::ExpectedFailure => Outcome::Failed { kind: FailureKind::Check, message },
            TestMark::Skipped => Outcome::SkippedItself { message: result.reason.clone() },
            TestMark::Errored => Outcome::Errored { kind: ErrorKind::NoResult, message },
        };
        let lines = result.output.lines().rev().take(LINES).map(str::to_owned);
        let mut log: Vec<String> = lines.collect();
        log.reverse();
        let duration = result.duration.unwrap_or_default();
        let duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let warning = "passes, but the suite expects it to fail".to_owned();
        Self {
            info: CellInfo {
                id: id.clone(),
                catalogue: String::new(),
                area: if result.class.is_empty() { parent.area.clone() } else { result.class.clone() },
                title: result.path.last().cloned().unwrap_or_default(),
                topology: ADOPTED.to_owned(),
                attach: None,
                device: parent.device,
                requires: Vec::new(),
                deadline_ms: NO_DEADLINE,
                work: Work::Case,
                file: if result.file.is_empty() { parent.file.clone() } else { result.file.clone() },
                line: 0,
            },
            report: CellReport { log, duration_us, ..CellReport::bare(id, outcome) },
            warnings: (result.mark == TestMark::UnexpectedPass).then_some(warning).into_iter().collect(),
            expected: (result.mark == TestMark::ExpectedFailure).then(|| result.reason.clone()),
        }
    }

    /// What it says of itself, without the lists of the project.
    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::on(self.report.clone(), self.report.outcome.clone());
        verdict.warnings.clone_from(&self.warnings);
        self.excuse(&mut verdict);
        verdict
    }

    /// Excuses a failure that the suite itself expects.
    pub fn excuse(&self, verdict: &mut Verdict) {
        let is_failure = matches!(verdict.outcome, Outcome::Failed { .. });
        if let Some(reason) = self.expected.as_ref().filter(|_| is_failure && verdict.known.is_none()) {
            let reason = format!("the suite expects it to fail: {reason}");
            verdict.known =
                Some(Excuse { reason: reason.trim_end_matches([':', ' ']).to_owned(), link: None, expires: None });
        }
    }
}

/// What the suite of a cell reported in each attempt, with the number of its guest, oldest first.
pub type ReportedChildren = Vec<(u32, Vec<Child>)>;

/// The output of one attempt at a cell.
#[derive(Debug)]
pub struct SuiteReading<'a> {
    cell: &'a SuiteCell,
    info: CellInfo,
    /// The kernel's own version of the test.
    own: Option<&'a OwnProgram>,
    /// Its timeout, where that is of the suite's settings.
    limit: Option<String>,
    reading: SuiteOutput,
}

impl<'a> SuiteReading<'a> {
    /// Nothing is read yet. The guest is `scale` times slower than one under KVM.
    pub fn new(cell: &'a SuiteCell, info: &CellInfo, kernel: &str, scale: f32) -> Self {
        let limit = cell.shown_limit(kernel, scale);
        let own = cell.on.get(kernel);
        Self { cell, info: info.clone(), own, limit, reading: SuiteOutput::new(cell.dialect) }
    }

    /// The program wrote.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.reading.feed(bytes);
    }

    /// The program has ended, or its guest was lost. Sets the outcome of its report, and gives the other tests.
    pub fn close(self, report: Option<&mut CellReport>) -> Vec<Child> {
        let Self { cell, info, own, limit, reading } = self;
        let account = reading.end();
        let is_lost = report.is_none();
        let expected = cell.expected.iter().chain(own.iter().flat_map(|own| &own.expected));
        let missing = missing(expected, &account, is_lost);
        if let Some(report) = report {
            outcome(cell, &account, &missing, report);
            if let Some(limit) = limit {
                let is_over = matches!(report.program.as_ref().map(|end| &end.how), Some(HowEnded::TimedOut { .. }));
                if let Outcome::Failed { message, .. } = &mut report.outcome
                    && is_over
                {
                    *message = format!("{message} (timeout: {limit})");
                }
                report.log.push(format!("timeout: {limit}"));
            }
        }
        let mut account_results = account.results;
        // A skip of the whole is the cell's own.
        account_results.retain(|result| result.path != [ALL] || result.mark != TestMark::Skipped);
        if !cell.own.is_empty() {
            account_results.retain(|result| result.path != cell.own);
        }
        let all = account_results.iter().chain(&missing).take(MAX_CHILDREN);
        all.map(|result| Child::new(cell, &info, result)).collect()
    }
}

/// Planned tests that reported nothing.
fn missing<'a>(
    expected: impl Iterator<Item = &'a Vec<String>>,
    account: &SuiteAccount,
    is_lost: bool,
) -> Vec<TestResult> {
    let seen: BTreeSet<&[String]> = account.results.iter().map(|result| &*result.path).collect();
    let why = if is_lost { "its guest was lost before it reported" } else { "planned, and never reported" };
    let never = expected.filter(|path| !seen.contains(&***path));
    never.map(|path| TestResult::new(path.iter().map(String::as_str), TestMark::Errored).because(why)).collect()
}

/// The outcome of a program that ran to its end.
fn outcome(cell: &SuiteCell, account: &SuiteAccount, missing: &[TestResult], report: &mut CellReport) {
    report.log.extend(account.faults.iter().map(|fault| format!("fault: {fault}")));
    let count = account.results.iter().filter(|result| result.path != cell.own).count();
    report.metrics.insert("tests".to_owned(), count as f64);
    if count > MAX_CHILDREN {
        report.log.push(format!("{} tests beyond the first {MAX_CHILDREN} are no cells", count - MAX_CHILDREN));
    }
    let end = match report.program.as_ref().map(|end| &end.how) {
        Some(HowEnded::Exited { code }) => ProgramExit::Exited(*code),
        Some(HowEnded::Killed { signal, .. }) => ProgramExit::Killed(*signal),
        Some(HowEnded::TimedOut { .. }) => ProgramExit::TimedOut,
        Some(HowEnded::NotStarted { .. }) | None => return,
    };
    // What else the agent says, a leak for example, is no matter of the suite.
    if !matches!(report.outcome, Outcome::Passed | Outcome::Failed { kind: FailureKind::Exit, .. }) {
        return;
    }
    let own = account.results.iter().find(|result| result.path == cell.own);
    let conclusion = conclude(cell.dialect, account, end);
    let exit = report.outcome.message();
    report.outcome = match (conclusion, own) {
        (Conclusion::AsItEnded, _) => return,
        (Conclusion::Errored(message), _) if matches!(end, ProgramExit::Exited(126 | 127)) => {
            Outcome::Errored { kind: ErrorKind::NotStarted, message }
        }
        (Conclusion::Errored(message), _) => Outcome::Errored { kind: ErrorKind::NoResult, message },
        (Conclusion::Failed(message), None) if !cell.own.is_empty() => Outcome::Errored {
            kind: ErrorKind::NoResult,
            message: format!("the test never reported; {message}{}", shown(&exit)),
        },
        (_, None) if !cell.own.is_empty() => {
            Outcome::Errored { kind: ErrorKind::NoResult, message: "the test never reported".to_owned() }
        }
        (Conclusion::Passed | Conclusion::Skipped(_), Some(own)) if own.mark == TestMark::Skipped => {
            Outcome::SkippedItself { message: own.reason.clone() }
        }
        (Conclusion::Skipped(message), None) => Outcome::SkippedItself { message },
        (Conclusion::Failed(message), Some(own)) if own.mark.is_bad() && account.first_bad() == Some(own) => {
            let message = if own.reason.is_empty() { message } else { own.reason.clone() };
            match own.mark {
                TestMark::Errored => Outcome::Errored { kind: ErrorKind::NoResult, message },
                _ => Outcome::Failed { kind: FailureKind::Check, message },
            }
        }
        (Conclusion::Failed(message), _) if account.first_bad().is_none() => {
            Outcome::Failed { kind: FailureKind::Check, message: format!("{message}{}", shown(&exit)) }
        }
        (Conclusion::Failed(message), _) => Outcome::Failed { kind: FailureKind::Check, message },
        (Conclusion::Passed | Conclusion::Skipped(_), _) => match missing {
            [] => Outcome::Passed,
            [first, rest @ ..] => {
                let more = if rest.is_empty() { String::new() } else { format!(", nor did {} more", rest.len()) };
                let name = first.full_name(cell.dialect.separator());
                Outcome::Errored { kind: ErrorKind::NoResult, message: format!("{name} never reported{more}") }
            }
        },
    };
    // Of the suite's own known failure, the cell passes with it in its log.
    if let Some(own) = own.filter(|own| own.mark == TestMark::ExpectedFailure) {
        report.log.push(text::line(&format!("the suite expects this failure: {}", own.reason), 400));
    }
}

/// What a program's end said, behind another message.
fn shown(exit: &str) -> String {
    // `exit: exit code 1: LAST LINE`: the code is told already.
    exit.splitn(3, ": ").nth(2).map_or_else(String::new, |line| format!(": {line}"))
}
