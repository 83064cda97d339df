//! `pytest -v`: `tests/test_a.py::test_x[1] PASSED   [ 50%]`.

use crate::{
    SuiteAccount, TestMark, TestResult,
    account::{MAX_RESULTS, Printed},
    lines::ReadLines,
};
use std::collections::BTreeMap;

/// Reads it.
#[derive(Debug, Default)]
pub struct Pytest {
    planned: Option<usize>,
    results: Vec<TestResult>,
    by_name: BTreeMap<String, usize>,
    summary: Option<BTreeMap<String, usize>>,
    /// The test whose report is printed, by the last part of its name.
    section: Option<(String, Printed)>,
    sections: BTreeMap<String, Printed>,
    dropped: usize,
}

const WORDS: [(&str, TestMark); 6] = [
    ("PASSED", TestMark::Passed),
    ("FAILED", TestMark::Failed),
    ("SKIPPED", TestMark::Skipped),
    ("XFAIL", TestMark::ExpectedFailure),
    ("XPASS", TestMark::UnexpectedPass),
    ("ERROR", TestMark::Errored),
];

impl ReadLines for Pytest {
    fn line(&mut self, line: &str, _: &mut SuiteAccount) {
        if let Some(rest) = line.strip_prefix("collected ").or_else(|| line.strip_prefix("collecting ... collected ")) {
            let mut words = rest.split(' ');
            let number = |word: Option<&str>| word.and_then(|word| word.parse::<usize>().ok());
            let all = number(words.next());
            let selected = rest.split(" / ").find_map(|part| number(part.strip_suffix(" selected")));
            self.planned = selected.or(all);
            return;
        }
        let heading = line.trim_matches('=').trim();
        if line.starts_with("===") && line.ends_with("===") {
            self.close();
            if let Some(counts) = counts(heading) {
                self.summary = Some(counts);
            }
            return;
        }
        if line.starts_with("___") && line.ends_with("___") {
            self.close();
            self.section = Some((line.trim_matches('_').trim().to_owned(), Printed::default()));
            return;
        }
        if let Some((word, rest)) = line.split_once(' ')
            && matches!(word, "FAILED" | "ERROR")
            && let Some((test, reason)) = rest.split_once(" - ")
            && let Some(index) = self.by_name.get(test)
        {
            let result = &mut self.results[*index];
            if result.reason.is_empty() {
                *result = result.clone().because(reason);
            }
            return;
        }
        match parse(line) {
            Some((test, mark, reason)) => self.push(test, mark, reason),
            None => {
                if let Some((_, printed)) = &mut self.section {
                    printed.line(line);
                }
            }
        }
    }

    fn end(&mut self, account: &mut SuiteAccount) {
        self.close();
        for mut result in std::mem::take(&mut self.results) {
            let last = result.path.get(1..).unwrap_or_default().join(".");
            if let Some(printed) = self.sections.get(&last) {
                result = result.printing(printed);
                if result.reason.is_empty() && result.mark.is_bad() {
                    let told = printed.text();
                    let reason = told.lines().find_map(|line| line.strip_prefix("E ")).unwrap_or_default();
                    result = result.because(reason);
                }
            }
            account.push(result);
        }
        account.dropped += self.dropped;
        let reported = account.results.len() + account.dropped;
        if let Some(planned) = self.planned.filter(|planned| *planned > reported) {
            account.fault(format!("{planned} tests collected, {reported} reported"));
        }
        match &self.summary {
            None if self.planned.is_some() => account.fault("the output ends before the suite's last line"),
            Some(counts) => {
                for (word, mark) in
                    [("passed", TestMark::Passed), ("failed", TestMark::Failed), ("skipped", TestMark::Skipped)]
                {
                    let said = counts.get(word).copied().unwrap_or_default();
                    if said != account.count(mark) && account.dropped == 0 {
                        account.fault(format!("the suite says {said} {word}; its lines say {}", account.count(mark)));
                    }
                }
            }
            None => {}
        }
    }
}

impl Pytest {
    fn push(&mut self, test: &str, mark: TestMark, reason: &str) {
        if let Some(index) = self.by_name.get(test) {
            // An error while a test is taken down comes after its result.
            let result = &mut self.results[*index];
            if mark.is_bad() && !result.mark.is_bad() {
                result.mark = mark;
            }
            return;
        }
        if self.results.len() >= MAX_RESULTS {
            self.dropped += 1;
            return;
        }
        let mut result = TestResult::new(test.split("::"), mark).because(reason);
        result.file = result.path.first().cloned().unwrap_or_default();
        self.by_name.insert(test.to_owned(), self.results.len());
        self.results.push(result);
    }

    fn close(&mut self) {
        if let Some((test, printed)) = self.section.take()
            && self.sections.len() < MAX_RESULTS
        {
            self.sections.insert(test, printed);
        }
    }
}

/// Name, mark and reason of a result line.
fn parse(line: &str) -> Option<(&str, TestMark, &str)> {
    let line = line.trim_end();
    // The progress at the end of the line.
    let line = match line.rsplit_once('[') {
        Some((before, progress)) if progress.ends_with("%]") => before.trim_end(),
        _ => line,
    };
    let (at, word, mark) =
        WORDS.into_iter().filter_map(|(word, mark)| find(line, word).map(|at| (at, word, mark))).min()?;
    let (test, rest) = (line[..at].trim(), line[at + word.len()..].trim());
    let reason = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(rest);
    let is_id = test.contains("::") && !test.starts_with(['=', '-', '>', ' ']);
    (is_id && (rest.is_empty() || rest.starts_with('('))).then_some((test, mark, reason))
}

/// The word behind a name, as a word of its own.
fn find(line: &str, word: &str) -> Option<usize> {
    line.match_indices(word).map(|(at, _)| at).find(|at| {
        let after = line[at + word.len()..].chars().next();
        line[..*at].ends_with(' ') && after.is_none_or(|c| c == ' ')
    })
}

/// `1 failed, 2 passed in 0.10s`.
fn counts(heading: &str) -> Option<BTreeMap<String, usize>> {
    let (counts, _) = heading.rsplit_once(" in ")?;
    let mut all = BTreeMap::new();
    for part in counts.split(", ") {
        let (count, word) = part.split_once(' ')?;
        if part == "no tests ran" {
            continue;
        }
        all.insert(word.trim_end_matches('s').trim_end().replace("error", "errors"), count.parse().ok()?);
    }
    let word = |from: &str| all.iter().find(|(word, _)| word.starts_with(from)).map_or(0, |(_, count)| *count);
    Some(
        [("passed", word("passed")), ("failed", word("failed")), ("skipped", word("skipped"))]
            .map(|(w, c)| (w.to_owned(), c))
            .into(),
    )
}
