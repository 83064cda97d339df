//! The kernel's selftests: KTAP (kselftest.h, kselftest_harness.h, ktap_helpers.sh), or the lines of shell scripts, of which there are
//! several forms: `TEST: text   [ OK ]` (net/lib.sh, forwarding/lib.sh), `PASS: text` (rtnetlink.sh), `text   ok` (veth.sh).

use crate::{
    SuiteAccount, TestMark, TestResult,
    account::{ALL, MAX_RESULTS, Printed, name},
    ktap::Ktap,
    lines::ReadLines,
};

/// Reads them.
#[derive(Debug, Default)]
pub struct Kselftest {
    ktap: Option<Ktap>,
    results: Vec<TestResult>,
    printed: Printed,
    /// A sentence about a skip of the whole.
    skipped: String,
}

impl ReadLines for Kselftest {
    fn line(&mut self, line: &str, account: &mut SuiteAccount) {
        if let Some(ktap) = &mut self.ktap {
            return ktap.line(line, account);
        }
        if line.starts_with("KTAP version ") || line.starts_with("TAP version ") {
            // Scripts that print both say the same twice (mptcp_lib.sh).
            self.results.clear();
            return self.ktap.insert(Ktap::default()).line(line, account);
        }
        match parse(line) {
            Some((said, mark)) if !said.is_empty() => {
                if self.results.len() < MAX_RESULTS {
                    let printed = std::mem::take(&mut self.printed);
                    self.results.push(TestResult::new([&*said], mark).printing(&printed));
                }
            }
            _ => {
                let text = line.trim();
                // The reason stands below its line, indented.
                if line.starts_with([' ', '\t'])
                    && let Some(last) = self.results.last_mut()
                    && last.reason.is_empty()
                    && last.mark != TestMark::Passed
                    && !text.is_empty()
                {
                    *last = last.clone().because(text);
                }
                let lower = text.to_ascii_lowercase();
                if self.skipped.is_empty() && (lower.starts_with("skip") || lower.contains("[skip]")) {
                    self.skipped = name(text);
                }
                if !text.is_empty() {
                    self.printed.line(text);
                }
            }
        }
    }

    fn end(&mut self, account: &mut SuiteAccount) {
        match &mut self.ktap {
            Some(ktap) => ktap.end(account),
            None => {
                // `SKIP: why` alone is about the whole script.
                if let [only] = &*self.results
                    && only.mark == TestMark::Skipped
                    && only.reason.is_empty()
                {
                    self.skipped = only.full_name(" ");
                    self.results.clear();
                }
                std::mem::take(&mut self.results).into_iter().for_each(|result| account.push(result));
                if account.results.is_empty() && !self.skipped.is_empty() {
                    let said = std::mem::take(&mut self.skipped);
                    account.push(TestResult::new([ALL], TestMark::Skipped).because(&said));
                }
            }
        }
    }
}

/// Name and mark of a line that is a result.
fn parse(line: &str) -> Option<(String, TestMark)> {
    let text = line.trim();
    if let Some((said, mark)) = bracketed(text) {
        let said = said.trim();
        let said = said.strip_prefix("TEST:").or_else(|| said.strip_prefix("Test:")).unwrap_or(said);
        return Some((name(said.trim_end_matches(['.', ' '])), mark));
    }
    if line.starts_with([' ', '\t']) {
        return ended(text);
    }
    for (word, mark) in [
        ("PASS:", TestMark::Passed),
        ("FAIL:", TestMark::Failed),
        ("SKIP:", TestMark::Skipped),
        ("XFAIL:", TestMark::ExpectedFailure),
        ("XPASS:", TestMark::UnexpectedPass),
        ("ERROR:", TestMark::Errored),
    ] {
        if let Some(said) = text.strip_prefix(word) {
            return Some((name(said), mark));
        }
    }
    ended(text)
}

/// `text [ OK ]`, also with something behind it.
fn bracketed(text: &str) -> Option<(&str, TestMark)> {
    let text = text.trim_end();
    let before = text.strip_suffix(']')?;
    let open = before.rfind('[')?;
    let mark = match before[open + 1..].trim() {
        "OK" | "PASS" | "ok" | "pass" => TestMark::Passed,
        "FAIL" | "FAILED" | "fail" | "failed" => TestMark::Failed,
        "SKIP" | "skip" => TestMark::Skipped,
        "XFAIL" => TestMark::ExpectedFailure,
        "XPASS" => TestMark::UnexpectedPass,
        _ => return None,
    };
    Some((&before[..open], mark))
}

/// `text   ok`: two blanks, a tab or dots before the word, so that a sentence is none.
fn ended(text: &str) -> Option<(String, TestMark)> {
    let at = ["  ", "\t", "... ", "…"].iter().filter_map(|gap| text.rfind(gap).map(|at| at + gap.len())).max()?;
    let (said, word) = (text[..at].trim_end_matches(['.', '…', ' ', '\t']), text[at..].trim());
    let first = word.split([' ', ':', ',']).next().unwrap_or_default();
    let mark = match first {
        "ok" | "OK" | "PASS" | "pass" if first == word => TestMark::Passed,
        "fail" | "FAIL" | "FAILED" | "failed" => TestMark::Failed,
        "skip" | "SKIP" | "skipped" => TestMark::Skipped,
        _ => return None,
    };
    Some((name(said), mark))
}
