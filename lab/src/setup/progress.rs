//! The line of a long step: what it is, how much of it is done, how long it took.

use std::io::Write;
use std::time::{Duration, Instant};

/// How often a terminal's line is written anew.
const REFRESH: Duration = Duration::from_millis(250);
/// How often a log, which keeps every line, gets one.
const LOG: Duration = Duration::from_secs(10);

/// Writes to a terminal over and over, to anything else rarely.
pub struct Progress<'a> {
    out: &'a mut dyn Write,
    terminal: bool,
    label: String,
    last: Option<Instant>,
}

impl<'a> Progress<'a> {
    /// For the step called `label`.
    pub fn new(out: &'a mut dyn Write, terminal: bool, label: String) -> Self {
        Self { out, terminal, label, last: None }
    }

    /// The step's first line.
    pub fn begin(&mut self, text: &str) {
        self.show(text);
        self.last = None;
    }

    /// So many bytes of so many.
    pub fn bytes(&mut self, what: &str, done: u64, total: u64) {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let text = format!("{what} {} of {} MiB", mib(done.min(total)), mib(total));
        self.show(&text);
    }

    /// So many things of so many.
    pub fn count(&mut self, what: &str, done: usize, total: usize) {
        self.show(&format!("{what} {done} of {total}"));
    }

    /// Progress is a courtesy: a closed terminal must not stop an installation half-way.
    fn show(&mut self, text: &str) {
        let pause = if self.terminal { REFRESH } else { LOG };
        if self.last.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        self.last = Some(Instant::now());
        let line = format!("{}: {text}", self.label);
        let _ = if self.terminal { write!(self.out, "\r{line}\x1b[K") } else { writeln!(self.out, "{line}") };
        let _ = self.out.flush();
    }

    /// The step's last line.
    pub fn end(&mut self, text: &str) {
        let start = if self.terminal { "\r" } else { "" };
        let end = if self.terminal { "\x1b[K" } else { "" };
        let _ = writeln!(self.out, "{start}{}: {text}{end}", self.label);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gets_few_lines_and_a_terminal_one_that_changes() {
        let mut log = Vec::new();
        let mut progress = Progress::new(&mut log, false, "[1/2] QEMU".into());
        (0..100).for_each(|done| progress.bytes("downloading", done << 20, 100 << 20));
        progress.end("done in 3 s");
        assert_eq!(String::from_utf8(log).unwrap(), "[1/2] QEMU: downloading 0 of 100 MiB\n[1/2] QEMU: done in 3 s\n");
        let mut terminal = Vec::new();
        Progress::new(&mut terminal, true, "QEMU".into()).count("unpacking", 3, 7);
        assert_eq!(String::from_utf8(terminal).unwrap(), "\rQEMU: unpacking 3 of 7\x1b[K");
    }
}
