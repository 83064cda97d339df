//! Evidence from the last console lines of a guest.

use lab_base::text;
use lab_guard::bounded;
use lab_protocol::{
    ErrorKind,
    complaint::{SplatClass, record},
};
use std::path::Path;

/// Number of bytes that are read from the end of a console. A panic with its backtrace needs a tenth of this.
const TAIL: u64 = 64 << 10;
/// Maximum number of evidence lines in a report.
const LINES: usize = 60;
/// Maximum length of a line in a report, characters.
const WIDTH: usize = 300;

/// The end of a guest's console.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    lines: Vec<String>,
}

impl Tail {
    /// Reads the end of a console file. A console that can't be read counts as empty, because it is only evidence.
    pub fn read(path: &Path) -> Self {
        bounded::tail(path, TAIL).map(|bytes| Self::parse(&String::from_utf8_lossy(&bytes))).unwrap_or_default()
    }

    /// Parses text that has already been read.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().map(|line| text::line(line.trim_end(), WIDTH)).filter(|line| !line.is_empty());
        Self { lines: lines.collect() }
    }

    /// The title of the fatal splat, without its time stamp, if there is one. The guest runs with `oops=panic`.
    pub fn last_words(&self) -> Option<&str> {
        self.find(SplatClass::is_deadly)
    }

    /// The first splat that was not fatal.
    pub fn splat(&self) -> Option<&str> {
        self.find(|class, record| !class.is_deadly(record))
    }

    fn find(&self, wanted: impl Fn(SplatClass, &str) -> bool) -> Option<&str> {
        let mut records = self.lines.iter().map(|line| record(line));
        records.find(|record| SplatClass::of(record).is_some_and(|class| wanted(class, record)))
    }

    /// Corrects the kind of a loss: a guest that stopped answering after a fatal splat has panicked.
    pub fn classify(&self, seen: ErrorKind) -> ErrorKind {
        match seen {
            ErrorKind::Hang | ErrorKind::GuestLost | ErrorKind::Boot if self.last_words().is_some() => ErrorKind::Panic,
            other => other,
        }
    }

    /// The last lines, for a report.
    pub fn evidence(&self) -> String {
        self.lines[self.lines.len().saturating_sub(LINES)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fatal_splat_makes_a_panic() {
        let tail = Tail::parse(
            "[    1.0] BUG: Bad page state in process case\n[    2.5] BUG: kernel NULL pointer dereference\n\
             [    2.6] Kernel panic - not syncing: Fatal exception\n",
        );
        assert_eq!(tail.last_words(), Some("BUG: kernel NULL pointer dereference"));
        assert_eq!(tail.splat(), Some("BUG: Bad page state in process case"));
        assert_eq!(tail.classify(ErrorKind::GuestLost), ErrorKind::Panic);
        assert_eq!(tail.classify(ErrorKind::Agent), ErrorKind::Agent);
        let quiet = Tail::parse("[    1.0] rcu: INFO: rcu_preempt self-detected stall on CPU\n");
        assert_eq!(quiet.classify(ErrorKind::Hang), ErrorKind::Hang, "a stall is not a crash");
    }

    #[test]
    fn evidence_is_bounded_and_printable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        std::fs::write(&path, "\x1b[2J\u{0}hostile \u{FFFE}\n".repeat(1 << 16)).unwrap();
        let evidence = Tail::read(&path).evidence();
        assert!(evidence.len() < LINES * WIDTH * 4);
        assert!(evidence.chars().all(|c| c == '\n' || !c.is_control()), "{evidence}");
        assert_eq!(Tail::read(&dir.path().join("absent")), Tail::default());
    }
}
