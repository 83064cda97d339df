//! The outcome of a whole program: what it reported, held against how it ended. Neither is believed alone.

use crate::{SuiteAccount, SuiteDialect, TestMark, TestResult, account::ALL};

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramExit {
    /// It exited by itself. Also 124 is its own, whatever timeout(1) does.
    Exited(u8),
    /// A signal ended it.
    Killed(i32),
    /// The lab ended it at its timeout.
    TimedOut,
}

/// The outcome of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conclusion {
    /// Every test passed or did not count, and the program says so.
    Passed,
    /// A test failed, or the account contradicts the program's end. One line.
    Failed(String),
    /// It skipped itself. One line.
    Skipped(String),
    /// It has no result. One line.
    Errored(String),
    /// Its end says it: a signal, the timeout.
    AsItEnded,
}

/// Exit codes of shells for a command that can't be executed, and for one that is not found.
const INFRASTRUCTURE: std::ops::RangeInclusive<u8> = 126..=127;

/// Concludes.
///
/// | end | account | outcome |
/// |---|---|---|
/// | 126, 127 | any | errored: the program, or one that it needs, was not started |
/// | 4, in the selftests' dialect | no failed test | skipped |
/// | 0 | a failed test, a gap in the plan | failed |
/// | other | no failed test | failed: the code contradicts the tests |
/// | 0 | no test | errored, but in dialects that may be silent |
pub fn conclude(dialect: SuiteDialect, account: &SuiteAccount, end: ProgramExit) -> Conclusion {
    let separator = dialect.separator();
    let count = account.results.len();
    let bad = account.first_bad();
    let failed = || match account.results.iter().filter(|result| result.mark.is_bad()).count() {
        1 => "1 test".to_owned(),
        number => format!("{number} tests"),
    };
    let told = |result: &TestResult| {
        if result.path == [ALL] && !result.reason.is_empty() {
            return result.reason.clone();
        }
        let reason = if result.reason.is_empty() { String::new() } else { format!(": {}", result.reason) };
        format!("{}{reason}", result.full_name(separator))
    };
    let code = match end {
        ProgramExit::Killed(_) | ProgramExit::TimedOut => return Conclusion::AsItEnded,
        ProgramExit::Exited(code) => code,
    };
    if INFRASTRUCTURE.contains(&code) {
        let what = if code == 126 { "can't be executed" } else { "was not found" };
        return Conclusion::Errored(format!("exit code {code}: it, or a program that it starts, {what}"));
    }
    if dialect.skip_code() == Some(code) && bad.is_none() {
        let skipped = account.results.iter().rev().find(|result| result.mark == TestMark::Skipped);
        let reason = skipped.map_or_else(String::new, told);
        return Conclusion::Skipped(if reason.is_empty() { format!("exit code {code}") } else { reason });
    }
    match (code, bad) {
        (0, Some(bad)) => Conclusion::Failed(format!("exit code 0, but {} failed; the first: {}", failed(), told(bad))),
        (_, Some(bad)) => Conclusion::Failed(format!("{} of {count} failed; the first: {}", failed(), told(bad))),
        (0, None) => match account.faults.first() {
            Some(fault) => Conclusion::Failed(fault.clone()),
            None if count == 0 && !dialect.may_be_silent() => {
                Conclusion::Errored("exit code 0, but no test was reported".to_owned())
            }
            None if count > 0 && account.count(TestMark::Skipped) == count => {
                Conclusion::Skipped(account.results.first().map_or_else(String::new, told))
            }
            None => Conclusion::Passed,
        },
        (code, None) => {
            let fault = account.faults.first().map_or_else(String::new, |fault| format!("; {fault}"));
            let what =
                if count == 0 { "no test was reported".to_owned() } else { format!("none of {count} tests failed") };
            Conclusion::Failed(format!("exit code {code}, but {what}{fault}"))
        }
    }
}
