//! JUnit XML: one test suite per kernel, and for each case the requested attach type and the type that the kernel reported.
//!
//! The text is a function of the record alone, so that `lab report` writes the same bytes from `events.jsonl`.

pub mod ant;
mod case;
mod xml;

use super::splats::splats;
use crate::results::directory;
use case::{Desk, SuiteText};
use chrono::DateTime;
use lab_base::{file::FileError, text};
use lab_guard::Id;
use lab_record::{
    event::{Event, RunInfo, Stamped},
    guest::KernelRecord,
    plan::PlannedKernel,
    reporter::Reporter,
    run::RunRecord,
    verdict::Standing,
};
use std::{
    io,
    ops::AddAssign,
    path::PathBuf,
    sync::{atomic::AtomicUsize, mpsc::sync_channel},
    thread,
};
use xml::Xml;

/// File name in a run's directory and in each kernel's directory.
pub const FILE: &str = "junit.xml";
/// Number of cases of a run from which on its own file has only those that neither passed nor were skipped: no program reads
/// a file of gigabytes, and the files of the kernels have every case.
const MOST_CASES: usize = 1_000_000;
/// Maximum characters of an attribute that contains guest text.
const MAX_ATTRIBUTE: usize = 1000;

/// JUnit dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As most tools read it, with properties of cases and numbers of assertions.
    Common,
    /// Only what `junit-10.xsd` of Jenkins' xUnit plugin allows, since the plugin refuses other files. Properties are lines
    /// of a case's output of the form `[[PROPERTY|name=value]]`.
    Jenkins,
}

/// The cases of a file; the counts are always those of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cases {
    All,
    /// Without those that passed or were skipped.
    Loud,
}

/// Writes the run's file and one per kernel when the run has finished.
#[derive(Debug)]
pub struct JunitReporter {
    /// The run's directory.
    pub directory: PathBuf,
}

impl Reporter for JunitReporter {
    fn event(&mut self, stamped: &Stamped, record: &RunRecord) -> Result<(), FileError> {
        match &stamped.event {
            Event::RunFinished { .. } => self.write(record),
            // Written now, so that the files of finished kernels exist if the runner is killed later.
            Event::KernelFinished { kernel, .. } | Event::Slow { kernel, .. } => self.write_finished(record, kernel),
            _ => Ok(()),
        }
    }
}

impl JunitReporter {
    /// Writes all files.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn write(&self, record: &RunRecord) -> Result<(), FileError> {
        let path = self.directory.join(FILE);
        // A kernel's file is its part of the run's file with its own root element, so that cells are formatted once. Files
        // are written while the next kernel is formatted.
        thread::scope(|scope| {
            let (send, suites) = sync_channel::<(Id, Counts, String)>(1);
            let kernels = scope.spawn(move || {
                suites.iter().try_for_each(|(id, counts, suite)| self.write_kernel(record, &id, counts, &suite))
            });
            // The receiver is gone if writing has failed; the error is returned below.
            let mut each = |id: &Id, counts, suite| drop(send.send((id.clone(), counts, suite)));
            let cases: usize = record.planned().map(|(kernel, _)| kernel.cells.len()).sum();
            let form = (Dialect::Common, if cases > MOST_CASES { Cases::Loud } else { Cases::All });
            let whole = directory::replace_with(&path, |out| render_to(record, None, form, &mut each, out));
            drop(send);
            whole.and(kernels.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    fn write_kernel(&self, record: &RunRecord, kernel: &Id, counts: Counts, suite: &str) -> Result<(), FileError> {
        let path = directory::kernel(&self.directory, kernel)?.join(FILE);
        directory::replace_with(&path, |out| {
            out.write_all(root(record, counts, Dialect::Common).as_bytes())?;
            out.write_all(suite.as_bytes())?;
            out.write_all(END.as_bytes())
        })
    }

    fn write_finished(&self, record: &RunRecord, kernel: &Id) -> Result<(), FileError> {
        let path = directory::kernel(&self.directory, kernel)?.join(FILE);
        directory::replace_with(&path, |out| {
            render_to(record, Some(kernel), (Dialect::Common, Cases::All), &mut |_, _, _| (), out)
        })
    }
}

const END: &str = "</testsuites>\n";

/// The XML of the whole run, or of one kernel.
pub fn render(record: &RunRecord, only: Option<&str>, dialect: Dialect) -> String {
    let mut out = Vec::new();
    // Writing to memory can't fail.
    let written = render_to(record, only, (dialect, Cases::All), &mut |_, _, _| (), &mut out);
    debug_assert!(written.is_ok(), "{written:?}");
    String::from_utf8_lossy(&out).into_owned()
}

/// Writes the XML suite by suite, so that only one kernel is in memory; passes each kernel's suite also to `each`.
fn render_to(
    record: &RunRecord,
    only: Option<&str>,
    (dialect, cases): (Dialect, Cases),
    each: &mut dyn FnMut(&Id, Counts, String),
    out: &mut dyn io::Write,
) -> io::Result<()> {
    // The root element needs the counts of all suites.
    let kernels = record.planned().filter(|(kernel, _)| only.is_none_or(|id| kernel.facts.id == id));
    let kernels: Vec<_> =
        kernels.map(|(kernel, happened)| (kernel, happened, Counts::on(record, kernel, happened))).collect();
    let others: Vec<Suite> =
        record.info.iter().filter(|_| only.is_none()).flat_map(|info| whole(record, info)).collect();
    let mut counts = Counts::default();
    kernels.iter().for_each(|(.., of)| counts += *of);
    others.iter().for_each(|suite| counts += suite.counts());
    out.write_all(root(record, counts, dialect).as_bytes())?;
    if let Some(info) = &record.info {
        let listed = record.listing().map(|cell| (&cell.id, cell)).collect();
        let desk = Desk { record, info, listed, splats: splats(record), dialect, room: AtomicUsize::new(0) };
        in_turn(
            &kernels,
            |(kernel, happened, counts)| desk.suite(kernel, *happened, *counts),
            |(kernel, _, counts), suite: SuiteText| {
                match cases {
                    Cases::All => out.write_all(suite.text.as_bytes())?,
                    Cases::Loud => suite.write_loud(out)?,
                }
                each(&kernel.facts.id, *counts, suite.text);
                Ok::<(), io::Error>(())
            },
        )?;
    }
    for suite in others {
        out.write_all(suite.text().as_bytes())?;
    }
    out.write_all(END.as_bytes())
}

/// Passes what two threads make of each item to `take`, in the order of the items. Each thread holds one result, so that there
/// are never more than three.
fn in_turn<I: Sync, R: Send, E>(
    items: &[I],
    make: impl Fn(&I) -> R + Sync,
    mut take: impl FnMut(&I, R) -> Result<(), E>,
) -> Result<(), E> {
    let make = &make;
    thread::scope(|scope| {
        let made = [0, 1].map(|first| {
            let (send, made) = sync_channel(0);
            // The receiver is gone if an item could not be taken.
            scope.spawn(move || items.iter().skip(first).step_by(2).map(make).try_for_each(|it| send.send(it)).ok());
            made
        });
        // A maker that has panicked sends nothing; the scope then panics too.
        let results = made.iter().cycle().map_while(|made| made.recv().ok());
        items.iter().zip(results).try_for_each(|(item, result)| take(item, result))
    })
}

/// The kind of a case in JUnit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Passed,
    Skipped,
    Failure,
    Error,
}

impl Kind {
    /// Known failures must not fail a tool's result, and must not look like a pass: they count as skipped.
    const fn of(standing: Standing) -> Self {
        match standing {
            Standing::Passed | Standing::Flaky => Self::Passed,
            Standing::Known | Standing::Skipped => Self::Skipped,
            Standing::Failed => Self::Failure,
            Standing::Errored | Standing::NotRun => Self::Error,
        }
    }
}

/// Counts of a suite or of the root element.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    tests: usize,
    skipped: usize,
    failures: usize,
    errors: usize,
}

impl Counts {
    fn on(record: &RunRecord, kernel: &PlannedKernel, happened: Option<&KernelRecord>) -> Self {
        let mut counts = Self::default();
        record.verdicts_on(kernel, happened).for_each(|(_, verdict)| counts.add(Kind::of(verdict.standing())));
        counts
    }

    fn add(&mut self, kind: Kind) {
        self.tests += 1;
        match kind {
            Kind::Passed => {}
            Kind::Skipped => self.skipped += 1,
            Kind::Failure => self.failures += 1,
            Kind::Error => self.errors += 1,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.tests += other.tests;
        self.skipped += other.skipped;
        self.failures += other.failures;
        self.errors += other.errors;
    }
}

/// XML declaration and start tag of the root element.
fn root(record: &RunRecord, counts: Counts, dialect: Dialect) -> String {
    let mut xml = Xml::document();
    let root = xml.element("testsuites").with("name", "netkit-lab").with("tests", &counts.tests.to_string());
    // Jenkins' schema does not allow these attributes here.
    let (skipped, timestamp) = match dialect {
        Dialect::Common => (Some(counts.skipped.to_string()), time(record.started_ms)),
        Dialect::Jenkins => (None, None),
    };
    root.with_any("skipped", skipped)
        .with("failures", &counts.failures.to_string())
        .with("errors", &counts.errors.to_string())
        .with_any("timestamp", timestamp)
        .with_any("time", record.finished.map(|(_, wall_ms)| seconds(wall_ms as f64 / 1e3)))
        .open();
    xml.into_text()
}

fn time(ms: u64) -> Option<String> {
    let time = DateTime::from_timestamp_millis(i64::try_from(ms).ok()?)?;
    Some(time.format("%Y-%m-%dT%H:%M:%S%.3f+00:00").to_string())
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.3}")
}

/// A suite for failures outside of kernels: its name, and its cases with their failures.
struct Suite {
    name: &'static str,
    cases: Vec<(String, Option<Wrong>)>,
}

/// The failure of a case without a guest.
struct Wrong {
    kind: Kind,
    sort: &'static str,
    message: String,
}

impl Suite {
    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.cases.iter().for_each(|(_, wrong)| counts.add(wrong.as_ref().map_or(Kind::Passed, |it| it.kind)));
        counts
    }

    fn text(&self) -> String {
        let mut xml = Xml::within(1);
        self.counts().suite(&mut xml, self.name, None, None);
        for (case, wrong) in &self.cases {
            let tag = xml.element("testcase").with("name", case).with("classname", self.name);
            let Some(Wrong { kind, sort, message }) = wrong else {
                tag.empty();
                continue;
            };
            tag.open();
            let element = if *kind == Kind::Failure { "failure" } else { "error" };
            xml.element(element).with("message", message).with("type", sort).empty();
            xml.close("testcase");
        }
        xml.close("testsuite");
        xml.into_text()
    }
}

impl Counts {
    /// Starts a suite with this number of cases.
    fn suite(self, xml: &mut Xml, name: &str, timestamp: Option<String>, time: Option<String>) {
        xml.element("testsuite")
            .with("name", name)
            .with("tests", &self.tests.to_string())
            .with("skipped", &self.skipped.to_string())
            .with("errors", &self.errors.to_string())
            .with("failures", &self.failures.to_string())
            .with_any("timestamp", timestamp)
            .with_any("time", time)
            .open();
    }
}

/// Failures of the run outside of kernels.
fn whole(record: &RunRecord, info: &RunInfo) -> Vec<Suite> {
    // Cases that no kernel of the matrix can run fail the run, so they are listed here too.
    let dead = record.dead_cases().into_iter().map(|case| {
        let message = "no kernel of the matrix can run this case".to_owned();
        (text::line(&case, MAX_ATTRIBUTE), Some(Wrong { kind: Kind::Failure, sort: "dead-case", message }))
    });
    // Expired entries of the lists fail the run.
    let expired = info.expired.iter().map(|entry| {
        let wrong =
            Wrong { kind: Kind::Failure, sort: "expired", message: text::line(&entry.message(), MAX_ATTRIBUTE) };
        (format!("{}:{}", entry.file, entry.line), Some(wrong))
    });
    // Missing shards of a merged run are errors of their own: their cells alone might look like a narrowed selection.
    let lost = info.merged.iter().any(|shard| shard.problem().is_some());
    let shards = info.merged.iter().filter(|_| lost).map(|shard| {
        let wrong = shard.problem().map(|message| Wrong { kind: Kind::Error, sort: "shard", message });
        (format!("shard {}", shard.part), wrong)
    });
    let suites = [("matrix", dead.collect()), ("lists", expired.collect()), ("shards", shards.collect::<Vec<_>>())];
    suites.into_iter().filter(|(_, cases)| !cases.is_empty()).map(|(name, cases)| Suite { name, cases }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::record as sample_record;

    #[test]
    fn the_file_of_a_huge_run_has_what_failed_and_the_counts_of_all() {
        let record = sample_record();
        let written = |cases| {
            let mut out = Vec::new();
            let mut each = |_: &Id, _: Counts, _: String| ();
            render_to(&record, None, (Dialect::Common, cases), &mut each, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let (all, loud) = (written(Cases::All), written(Cases::Loud));
        let count = |xml: &str, words: &str| xml.matches(words).count();
        for same in ["<failure ", "<error ", "type=\"known\"", "<flakyFailure ", "<testsuite "] {
            assert_eq!(count(&all, same), count(&loud, same), "{same}");
        }
        assert!(count(&loud, "<testcase ") > 0 && count(&loud, "<testcase ") < count(&all, "<testcase "), "{loud}");
        assert_eq!(all.lines().nth(1), loud.lines().nth(1), "the counts of the root element");
        let mut reader = quick_xml::Reader::from_str(&loud);
        while reader.read_event().unwrap() != quick_xml::events::Event::Eof {}
        let counts = record.counts();
        let left: usize = loud
            .lines()
            .filter_map(|line| line.trim().strip_prefix("<!-- ")?.split(' ').next()?.parse::<usize>().ok())
            .sum();
        assert_eq!(left, counts.passed + counts.skipped);
    }
}
