//! ctest: ` 1/3 Test #1: name ....   Passed    0.01 sec`.

use crate::{
    SuiteAccount, TestMark, TestResult,
    account::{MAX_RESULTS, Printed},
    lines::ReadLines,
};
use std::collections::BTreeMap;

/// Reads it.
#[derive(Debug, Default)]
pub struct Ctest {
    open: BTreeMap<u32, String>,
    printed: Printed,
    planned: Option<usize>,
    count: usize,
    failed: usize,
    /// Failed tests and all tests of the last line.
    summary: Option<(usize, usize)>,
}

impl ReadLines for Ctest {
    fn line(&mut self, line: &str, account: &mut SuiteAccount) {
        let text = line.trim();
        if let Some((number, said)) = text.strip_prefix("Start ").and_then(|rest| rest.trim_start().split_once(": "))
            && let Ok(number) = number.trim().parse()
            && self.open.len() < MAX_RESULTS
        {
            self.open.insert(number, said.to_owned());
            return;
        }
        if let Some(Found { all, number, said, mark, word, seconds }) = result(text) {
            self.planned = all;
            self.count += 1;
            self.failed += usize::from(mark.is_bad());
            self.open.remove(&number);
            let printed = std::mem::take(&mut self.printed);
            let reason = if mark == TestMark::Passed { "" } else { word };
            account.push(TestResult::new([said], mark).because(reason).printing(&printed).taking(seconds));
            return;
        }
        if text.contains("% tests passed, ") {
            let number = |part: &str| part.split(' ').next().and_then(|word| word.parse().ok());
            let failed = text.split(", ").nth(1).and_then(number);
            let all = text.rsplit(' ').next().and_then(|word| word.parse().ok());
            self.summary = failed.zip(all);
            return;
        }
        self.printed.line(text);
    }

    fn end(&mut self, account: &mut SuiteAccount) {
        for said in std::mem::take(&mut self.open).into_values() {
            account.push(TestResult::new([&*said], TestMark::Errored).because("it began and never ended"));
        }
        if let Some(planned) = self.planned.filter(|planned| *planned != self.count) {
            account.fault(format!("{planned} tests planned, {} reported", self.count));
        }
        match self.summary {
            None if !account.results.is_empty() => {
                account.fault("the output ends before the suite's last line, `tests passed`")
            }
            Some((failed, _)) if failed != self.failed => {
                account.fault(format!("the suite says {failed} failed; its lines say {}", self.failed));
            }
            _ => {}
        }
    }
}

struct Found<'a> {
    all: Option<usize>,
    number: u32,
    said: &'a str,
    mark: TestMark,
    word: &'a str,
    seconds: Option<f64>,
}

fn result(text: &str) -> Option<Found<'_>> {
    let (place, rest) = text.split_once(" Test ")?;
    let all = place.split_once('/')?.1.trim().parse().ok();
    let (number, rest) = rest.trim_start().strip_prefix('#')?.split_once(": ")?;
    // The name, dots, the word, and the time.
    let (rest, seconds) = match rest.trim_end().strip_suffix(" sec") {
        Some(before) => before.rsplit_once(' ').map_or((before, None), |(before, time)| (before, time.parse().ok())),
        None => (rest, None),
    };
    let at = [" Passed", "***Failed", "***Skipped", "***Not Run", "***Timeout", "***Exception"]
        .iter()
        .filter_map(|word| rest.rfind(word))
        .max()?;
    let word = rest[at..].trim().trim_start_matches('*').trim();
    let said = rest[..at].trim_end().trim_end_matches('.').trim_end();
    let mark = match word.split(' ').next()? {
        "Passed" => TestMark::Passed,
        "Skipped" => TestMark::Skipped,
        "Not" if word.contains("Disabled") => TestMark::Skipped,
        "Not" => TestMark::Errored,
        _ => TestMark::Failed,
    };
    Some(Found { all, number: number.trim().parse().ok()?, said, mark, word, seconds })
}
