//! KTAP version 1 (Documentation/dev-tools/ktap.rst) and TAP 13 and 14 (testanything.org).
//!
//! Subtests are indented and come before the line of their test. The selftests' own runner puts `# ` before them instead.

use crate::{
    SuiteAccount, TestMark, TestResult,
    account::{ALL, MAX_DEPTH, MAX_RESULTS, Printed, name},
    lines::ReadLines,
};
use std::collections::BTreeSet;

/// Tests of one level whose test has no line yet.
#[derive(Debug, Default)]
struct Level {
    indent: usize,
    plan: Option<usize>,
    count: usize,
    numbers: BTreeSet<usize>,
    results: Vec<TestResult>,
    /// `# Subtest: NAME`.
    named: String,
}

/// Reads them.
#[derive(Debug, Default)]
pub struct Ktap {
    levels: Vec<Level>,
    printed: Printed,
    /// Indentation of a YAML block.
    yaml: Option<usize>,
    held: usize,
    /// Whether the stream is TAP, in which the plan is mandatory.
    is_tap: bool,
    subtest: String,
}

/// A line that means something.
enum Line<'a> {
    Version,
    Plan { count: usize, skipped: Option<&'a str> },
    Test { ok: bool, number: Option<usize>, name: &'a str, directive: &'a str },
    Bail(&'a str),
}

impl ReadLines for Ktap {
    fn line(&mut self, line: &str, account: &mut SuiteAccount) {
        let (indent, text) = indented(line);
        if let Some(at) = self.yaml {
            if text == "..." && indent == at {
                self.yaml = None;
            } else {
                self.printed.line(text);
            }
            return;
        }
        if text == "---" {
            self.yaml = Some(indent);
            return;
        }
        let Some(parsed) = parse(text) else {
            if let Some(subtest) = text.strip_prefix("# Subtest:") {
                self.subtest = name(subtest);
            } else if !text.is_empty() {
                self.printed.line(text);
            }
            return;
        };
        match parsed {
            Line::Version => {
                self.is_tap |= text.starts_with("TAP");
                self.open(indent, account);
            }
            Line::Bail(reason) => account.fault(format!("Bail out! {reason}")),
            Line::Plan { count, skipped } => {
                self.open(indent, account);
                if let Some(level) = self.levels.last_mut() {
                    if level.plan.is_some() {
                        account.fault(format!("a second plan 1..{count}"));
                    }
                    level.plan = Some(count);
                }
                if let (Some(reason), 0, 0) = (skipped, count, indent) {
                    account.push(TestResult::new([ALL], TestMark::Skipped).because(reason));
                }
            }
            Line::Test { ok, number, name: said, directive } => {
                self.test(indent, (ok, number, said, directive), account)
            }
        }
    }

    fn end(&mut self, account: &mut SuiteAccount) {
        while let Some(level) = self.levels.pop() {
            if self.levels.is_empty() && self.is_tap && level.plan.is_none() {
                account.fault("the output ends without a plan");
            }
            let (inner, results) = (level.indent > 0 && !self.levels.is_empty(), self.close(level, account));
            if inner && !results.is_empty() {
                account.fault("the output ends between subtests and the line of their test");
            }
            results.into_iter().for_each(|result| account.push(result));
        }
    }
}

impl Ktap {
    /// Makes a level of this indentation the innermost one.
    fn open(&mut self, indent: usize, account: &mut SuiteAccount) {
        while self.levels.last().is_some_and(|level| level.indent > indent) {
            // Deeper tests whose own test has no line: they are kept, below the name that was announced.
            if let Some(level) = self.levels.pop() {
                let results = self.close(level, account);
                match self.levels.last_mut() {
                    Some(outer) => outer.results.extend(results),
                    None => results.into_iter().for_each(|result| account.push(result)),
                }
            }
        }
        if self.levels.last().is_none_or(|level| level.indent < indent) && self.levels.len() < MAX_DEPTH {
            let named = std::mem::take(&mut self.subtest);
            self.levels.push(Level { indent, named, ..Level::default() });
        }
    }

    fn test(
        &mut self,
        indent: usize,
        (ok, number, said, directive): (bool, Option<usize>, &str, &str),
        account: &mut SuiteAccount,
    ) {
        // The level below, if there is one, is that of its subtests.
        let mut inner = Vec::new();
        while self.levels.last().is_some_and(|level| level.indent > indent) {
            if let Some(level) = self.levels.pop() {
                let results = self.close(level, account);
                inner.splice(..0, results);
            }
        }
        self.open(indent, account);
        let Some(level) = self.levels.last_mut() else { return };
        level.count += 1;
        let number = number.unwrap_or(level.count);
        if level.numbers.len() < MAX_RESULTS && !level.numbers.insert(number) {
            account.fault(format!("test {number} has two results"));
        }
        let mut said = name(said);
        if said.is_empty() {
            said = format!("{number}");
        }
        let (mark, reason) = mark(ok, directive);
        if ok
            && mark == TestMark::Passed
            && let Some(bad) = inner.iter().find(|result| result.mark.is_bad())
        {
            account.fault(format!("{said} is ok, but its subtest {} is not", bad.full_name("::")));
        }
        let printed = std::mem::take(&mut self.printed);
        let reason = if reason.is_empty() && mark.is_bad() { printed.last_said() } else { reason };
        let own = TestResult::new([&*said], mark).because(reason).printing(&printed);
        for mut result in inner {
            result.path.insert(0, said.clone());
            result.path.truncate(MAX_DEPTH);
            level.results.push(result);
        }
        self.held += 1;
        if indent == 0 || self.held > MAX_RESULTS {
            // Nothing outside can add to their names any more.
            std::mem::take(&mut level.results).into_iter().for_each(|result| account.push(result));
            account.push(own);
        } else {
            level.results.push(own);
        }
    }

    /// Holds a level's plan against what came.
    fn close(&self, mut level: Level, account: &mut SuiteAccount) -> Vec<TestResult> {
        let place = if level.named.is_empty() { String::new() } else { format!(" in {}", level.named) };
        let most = level.numbers.last().copied().unwrap_or_default();
        let first = (1..=most.min(MAX_RESULTS)).find(|number| !level.numbers.contains(number));
        match level.plan {
            Some(plan) if plan != level.count => {
                account.fault(format!("{plan} tests planned{place}, {} reported", level.count));
            }
            _ if first.is_some() => {
                account.fault(format!("test {}{place} was not reported", first.unwrap_or_default()));
            }
            _ => {}
        }
        std::mem::take(&mut level.results)
    }
}

/// Indentation and text of a line; `# ` before a line of the protocol counts as indentation.
fn indented(line: &str) -> (usize, &str) {
    let text = line.trim_start_matches([' ', '\t']);
    let mut indent = line.len() - text.len();
    let mut inner = text;
    let mut deeper = 0;
    while let Some(rest) = inner.strip_prefix("# ") {
        let rest = rest.trim_start();
        deeper += 2;
        inner = rest;
        let is_protocol = match parse(rest) {
            Some(Line::Version | Line::Plan { .. }) => true,
            Some(Line::Test { number, .. }) => number.is_some(),
            _ => false,
        };
        if is_protocol {
            indent += deeper;
            return (indent, rest.trim_end());
        }
    }
    (indent, text.trim_end())
}

fn parse(text: &str) -> Option<Line<'_>> {
    if text.starts_with("KTAP version ") || text.starts_with("TAP version ") {
        return Some(Line::Version);
    }
    if let Some(reason) = text.strip_prefix("Bail out!") {
        return Some(Line::Bail(reason.trim()));
    }
    if let Some(rest) = text.strip_prefix("1..") {
        let (count, rest) = rest.split_once([' ', '#']).unwrap_or((rest, ""));
        let rest = rest.trim_start_matches(['#', ' ']);
        let skipped = rest.get(..4).filter(|word| word.eq_ignore_ascii_case("skip")).map(|_| rest[4..].trim());
        return Some(Line::Plan { count: count.trim().parse().ok()?, skipped });
    }
    let (ok, rest) = match text.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => (true, text.strip_prefix("ok")?),
    };
    if !rest.is_empty() && !rest.starts_with([' ', '\t']) {
        return None;
    }
    let rest = rest.trim_start();
    let (word, after) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    let (number, rest) = match word.parse() {
        Ok(number) => (Some(number), after),
        Err(_) => (None, rest),
    };
    let rest = rest.trim_start();
    let rest = rest.strip_prefix("- ").or(if rest == "-" { Some("") } else { None }).unwrap_or(rest);
    // TAP 14 escapes a hash sign that belongs to the name.
    let at = rest.match_indices('#').map(|(at, _)| at).find(|at| !rest[..*at].ends_with('\\'));
    let (name, directive) = at.map_or((rest, ""), |at| (&rest[..at], rest[at + 1..].trim()));
    Some(Line::Test { ok, number, name, directive })
}

/// The mark and the reason of a result line.
fn mark(ok: bool, directive: &str) -> (TestMark, &str) {
    let (word, reason) = directive.split_once([' ', ':']).unwrap_or((directive, ""));
    match (word.to_ascii_uppercase().trim_end_matches(':'), ok) {
        ("SKIP" | "SKIPPED", _) => (TestMark::Skipped, reason),
        ("XFAIL" | "TODO", false) => (TestMark::ExpectedFailure, reason),
        // The selftests write `ok … # XFAIL` where the failure came (kselftest.h: ksft_test_result_xfail).
        ("XFAIL", true) => (TestMark::ExpectedFailure, reason),
        ("TODO" | "XPASS", true) => (TestMark::UnexpectedPass, reason),
        ("ERROR" | "TIMEOUT", false) => (TestMark::Errored, directive),
        (_, true) => (TestMark::Passed, directive),
        (_, false) => (TestMark::Failed, directive),
    }
}
