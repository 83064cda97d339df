//! Rust's libtest: `test NAME ... ok`, and `--format json`.

use crate::{
    SuiteAccount, TestMark, TestResult,
    account::{MAX_RESULTS, Printed},
    lines::ReadLines,
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Reads it.
#[derive(Debug, Default)]
pub struct Libtest {
    planned: Option<usize>,
    count: usize,
    /// Counts of the last line: passed, failed, ignored.
    summary: Option<[usize; 3]>,
    /// The test whose output is printed.
    section: Option<String>,
    outputs: BTreeMap<String, Printed>,
    /// A test whose result is not on the line of its name.
    begun: Option<String>,
    open: BTreeMap<String, ()>,
}

/// A line of JSON.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    event: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    test_count: Option<usize>,
    #[serde(default)]
    exec_time: Option<f64>,
    #[serde(default)]
    stdout: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    passed: usize,
    #[serde(default)]
    failed: usize,
    #[serde(default)]
    ignored: usize,
}

impl ReadLines for Libtest {
    fn line(&mut self, line: &str, account: &mut SuiteAccount) {
        if line.starts_with('{')
            && let Ok(event) = serde_json::from_str::<Event>(line)
        {
            return self.event(event, account);
        }
        if let Some(rest) = line.strip_prefix("running ")
            && let Some(count) = rest.strip_suffix(" tests").or_else(|| rest.strip_suffix(" test"))
            && let Ok(count) = count.parse::<usize>()
        {
            self.planned = Some(self.planned.unwrap_or_default().saturating_add(count));
            return;
        }
        if let Some(counts) = line.strip_prefix("test result: ") {
            let number = |word: &str| {
                counts
                    .split([';', '.'])
                    .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
                    .unwrap_or(0)
            };
            self.total([number(" passed"), number(" failed"), number(" ignored")]);
            self.section = None;
            return;
        }
        if let Some(test) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" ----")) {
            let test = test.trim_end_matches(" stdout").trim_end_matches(" stderr");
            self.section = Some(test.to_owned());
            return;
        }
        if line == "failures:" || line == "successes:" {
            self.section = None;
            return;
        }
        if let Some(test) = &self.section {
            if self.outputs.len() < MAX_RESULTS {
                self.outputs.entry(test.clone()).or_default().line(line);
            }
            return;
        }
        if let Some(rest) = line.strip_prefix("test ") {
            if let Some((test, said)) = rest.rsplit_once(" ... ")
                && let Some((mark, reason, seconds)) = said_mark(said)
            {
                self.begun = None;
                return self.push(test, mark, reason, seconds, account);
            }
            if let Some((test, _)) = rest.split_once(" ... ") {
                self.begun = Some(test.to_owned());
                return;
            }
        }
        // With --nocapture the result stands behind what the test printed.
        if let Some(test) = self.begun.clone()
            && let Some((mark, reason, seconds)) = said_mark(line)
        {
            self.begun = None;
            self.push(&test, mark, reason, seconds, account);
        }
    }

    fn end(&mut self, account: &mut SuiteAccount) {
        let begun = self.begun.take().into_iter().chain(std::mem::take(&mut self.open).into_keys());
        for test in begun {
            account.push(TestResult::new(parts(plain(&test)), TestMark::Errored).because("it began and never ended"));
        }
        for result in &mut account.results {
            let Some(printed) = self.outputs.get(&result.path.join("::")) else { continue };
            result.output = printed.text();
            if result.reason.is_empty() && result.mark.is_bad() {
                *result = result.clone().because(&panic_message(&printed.text()));
            }
        }
        if let Some(planned) = self.planned
            && planned != self.count
        {
            account.fault(format!("{planned} tests planned, {} reported", self.count));
        }
        let seen = [account.count(TestMark::Passed), account.count(TestMark::Failed), account.count(TestMark::Skipped)];
        match self.summary {
            None if self.planned.is_some() => {
                account.fault("the output ends before the suite's last line, `test result:`")
            }
            Some(said) if said != seen && account.dropped == 0 => account.fault(format!(
                "the suite says {} passed, {} failed, {} ignored; its lines say {}, {}, {}",
                said[0], said[1], said[2], seen[0], seen[1], seen[2]
            )),
            _ => {}
        }
    }
}

impl Libtest {
    fn event(&mut self, event: Event, account: &mut SuiteAccount) {
        match (&*event.kind, &*event.event) {
            ("suite", "started") => {
                let count = event.test_count.unwrap_or_default();
                self.planned = Some(self.planned.unwrap_or_default().saturating_add(count));
            }
            ("suite", _) => self.total([event.passed, event.failed, event.ignored]),
            ("test", "started") if self.open.len() < MAX_RESULTS => drop(self.open.insert(event.name, ())),
            ("test", word) => {
                let mark = match word {
                    "ok" => TestMark::Passed,
                    "failed" => TestMark::Failed,
                    "ignored" => TestMark::Skipped,
                    _ => return,
                };
                self.open.remove(&event.name);
                if !event.stdout.is_empty() && self.outputs.len() < MAX_RESULTS {
                    let printed = self.outputs.entry(plain(&event.name).to_owned()).or_default();
                    event.stdout.lines().for_each(|line| printed.line(line));
                }
                self.push(&event.name, mark, &event.message, event.exec_time, account);
            }
            _ => {}
        }
    }

    fn total(&mut self, counts: [usize; 3]) {
        let before = self.summary.unwrap_or_default();
        self.summary = Some([0, 1, 2].map(|index| before[index].saturating_add(counts[index])));
    }

    fn push(&mut self, test: &str, mark: TestMark, reason: &str, seconds: Option<f64>, account: &mut SuiteAccount) {
        self.count += 1;
        account.push(TestResult::new(parts(plain(test)), mark).because(reason).taking(seconds));
    }
}

/// What a panic said, with the values that did not agree; the first line where nothing panicked. A test may have printed much before.
fn panic_message(told: &str) -> String {
    let lines = || told.lines().filter(|line| !line.trim().is_empty());
    let panics = |line: &&str| line.starts_with("thread '") && line.contains(" panicked at ");
    let mut said = lines().skip_while(|line| !panics(line)).skip(1);
    let Some(message) = said.next() else {
        let first = lines().find(|line| !line.starts_with("thread '"));
        return first.or_else(|| lines().next()).unwrap_or_default().to_owned();
    };
    let values = said.take(2).map(str::trim).filter(|line| line.starts_with("left: ") || line.starts_with("right: "));
    [message].into_iter().chain(values).collect::<Vec<_>>().join("; ")
}

/// The name without what libtest adds.
fn plain(test: &str) -> &str {
    test.split(" - should panic").next().unwrap_or(test).trim()
}

/// libtest's names have levels, but its tests are not nested: the name is one.
fn parts(test: &str) -> [&str; 1] {
    [test]
}

/// `ok`, `FAILED`, `ignored, reason`, `ok <0.1s>`.
fn said_mark(said: &str) -> Option<(TestMark, &str, Option<f64>)> {
    let said = said.trim();
    let (said, seconds) = match said.split_once(" <") {
        Some((word, time)) => (word, time.trim_end_matches('>').strip_suffix('s').and_then(|time| time.parse().ok())),
        None => (said, None),
    };
    match said {
        "ok" => Some((TestMark::Passed, "", seconds)),
        "FAILED" => Some((TestMark::Failed, "", seconds)),
        _ if said == "ignored" || said.starts_with("ignored,") => {
            Some((TestMark::Skipped, said.split_once(", ").map_or("ignored", |(_, reason)| reason), seconds))
        }
        _ if said.starts_with("FAILED (") || said == "failed" => Some((TestMark::Failed, said, seconds)),
        _ => None,
    }
}
