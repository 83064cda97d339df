//! JUnit XML: one testsuite per kernel, and per case the attach type that was asked for and the one that the kernel
//! reported.
//!
//! The text is a function of the record alone, so that `lab report` rebuilds the same bytes from `events.jsonl`.

use super::{
    Reporter,
    complaints::{Complaint, complaints},
    record::{KernelRecord, RunRecord, used},
    rows,
};
use crate::{
    error::Error,
    event::{Event, RunInfo, Stamped},
    lists::Expired,
    plan::{PlannedCell, PlannedKernel},
    report::directory,
    shard::MergedShard,
    text,
    verdict::{Attempt, Standing, Verdict},
};
use chrono::{DateTime, FixedOffset};
use lab_protocol::{AttachRecord, CellId, CellInfo, Outcome};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestRerun, TestSuite};
use std::{collections::HashMap, fmt::Write as _, io, path::PathBuf, time::Duration};

/// The file's name, in a run's directory and in each kernel's.
pub const FILE: &str = "junit.xml";
/// Characters of a message attribute.
const MAX_MESSAGE: usize = 1000;
/// Characters of an element's text.
const MAX_OUTPUT: usize = 64 << 10;

/// Whose JUnit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// With what most consumers read: properties of a case, and how many assertions it made.
    Common,
    /// Nothing but what `junit-10.xsd` of Jenkins' xUnit plugin allows, since the plugin refuses a file that has more.
    /// Properties are lines of the case's output, in the form `[[PROPERTY|name=value]]`.
    Jenkins,
}

/// Writes the whole run's file and one per kernel when the run has finished.
#[derive(Debug)]
pub struct JunitReporter {
    /// The run's directory.
    pub directory: PathBuf,
}

impl Reporter for JunitReporter {
    fn event(&mut self, stamped: &Stamped, record: &RunRecord) -> Result<(), Error> {
        match &stamped.event {
            Event::RunFinished { .. } => self.write(record),
            // A runner that dies later leaves the kernels that are through.
            Event::KernelFinished { kernel, .. } => self.write_finished(record, kernel),
            _ => Ok(()),
        }
    }
}

impl JunitReporter {
    /// Writes every file.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn write(&self, record: &RunRecord) -> Result<(), Error> {
        let path = self.directory.join(FILE);
        let mut failed = None;
        // A kernel's file is its part of the whole, with a root of its own: thousands of cells are rendered once.
        let mut kernel = |id: &str, suite: &str| {
            if failed.is_none() {
                failed = self.write_kernel(record, id, suite).err();
            }
        };
        directory::replace_with(&path, |out| render_to(record, None, Dialect::Common, &mut kernel, out))?;
        failed.map_or(Ok(()), Err)
    }

    fn write_kernel(&self, record: &RunRecord, kernel: &str, suite: &str) -> Result<(), Error> {
        let path = directory::kernel(&self.directory, kernel)?.join(FILE);
        directory::replace_with(&path, |out| {
            let counts = Counts::of(record, Some(kernel));
            out.write_all(root(record, &counts, Dialect::Common).as_bytes())?;
            out.write_all(suite.as_bytes())?;
            out.write_all(END.as_bytes())
        })
    }

    fn write_finished(&self, record: &RunRecord, kernel: &str) -> Result<(), Error> {
        let path = directory::kernel(&self.directory, kernel)?.join(FILE);
        directory::replace_with(&path, |out| render_to(record, Some(kernel), Dialect::Common, &mut |_, _| (), out))
    }
}

/// The root's end.
const END: &str = "</testsuites>\n";

/// The XML of the whole run, or of one kernel.
pub fn render(record: &RunRecord, only: Option<&str>, dialect: Dialect) -> String {
    let mut out = Vec::new();
    // Writing into memory can't fail.
    let written = render_to(record, only, dialect, &mut |_, _| (), &mut out);
    debug_assert!(written.is_ok(), "{written:?}");
    String::from_utf8_lossy(&out).into_owned()
}

/// Writes the XML suite by suite, so that no more than one kernel's is in memory; each kernel's goes to `each` too.
fn render_to(
    record: &RunRecord,
    only: Option<&str>,
    dialect: Dialect,
    each: &mut dyn FnMut(&str, &str),
    out: &mut dyn io::Write,
) -> io::Result<()> {
    out.write_all(root(record, &Counts::of(record, only), dialect).as_bytes())?;
    if let Some(info) = &record.info {
        let listed = record.listing().map(|cell| (&cell.id, cell)).collect();
        let desk = Desk { record, info, listed, complaints: complaints(record), dialect };
        for (kernel, happened) in record.planned() {
            if only.is_none_or(|id| id == kernel.facts.id) {
                let text = alone(desk.suite(kernel, happened));
                each(&kernel.facts.id, &text);
                out.write_all(text.as_bytes())?;
            }
        }
        if only.is_none() {
            for suite in whole(record, info) {
                out.write_all(alone(suite).as_bytes())?;
            }
        }
    }
    out.write_all(END.as_bytes())
}

/// What belongs to no kernel, and fails the run.
fn whole(record: &RunRecord, info: &RunInfo) -> Vec<TestSuite> {
    let dead = record.dead_cases();
    let lost = info.merged.iter().any(|shard| shard.problem().is_some());
    let dead = (!dead.is_empty()).then(|| dead_suite(&dead));
    let expired = (!info.expired.is_empty()).then(|| expired_suite(&info.expired));
    dead.into_iter().chain(expired).chain(lost.then(|| shards_suite(&info.merged))).collect()
}

/// What the root says of all suites together.
#[derive(Default)]
struct Counts {
    tests: usize,
    skipped: usize,
    failures: usize,
    errors: usize,
}

impl Counts {
    fn of(record: &RunRecord, only: Option<&str>) -> Self {
        let mut counts = Self::default();
        let wanted = |kernel: &PlannedKernel| only.is_none_or(|id| id == kernel.facts.id);
        for (_, _, verdict) in record.verdicts().filter(|(kernel, ..)| wanted(kernel)) {
            counts.tests += 1;
            match &status(&verdict) {
                TestCaseStatus::Success { .. } => {}
                TestCaseStatus::Skipped { .. } => counts.skipped += 1,
                TestCaseStatus::NonSuccess { kind: NonSuccessKind::Failure, .. } => counts.failures += 1,
                TestCaseStatus::NonSuccess { kind: NonSuccessKind::Error, .. } => counts.errors += 1,
            }
        }
        for suite in record.info.iter().filter(|_| only.is_none()).flat_map(|info| whole(record, info)) {
            counts.tests += suite.tests;
            counts.failures += suite.failures;
            counts.errors += suite.errors;
        }
        counts
    }
}

/// The declaration and the root's first line.
fn root(record: &RunRecord, counts: &Counts, dialect: Dialect) -> String {
    let mut report = Report::new("netkit-lab");
    if dialect == Dialect::Common {
        report.timestamp = time(record.started_ms);
    }
    if let Some((_, wall_ms)) = record.finished {
        report.set_time(Duration::from_millis(wall_ms));
    }
    (report.tests, report.skipped) = (counts.tests, counts.skipped);
    (report.failures, report.errors) = (counts.failures, counts.errors);
    let text = written(&report);
    let head = text.strip_suffix(END).unwrap_or(&text);
    match dialect {
        Dialect::Common => head.to_owned(),
        // The schema has no such count there.
        Dialect::Jenkins => head.replacen(&format!(" skipped=\"{}\"", counts.skipped), "", 1),
    }
}

/// A suite's lines as they are within the root.
fn alone(suite: TestSuite) -> String {
    let mut report = Report::unnamed();
    report.add_test_suite(suite);
    let mut text = written(&report);
    text.truncate(text.strip_suffix(END).map_or(text.len(), str::len));
    // Without the declaration and the root, which have a line each.
    let begin = text.match_indices('\n').nth(1).map_or(0, |(at, _)| at + 1);
    text.drain(..begin);
    text
}

fn written(report: &Report) -> String {
    let mut out = Vec::new();
    // Writing into memory can't fail, and every string has been made valid XML.
    let written = report.serialize(&mut out);
    debug_assert!(written.is_ok(), "{written:?}");
    String::from_utf8(out).unwrap_or_default()
}

fn time(ms: u64) -> Option<DateTime<FixedOffset>> {
    DateTime::from_timestamp_millis(i64::try_from(ms).ok()?).map(Into::into)
}

/// Cases that no kernel of the matrix can run fail the run, so they must show here too.
fn dead_suite(cases: &[String]) -> TestSuite {
    let mut suite = TestSuite::new("matrix");
    for case in cases {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message("no kernel of the matrix can run this case").set_type("dead-case");
        let mut test = TestCase::new(text::line(case, MAX_MESSAGE), status);
        test.set_classname("matrix");
        suite.add_test_case(test);
    }
    suite
}

/// Entries of the lists that nobody looked at in time fail the run by themselves.
fn expired_suite(entries: &[Expired]) -> TestSuite {
    let mut suite = TestSuite::new("lists");
    for entry in entries {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message(text::line(&entry.message(), MAX_MESSAGE)).set_type("expired");
        let mut test = TestCase::new(format!("{}:{}", entry.file, entry.line), status);
        test.set_classname("lists");
        suite.add_test_case(test);
    }
    suite
}

/// Shards that a merged run lacks are errors of their own: their cells alone might look like somebody's filter.
fn shards_suite(shards: &[MergedShard]) -> TestSuite {
    let mut suite = TestSuite::new("shards");
    for shard in shards {
        let status = match shard.problem() {
            None => TestCaseStatus::success(),
            Some(problem) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                status.set_message(problem).set_type("shard");
                status
            }
        };
        let mut test = TestCase::new(format!("shard {}", shard.part), status);
        test.set_classname("shards");
        suite.add_test_case(test);
    }
    suite
}

/// What every suite is made from.
struct Desk<'a> {
    record: &'a RunRecord,
    info: &'a RunInfo,
    /// The plan's cells by id: a run has thousands.
    listed: HashMap<&'a CellId, &'a CellInfo>,
    /// What the kernels complained of, each once.
    complaints: Vec<Complaint>,
    dialect: Dialect,
}

impl Desk<'_> {
    fn suite(&self, kernel: &PlannedKernel, happened: Option<&KernelRecord>) -> TestSuite {
        let (facts, info) = (&kernel.facts, self.info);
        let mut suite = TestSuite::new(&facts.id);
        if let Some(happened) = happened {
            suite.timestamp = time(happened.started_ms).filter(|_| happened.started_ms > 0);
            suite.time = happened.finished.map(|(wall_ms, _)| Duration::from_millis(wall_ms));
        }
        let boot = happened.and_then(|happened| happened.boot.as_ref());
        let image = happened.and_then(|happened| happened.image.as_ref());
        let known =
            |text: Option<&str>| text.map_or_else(|| "unknown".to_owned(), |text| text::line(text, MAX_MESSAGE));
        for (name, value) in [
            ("kernel.release", known(boot.map(|boot| &*boot.release))),
            ("kernel.version", facts.version.to_string()),
            ("kernel.class", facts.class.clone()),
            ("image.key", known(image.map(|image| &*image.key))),
            ("accelerator", info.accelerator.name.clone()),
            ("accelerator.reason", text::line(&info.accelerator.reason, MAX_MESSAGE)),
            ("virtme-ng.version", info.versions.virtme_ng.clone()),
            ("qemu.version", info.versions.qemu.clone()),
            ("lab.version", info.versions.lab.clone()),
        ] {
            suite.add_property((name, &*value));
        }
        if let Some(mutant) = &info.mutant {
            suite.add_property(("mutant", &**mutant));
        }
        for cell in rows::around(kernel) {
            if let Some(listed) = self.listed.get(&cell.id) {
                suite.add_test_case(self.case(kernel, cell, listed, &self.record.verdict(happened, cell)));
            }
        }
        let told: Vec<&str> =
            happened.iter().flat_map(|it| it.losses.iter().chain(&it.notes)).map(|line| &**line).collect();
        if !told.is_empty() {
            suite.set_system_out(text::block(&told.join("\n"), MAX_OUTPUT));
        }
        suite
    }

    fn case(&self, kernel: &PlannedKernel, cell: &PlannedCell, listed: &CellInfo, verdict: &Verdict) -> TestCase {
        let mut status = status(verdict);
        // Jenkins' schema allows nothing but the last attempt.
        if self.dialect == Dialect::Common {
            status.add_reruns(verdict.earlier.iter().map(rerun));
        }
        let mut case = TestCase::new(text::line(cell.id.as_str(), MAX_MESSAGE), status);
        case.set_classname(format!("{}.{}", kernel.facts.id, text::line(&listed.area, MAX_MESSAGE)));
        case.set_time(Duration::from_micros(verdict.report.duration_us));
        // Properties first: what is cut off is the end.
        let mut told = String::new();
        for (name, value) in self.properties(kernel, cell, listed, verdict) {
            match self.dialect {
                Dialect::Common => drop(case.add_property((name, &*value))),
                Dialect::Jenkins => drop(writeln!(told, "[[PROPERTY|{name}={value}]]")),
            }
        }
        if self.dialect == Dialect::Common {
            case.set_assertions(verdict.report.checks.len());
        }
        told.push_str(&output(listed, verdict));
        for splat in &verdict.splats {
            let complaint = self.complaints.iter().find(|it| it.fingerprint == splat.fingerprint);
            if let Some(complaint) = complaint {
                let _ = writeln!(told, "splat {}: {}", complaint.fingerprint, complaint.sightings());
            }
        }
        case.set_system_out(text::block(&told, MAX_OUTPUT));
        if let Some(evidence) = &verdict.evidence {
            case.set_system_err(text::block(evidence, MAX_OUTPUT));
        }
        case
    }

    /// Those that have a value.
    fn properties(
        &self,
        kernel: &PlannedKernel,
        cell: &PlannedCell,
        listed: &CellInfo,
        verdict: &Verdict,
    ) -> impl Iterator<Item = (&'static str, String)> {
        let attachments = &verdict.report.attach;
        let all = |value: &dyn Fn(&AttachRecord) -> Option<String>| {
            let mut values: Vec<String> = Vec::new();
            for value in attachments.iter().filter_map(value) {
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            values.join("+")
        };
        let used: Vec<&str> = used(verdict).iter().map(|used| used.name()).collect();
        let required = cell.required.map_or_else(String::new, |required| required.to_string());
        let fingerprints: Vec<&str> = verdict.splats.iter().map(|splat| &*splat.fingerprint).collect();
        let classes: Vec<&str> = verdict.splats.iter().map(|splat| splat.class.name()).collect();
        let known = verdict.known.as_ref();
        let attempts = if verdict.earlier.is_empty() { String::new() } else { (verdict.earlier.len() + 1).to_string() };
        let standing = verdict.standing();
        let told = matches!(standing, Standing::Flaky | Standing::Known) || verdict.is_unexpected_pass();
        let word = if verdict.is_unexpected_pass() { "unexpected-pass" } else { standing.word() };
        let properties = [
            ("standing", if told { word.to_owned() } else { String::new() }),
            ("attempts", attempts),
            ("splat.fingerprint", fingerprints.join("+")),
            ("splat.class", classes.join("+")),
            ("known.reason", known.map_or_else(String::new, |it| text::line(&it.reason, MAX_MESSAGE))),
            (
                "known.link",
                known.and_then(|it| it.link.as_deref()).map_or_else(String::new, |it| text::line(it, MAX_MESSAGE)),
            ),
            ("known.expires", known.map_or_else(String::new, |it| it.expires.clone())),
            ("attach.requested", listed.attach.map_or_else(String::new, |request| request.to_string())),
            ("attach.required", required),
            ("attach.used", used.join("+")),
            ("attach.hook", all(&|record| record.hook.map(|hook| hook.name().to_owned()))),
            ("attach.link_id", all(&|record| record.link_id.map(|id| id.to_string()))),
            ("attach.prog_id", all(&|record| Some(record.prog_id.to_string()))),
            ("repro", text::line(&self.record.repro(&kernel.facts.id, &cell.id), MAX_MESSAGE)),
        ];
        properties.into_iter().filter(|(_, value)| !value.is_empty())
    }
}

fn status(verdict: &Verdict) -> TestCaseStatus {
    let message = text::line(&verdict.outcome.message(), MAX_MESSAGE);
    let bad = |kind, name: String| {
        let mut status = TestCaseStatus::non_success(kind);
        status.set_message(&message).set_type(name);
        // Many consumers show the element's text and nothing else of it.
        status.set_description(text::block(&story(verdict), MAX_OUTPUT));
        status
    };
    if let (Standing::Known, Some(known)) = (verdict.standing(), &verdict.known) {
        // What is known must not turn a consumer red, and must not look like a pass either.
        let mut status = TestCaseStatus::skipped();
        let message = text::line(&format!("known {}: {message}", known.line()), MAX_MESSAGE);
        status.set_message(&message).set_type("known");
        status.set_description(text::block(&story(verdict), MAX_OUTPUT));
        return status;
    }
    match &verdict.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Failed { kind, .. } => bad(NonSuccessKind::Failure, kind.to_string()),
        Outcome::Errored { kind, .. } => bad(NonSuccessKind::Error, kind.to_string()),
        Outcome::NotRun { .. } => bad(NonSuccessKind::Error, "not-run".to_owned()),
        Outcome::Skipped { reason } => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(&message).set_type(reason.capability.to_string());
            // Some readers take an element without text for one that is not there.
            status.set_description(message);
            status
        }
    }
}

/// An attempt before the last one: `flakyFailure` where the cell passed in the end, `rerunFailure` where it did not, as
/// surefire writes them.
fn rerun(attempt: &Attempt) -> TestRerun {
    let (kind, word) = match &attempt.outcome {
        Outcome::Failed { kind, .. } => (NonSuccessKind::Failure, kind.to_string()),
        Outcome::Errored { kind, .. } => (NonSuccessKind::Error, kind.to_string()),
        other => (NonSuccessKind::Error, other.word().to_owned()),
    };
    let mut rerun = TestRerun::new(kind);
    rerun.set_message(text::line(&attempt.outcome.message(), MAX_MESSAGE)).set_type(word);
    rerun.set_time(Duration::from_micros(attempt.duration_us));
    if let Some(evidence) = &attempt.evidence {
        rerun.set_stack_trace(text::block(evidence, MAX_OUTPUT));
    }
    rerun
}

/// Why a case did not pass: the message, the checks that did not hold, and what else was noticed.
fn story(verdict: &Verdict) -> String {
    let checks = verdict.report.checks.iter().filter(|check| !check.ok);
    let checks = checks.map(|check| format!("FAIL {}: {}", check.name, check.seen));
    let files = verdict.files.iter().map(|file| format!("attachment: {file}"));
    let lines: Vec<String> = std::iter::once(text::line(&verdict.outcome.message(), MAX_MESSAGE))
        .chain(checks)
        .chain(verdict.remarks().iter().map(|remark| text::line(remark, MAX_MESSAGE)))
        .chain(files)
        .collect();
    lines.join("\n")
}

/// What the case asserted, where its programs were, what it measured and logged.
fn output(listed: &CellInfo, verdict: &Verdict) -> String {
    let mut out = format!("{}\n", listed.title);
    let report = &verdict.report;
    for check in &report.checks {
        let mark = if check.ok { "ok  " } else { "FAIL" };
        let _ = writeln!(out, "{mark} {}: {}", check.name, check.seen);
    }
    for record in &report.attach {
        let place = record.hook.map_or("nowhere", |hook| hook.name());
        let _ = write!(out, "attach {} ({}): {} -> {place}", record.interface, record.device, record.requested);
        let _ = write!(out, ", prog {}", record.prog_id);
        if let Some(link) = record.link_id {
            let _ = write!(out, ", link {link}");
        }
        if let Some(ran) = record.ran {
            let _ = write!(out, ", ran {ran}");
        }
        out.push('\n');
    }
    for (name, value) in &report.metrics {
        let _ = writeln!(out, "metric {name} = {value}");
    }
    for remark in verdict.remarks() {
        let _ = writeln!(out, "warning: {}", text::line(&remark, MAX_MESSAGE));
    }
    for file in &verdict.files {
        let _ = writeln!(out, "attachment: {file}");
    }
    for line in &report.log {
        let _ = writeln!(out, "{line}");
    }
    out
}
