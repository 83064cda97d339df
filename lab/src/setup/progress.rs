//! The progress line of a long step: its label, how much is done, and its duration.

use lab_base::transfer::{self, LOG, REFRESH};
use std::{io::Write, time::Instant};

/// Rewrites one line on a terminal; elsewhere prints few lines.
pub struct Progress<'a> {
    out: &'a mut dyn Write,
    terminal: bool,
    label: String,
    begin: Instant,
    last: Option<Instant>,
}

impl<'a> Progress<'a> {
    /// Creates the progress line of the step `label`.
    pub fn new(out: &'a mut dyn Write, terminal: bool, label: String) -> Self {
        Self { out, terminal, label, begin: Instant::now(), last: None }
    }

    /// Shows the step's first line.
    pub fn begin(&mut self, text: &str) {
        self.show(text);
        self.begin = Instant::now();
        self.last = None;
    }

    /// Shows a progress in bytes.
    pub fn bytes(&mut self, what: &str, done: u64, total: u64) {
        let words = transfer::words(done, total, self.begin.elapsed());
        let bar = if self.terminal { format!("{} ", transfer::bar(done, total)) } else { String::new() };
        self.show(&format!("{what} {bar}{words}"));
    }

    /// Shows a progress in items.
    pub fn count(&mut self, what: &str, done: usize, total: usize) {
        self.show(&format!("{what} {done} of {total}"));
    }

    /// Write errors are ignored: a closed terminal must not stop an installation half-way.
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

    /// Shows the step's last line.
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
