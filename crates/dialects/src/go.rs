//! `go test -v` and `go test -json` (cmd/test2json), told apart line by line.

use crate::{
    SuiteAccount, TestMark, TestResult,
    account::{MAX_RESULTS, Printed},
    lines::ReadLines,
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Reads them.
#[derive(Debug, Default)]
pub struct Go {
    /// Tests that have begun and not ended.
    open: BTreeMap<String, Printed>,
    /// Whom a line belongs to.
    running: String,
    /// The test whose result was the last line: older versions print its output behind it.
    ended: bool,
    order: Vec<String>,
    /// The last line of the suite: whether it passed.
    summary: Option<bool>,
    panic: String,
}

/// A line of test2json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    action: String,
    #[serde(default)]
    test: String,
    #[serde(default)]
    elapsed: Option<f64>,
    #[serde(default)]
    output: String,
}

impl ReadLines for Go {
    fn line(&mut self, line: &str, account: &mut SuiteAccount) {
        if line.starts_with('{')
            && let Ok(event) = serde_json::from_str::<Event>(line)
        {
            return self.event(&event, account);
        }
        let text = line.trim_start();
        // test2json of newer versions marks lines with SYN.
        let text = text.trim_start_matches('\u{16}');
        if let Some(rest) = text.strip_prefix("=== ") {
            let (word, test) = rest.split_once(' ').unwrap_or((rest, ""));
            let test = test.trim();
            self.ended = false;
            match word {
                "RUN" => self.begin(test),
                "CONT" | "NAME" => self.running = test.to_owned(),
                _ => {}
            }
            return;
        }
        if let Some((mark, rest)) = result(text) {
            let (test, seconds) = rest.rsplit_once(" (").map_or((rest, None), |(test, time)| {
                (test, time.strip_suffix("s)").and_then(|seconds| seconds.parse().ok()))
            });
            return self.finish(test.trim(), mark, seconds, account);
        }
        match line {
            "PASS" => self.summary = Some(true),
            "FAIL" => self.summary = Some(false),
            "testing: warning: no tests to run" => account.fault("no test of this name"),
            _ if line.starts_with("FAIL\t") => self.summary = Some(false),
            _ if line.starts_with("ok  \t") => self.summary = Some(true),
            _ => self.printed(line, account),
        }
    }

    fn end(&mut self, account: &mut SuiteAccount) {
        let open = std::mem::take(&mut self.open);
        for test in std::mem::take(&mut self.order) {
            if let Some(printed) = open.get(&test) {
                let reason = if self.panic.is_empty() { "it began and never ended" } else { &self.panic };
                account.push(TestResult::new(parts(&test), TestMark::Errored).because(reason).printing(printed));
            }
        }
        let failed = account.first_bad().is_some();
        match self.summary {
            None if !account.results.is_empty() => {
                account.fault("the output ends before the suite's last line, PASS or FAIL")
            }
            Some(true) if failed => account.fault("the suite says PASS, but a test failed"),
            _ => {}
        }
    }
}

impl Go {
    fn event(&mut self, event: &Event, account: &mut SuiteAccount) {
        match &*event.action {
            "run" => self.begin(&event.test),
            "output" if event.test.is_empty() => match event.output.trim_end() {
                "PASS" => self.summary = Some(true),
                "FAIL" => self.summary = Some(false),
                _ => {}
            },
            "output" => {
                let text = event.output.trim();
                if !text.starts_with("=== ") && result(text).is_none() {
                    self.running.clone_from(&event.test);
                    self.printed(event.output.trim_end_matches('\n'), account);
                }
            }
            "pass" | "fail" if event.test.is_empty() => self.summary = Some(event.action == "pass"),
            "pass" => self.finish(&event.test, TestMark::Passed, event.elapsed, account),
            "fail" if !event.test.is_empty() => self.finish(&event.test, TestMark::Failed, event.elapsed, account),
            "skip" if !event.test.is_empty() => self.finish(&event.test, TestMark::Skipped, event.elapsed, account),
            _ => {}
        }
    }

    fn begin(&mut self, test: &str) {
        if test.is_empty() || self.open.len() >= MAX_RESULTS || self.order.len() >= 2 * MAX_RESULTS {
            return;
        }
        test.clone_into(&mut self.running);
        if self.open.insert(test.to_owned(), Printed::default()).is_none() {
            self.order.push(test.to_owned());
        }
    }

    fn finish(&mut self, test: &str, mark: TestMark, seconds: Option<f64>, account: &mut SuiteAccount) {
        let printed = self.open.remove(test).unwrap_or_default();
        let reason = if matches!(mark, TestMark::Failed | TestMark::Skipped) { printed.last() } else { "" };
        account.push(TestResult::new(parts(test), mark).because(reason).printing(&printed).taking(seconds));
        self.ended = true;
    }

    fn printed(&mut self, line: &str, account: &mut SuiteAccount) {
        if self.panic.is_empty() && (line.starts_with("panic: ") || line.starts_with("fatal error: ")) {
            self.panic = line.to_owned();
        }
        if let Some(printed) = self.open.get_mut(&self.running) {
            printed.line(line);
        } else if self.ended
            && line.starts_with("    ")
            && let Some(last) = account.results.last_mut()
            && last.reason.is_empty()
            && last.mark != TestMark::Passed
        {
            *last = last.clone().because(line);
        }
    }
}

fn result(text: &str) -> Option<(TestMark, &str)> {
    [("--- PASS: ", TestMark::Passed), ("--- FAIL: ", TestMark::Failed), ("--- SKIP: ", TestMark::Skipped)]
        .into_iter()
        .find_map(|(word, mark)| Some((mark, text.strip_prefix(word)?)))
}

fn parts(test: &str) -> impl Iterator<Item = &str> {
    test.split('/')
}
