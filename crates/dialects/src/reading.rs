//! Cuts a stream into lines, and has the reader of its dialect read them.

use crate::{
    SuiteAccount, SuiteDialect, ctest::Ctest, go::Go, junit::Junit, kselftest::Kselftest, ktap::Ktap, libtest::Libtest,
    lines::ReadLines, pytest::Pytest, test_progs::TestProgs,
};

/// Longest line that is read whole, bytes. The rest of a longer one is left out.
pub const MAX_LINE: usize = 64 << 10;

/// What a program has printed so far.
pub struct SuiteOutput {
    dialect: SuiteDialect,
    reader: Box<dyn ReadLines + Send>,
    account: SuiteAccount,
    begun: Vec<u8>,
    long: usize,
}

impl std::fmt::Debug for SuiteOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SuiteOutput").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

impl SuiteOutput {
    /// Nothing is read yet.
    pub fn new(dialect: SuiteDialect) -> Self {
        let reader: Box<dyn ReadLines + Send> = match dialect {
            SuiteDialect::Ktap => Box::new(Ktap::default()),
            SuiteDialect::Kselftest => Box::new(Kselftest::default()),
            SuiteDialect::Go => Box::new(Go::default()),
            SuiteDialect::Libtest => Box::new(Libtest::default()),
            SuiteDialect::TestProgs => Box::new(TestProgs::default()),
            SuiteDialect::Pytest => Box::new(Pytest::default()),
            SuiteDialect::Ctest => Box::new(Ctest::default()),
            SuiteDialect::Junit => Box::new(Junit::default()),
        };
        Self { dialect, reader, account: SuiteAccount::default(), begun: Vec::new(), long: 0 }
    }

    /// Bytes of the program's standard output, in pieces of any size.
    pub fn feed(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (part, ends) = part.strip_suffix(b"\n").map_or((part, false), |part| (part, true));
            let room = MAX_LINE - self.begun.len();
            self.begun.extend_from_slice(&part[..part.len().min(room)]);
            self.long += usize::from(part.len() > room);
            if ends {
                self.line();
            }
        }
    }

    fn line(&mut self) {
        let line = std::mem::take(&mut self.begun);
        let line = String::from_utf8_lossy(&line);
        // Colours and carriage returns of programs that take their output for a terminal.
        let line = uncoloured(&line);
        self.reader.line(line.trim_end_matches('\r'), &mut self.account);
    }

    /// The program has ended.
    pub fn end(mut self) -> SuiteAccount {
        if !self.begun.is_empty() {
            self.line();
        }
        self.reader.end(&mut self.account);
        if self.account.dropped > 0 {
            let told =
                format!("{} tests beyond the first {} are left out", self.account.dropped, self.account.results.len());
            self.account.fault(told);
        }
        self.account
    }
}

/// A line without the escape sequences that colour it (ECMA-48: `ESC [ … m`).
fn uncoloured(line: &str) -> std::borrow::Cow<'_, str> {
    if !line.contains('\u{1b}') {
        return line.into();
    }
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        out.push_str(before);
        let end = after.find(|c: char| !(c.is_ascii_digit() || c == ';'));
        rest = match end {
            Some(end) if after[end..].starts_with(['m', 'K']) => &after[end + 1..],
            Some(end) => &after[end..],
            None => "",
        };
    }
    out.push_str(rest);
    out.into()
}
