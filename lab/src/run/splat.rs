//! Complaints that a kernel survives: a WARN, a stall or a lock report turns the cell it fell into red.
//!
//! The console is evidence, never protocol: what is looked for are the kernel's own headers at the start of a record, so
//! that a case that merely logs the word "warning" is left alone.

use crate::text;
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Console text that is looked at after one cell, bytes: a cell that floods the log is cut, not followed.
const MOST: u64 = 256 << 10;
/// Lines of a complaint that a report keeps, header and backtrace.
const LINES: usize = 60;
/// Longest line in a report, characters.
const WIDTH: usize = 300;

/// Headers at the start of a record: `kernel/panic.c` (`__warn`), `lib/bug.c`, `kernel/watchdog.c`,
/// `kernel/rcu/tree_stall.h`, `kernel/locking/lockdep.c`, `mm/kasan/report.c`, `kernel/hung_task.c`, `mm/oom_kill.c`,
/// `net/core/dev.c` (`netdev_wait_allrefs_any`), `lib/ref_tracker.c`, `mm/kmemleak.c`.
const HEADERS: [&str; 17] = [
    "WARNING: CPU:",
    "WARNING: possible ",
    "WARNING: suspicious RCU",
    "WARNING: bad unlock",
    "WARNING: inconsistent lock",
    "WARNING: at ",
    "BUG: ",
    "kernel BUG at",
    "Oops: ",
    "general protection fault",
    "watchdog: BUG: soft lockup",
    "INFO: task ",
    "rcu: INFO: ",
    "Out of memory: ",
    "unregister_netdevice: waiting for ",
    "ref_tracker: ",
    "kmemleak: ",
];

/// One complaint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splat {
    /// Its header, without time stamp.
    pub title: String,
    /// Header and what followed.
    pub evidence: String,
}

/// Reads a console as it grows.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    read: u64,
}

impl Watch {
    /// From the console's first byte on.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), read: 0 }
    }

    /// The complaints since the last look. A console that can't be read has none; the launch would have failed.
    pub fn look(&mut self) -> Vec<Splat> {
        let (text, fresh) = self.fresh();
        self.read += fresh;
        scan(&text)
    }

    /// The complaints since the last look and before the line with `mark`; `None` where there is no such line. What comes
    /// after the mark stays for the next look, however late this one is.
    pub fn look_before(&mut self, mark: &str) -> Option<Vec<Splat>> {
        let (text, _) = self.fresh();
        let at = text.find(mark)?;
        self.read += at as u64;
        Some(scan(&text[..at]))
    }

    /// What is new, and how many bytes of the console that is. Bytes that are no UTF-8 become `?`, so that places in the
    /// text are places in the file.
    fn fresh(&self) -> (String, u64) {
        let mut bytes = Vec::new();
        let mut read = || -> std::io::Result<u64> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.read))?;
            let fresh = file.metadata()?.len().saturating_sub(self.read);
            file.take(MOST.min(fresh)).read_to_end(&mut bytes)?;
            Ok(fresh)
        };
        let fresh = read().unwrap_or(0);
        bytes.iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'?');
        (String::from_utf8_lossy(&bytes).into_owned(), fresh)
    }
}

/// Finds complaints in console text.
pub fn scan(console: &str) -> Vec<Splat> {
    let lines: Vec<&str> = console.lines().map(record).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        if !HEADERS.iter().any(|header| line.starts_with(header)) {
            at += 1;
            continue;
        }
        let rest = &lines[at..lines.len().min(at + LINES)];
        let end = rest.iter().position(|line| line.starts_with("---[ end trace")).map_or(rest.len(), |last| last + 1);
        let kept: Vec<String> = rest[..end].iter().map(|line| text::line(line, WIDTH)).collect();
        found.push(Splat { title: text::line(line, WIDTH), evidence: kept.join("\n") });
        at += end;
    }
    found
}

/// A line without what printk puts in front: `[   12.345678] `, and the caller's id under CONFIG_PRINTK_CALLER.
fn record(line: &str) -> &str {
    let mut rest = line.trim_end().trim_start_matches('\r');
    while let Some((_, words)) = rest.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        rest = words.trim_start();
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    const WARN: &str = "\
[   10.1] netkit-lab: begin A01-x[tc]
[   10.2] ------------[ cut here ]------------
[   10.2][  T123] WARNING: CPU: 0 PID: 123 at net/core/dev.c:11405 unregister_netdevice_many_notify+0x7c2/0x7d0
[   10.2] Call Trace:
[   10.2]  <TASK>
[   10.2] ---[ end trace 0000000000000000 ]---
[   10.3] netkit-lab: end A01-x[tc]
";

    #[test]
    fn a_warn_is_found_with_its_trace_and_no_more() {
        let found = scan(WARN);
        assert_eq!(found.len(), 1);
        assert!(found[0].title.starts_with("WARNING: CPU: 0 PID: 123 at net/core/dev.c:11405"));
        assert!(found[0].evidence.contains("Call Trace:") && !found[0].evidence.contains("end A01"));
    }

    #[test]
    fn words_inside_a_record_are_no_complaint() {
        assert!(scan("[1.0] foo: this is not a WARNING: CPU: at all\n[1.1] netkit-lab: begin WARNING\n").is_empty());
        assert_eq!(scan("[9.0] unregister_netdevice: waiting for p0 to become free. Usage count = 2\n").len(), 1);
    }

    #[test]
    fn a_late_look_does_not_take_a_complaint_away_from_its_cell() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let early = "[    9.0] BUG: \u{fffd} early\n";
        std::fs::write(&path, format!("{early}{WARN}")).unwrap();
        let mut watch = Watch::new(&path);
        assert_eq!(watch.look_before("begin B02-y[tc]"), None);
        assert_eq!(watch.look_before("begin A01-x[tc]").unwrap().len(), 1, "the early one only");
        assert_eq!(watch.look_before("end A01-x[tc]").unwrap().len(), 1);
        assert!(watch.look().is_empty());
    }

    #[test]
    fn each_look_sees_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut watch = Watch::new(&path);
        assert!(watch.look().is_empty(), "no console yet");
        let mut file = File::create(&path).unwrap();
        file.write_all(WARN.as_bytes()).unwrap();
        assert_eq!(watch.look().len(), 1);
        assert!(watch.look().is_empty());
        file.write_all(b"[11.0] BUG: sleeping function called from invalid context\n").unwrap();
        assert_eq!(watch.look()[0].title, "BUG: sleeping function called from invalid context");
    }

    proptest! {
        #[test]
        fn any_console_is_survived(text in "(\\PC|[\\[\\]\n\r]|WARNING: CPU:|BUG: ){0,200}") {
            for splat in scan(&text) {
                prop_assert!(splat.evidence.lines().count() <= LINES);
            }
        }
    }
}
