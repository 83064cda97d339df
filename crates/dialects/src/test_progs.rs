//! test_progs of tools/testing/selftests/bpf: `#44/2 cls_redirect/cls_redirect_subprogs:OK`, subtests before their test.
//!
//! Names repeat below different parents and below one, so a number tells two lines apart.

use crate::{
    SuiteAccount, TestMark, TestResult,
    account::{MAX_RESULTS, Printed},
    lines::ReadLines,
};
use std::collections::BTreeSet;

/// Reads it.
#[derive(Debug, Default)]
pub struct TestProgs {
    seen: BTreeSet<(u32, u32)>,
    printed: Printed,
    /// Passed tests, passed subtests, skipped, failed tests, as the last line has them.
    summary: Option<[usize; 4]>,
    counts: [usize; 4],
    repeats: bool,
    /// The first subtest that failed of the test that is running.
    failed: Option<String>,
}

/// Mark of a check that failed, `ASSERT_OK()` and its like in test_progs.h.
const FAILED_CHECK: &str = ":FAIL:";

impl ReadLines for TestProgs {
    fn line(&mut self, line: &str, account: &mut SuiteAccount) {
        if line == "All error logs:" {
            // What failed is printed again.
            self.repeats = true;
            return;
        }
        if let Some(rest) = line.strip_prefix("Summary: ") {
            self.summary = summary(rest);
            return;
        }
        let Some(((test, sub), said, mark)) = result(line) else {
            self.printed.line(line);
            return;
        };
        if self.repeats {
            return;
        }
        if self.seen.len() < MAX_RESULTS && !self.seen.insert((test, sub.unwrap_or_default())) {
            account.fault(format!("#{test}{} has two results", sub.map_or_else(String::new, |sub| format!("/{sub}"))));
        }
        match (mark, sub) {
            (TestMark::Passed, None) => self.counts[0] += 1,
            (TestMark::Passed, Some(_)) => self.counts[1] += 1,
            (TestMark::Skipped, _) => self.counts[2] += 1,
            (_, None) => self.counts[3] += 1,
            (_, Some(_)) => {}
        }
        let printed = std::mem::take(&mut self.printed);
        // What a test prints stands before its line, a test with subtests prints nothing of its own.
        let failed = if sub.is_none() { self.failed.take() } else { None };
        let reason = match mark {
            TestMark::Failed if printed.last().is_empty() => failed.unwrap_or_default(),
            TestMark::Failed => printed.last_with(FAILED_CHECK).to_owned(),
            _ => String::new(),
        };
        if mark == TestMark::Failed && sub.is_some() {
            self.failed.get_or_insert_with(|| format!("{said} failed"));
        }
        let path: Vec<&str> = match sub {
            Some(_) => said.splitn(2, '/').collect(),
            None => vec![said],
        };
        account.push(TestResult::new(path, mark).because(&reason).printing(&printed));
    }

    fn end(&mut self, account: &mut SuiteAccount) {
        match self.summary {
            None if !account.results.is_empty() => {
                account.fault("the output ends before the suite's last line, `Summary:`")
            }
            Some([passed, subtests, _, failed])
                if [passed, subtests, failed] != [self.counts[0], self.counts[1], self.counts[3]] =>
            {
                account.fault(format!(
                    "the suite says {passed}/{subtests} passed, {failed} failed; its lines say {}/{}, {}",
                    self.counts[0], self.counts[1], self.counts[3]
                ));
            }
            _ => {}
        }
    }
}

/// Numbers of a test and of a subtest, name and mark.
type Numbered<'a> = ((u32, Option<u32>), &'a str, TestMark);

fn result(line: &str) -> Option<Numbered<'_>> {
    let rest = line.strip_prefix('#')?;
    let (number, rest) = rest.split_once(|c: char| c.is_whitespace())?;
    let (test, sub) = match number.split_once('/') {
        Some((test, sub)) => (test, Some(sub.parse().ok()?)),
        None => (number, None),
    };
    let (said, word) = rest.trim_start().rsplit_once(':')?;
    let mark = match word.trim() {
        "OK" => TestMark::Passed,
        "FAIL" => TestMark::Failed,
        word if word == "SKIP" || word.starts_with("SKIP ") => TestMark::Skipped,
        _ => return None,
    };
    Some(((test.parse().ok()?, sub), said, mark))
}

/// `23/9 PASSED, 0 SKIPPED, 21 FAILED`.
fn summary(text: &str) -> Option<[usize; 4]> {
    let mut parts = text.split(", ");
    let (tests, subtests) = parts.next()?.strip_suffix(" PASSED")?.split_once('/')?;
    let skipped = parts.next()?.strip_suffix(" SKIPPED")?;
    let failed = parts.next()?.trim_end().strip_suffix(" FAILED")?;
    Some([tests.parse().ok()?, subtests.parse().ok()?, skipped.parse().ok()?, failed.parse().ok()?])
}
