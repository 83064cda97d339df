//! The console as evidence: what its last lines say about a guest's death.

use lab_base::text;
use lab_protocol::{
    ErrorKind,
    complaint::{Class, record},
};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// How much of the end of a console is read, bytes. A panic with its backtrace takes a tenth of it.
const TAIL: u64 = 64 << 10;
/// Lines of evidence that go into a report.
const LINES: usize = 60;
/// Longest line in a report, characters.
const WIDTH: usize = 300;

/// The end of a guest's console.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    lines: Vec<String>,
}

impl Tail {
    /// Reads the tail of a console file; a console that can't be read is an empty one, since it is only evidence.
    pub fn read(path: &Path) -> Self {
        let mut bytes = Vec::new();
        let mut read = || -> std::io::Result<()> {
            let mut file = File::open(path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
            file.take(TAIL).read_to_end(&mut bytes)?;
            Ok(())
        };
        if read().is_err() {
            return Self::default();
        }
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    pub(super) fn parse(text: &str) -> Self {
        let lines = text.lines().map(|line| text::line(line.trim_end(), WIDTH)).filter(|line| !line.is_empty());
        Self { lines: lines.collect() }
    }

    /// The kernel's own last words, without their time stamp, where it had any: what it does not survive. The guest runs
    /// with `oops=panic`.
    pub fn last_words(&self) -> Option<&str> {
        self.find(Class::is_deadly)
    }

    /// The first splat that the kernel survived.
    pub fn splat(&self) -> Option<&str> {
        self.find(|class, record| !class.is_deadly(record))
    }

    fn find(&self, wanted: impl Fn(Class, &str) -> bool) -> Option<&str> {
        let mut records = self.lines.iter().map(|line| record(line));
        records.find(|record| Class::of(record).is_some_and(|class| wanted(class, record)))
    }

    /// Refines a death: a guest that went silent or away after last words panicked.
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
    fn last_words_make_a_panic() {
        let tail = Tail::parse(
            "[    1.0] BUG: Bad page state in process case\n[    2.5] BUG: kernel NULL pointer dereference\n\
             [    2.6] Kernel panic - not syncing: Fatal exception\n",
        );
        assert_eq!(tail.last_words(), Some("BUG: kernel NULL pointer dereference"));
        assert_eq!(tail.splat(), Some("BUG: Bad page state in process case"));
        assert_eq!(tail.classify(ErrorKind::GuestLost), ErrorKind::Panic);
        assert_eq!(tail.classify(ErrorKind::Agent), ErrorKind::Agent);
        let quiet = Tail::parse("[    1.0] rcu: INFO: rcu_preempt self-detected stall on CPU\n");
        assert_eq!(quiet.classify(ErrorKind::Hang), ErrorKind::Hang, "a stall is no death");
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
