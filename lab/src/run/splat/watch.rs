//! Reads a console while it grows.

use super::scan;
use lab_record::splat::Splat;
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Maximum bytes of console text that are examined at once: of a cell that floods the log, only the end is read.
const MOST: u64 = 256 << 10;

/// Reads a console while it grows.
#[derive(Debug)]
pub struct ConsoleWatch {
    path: PathBuf,
    read: u64,
}

impl ConsoleWatch {
    /// Starts at the console's first byte.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), read: 0 }
    }

    /// Splats since the last call. A console that can't be read has none; launching would have failed.
    pub fn look(&mut self) -> Vec<Splat> {
        let (text, fresh) = self.fresh();
        self.read += fresh;
        scan(&text)
    }

    /// Splats since the last call and before the line with `mark`. Text after the mark is left for the next call.
    ///
    /// The agent writes marks only to a console with text. Therefore, if the mark is missing, there is no text before
    /// it, unless the console was flooded: then all text is examined.
    pub fn look_before(&mut self, mark: &str) -> Vec<Splat> {
        let (text, fresh) = self.fresh();
        let (before, passed) = match text.find(mark) {
            Some(within) => {
                let at = text[..within].rfind('\n').map_or(0, |end| end + 1);
                (&text[..at], at as u64)
            }
            None if fresh > MOST => (&*text, fresh),
            None => ("", 0),
        };
        self.read += passed;
        scan(before)
    }

    /// Skips the present content of the console: text that a restored guest printed before it was saved.
    pub fn skip(&mut self) {
        self.read = std::fs::metadata(&self.path).map_or(self.read, |file| file.len());
    }

    /// New text, and its length in bytes of the console. Invalid UTF-8 becomes `?`, so that offsets in the text are
    /// offsets in the file.
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

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_splat_belongs_to_its_cell_even_if_the_console_is_read_late() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let early = "[    9.0] BUG: \u{fffd} early\n";
        std::fs::write(&path, format!("{early}{WARN}")).unwrap();
        let mut watch = ConsoleWatch::new(&path);
        assert_eq!(watch.look_before("begin B02-y[tc]"), [], "all text is after the mark");
        assert_eq!(watch.look_before("begin A01-x[tc]").len(), 1, "the early one only");
        assert_eq!(watch.look_before("end A01-x[tc]").len(), 1);
        assert!(watch.look().is_empty());
    }

    #[test]
    fn bytes_that_are_no_text_do_not_move_the_splats_after_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        // Firmware and serial lines write such bytes; each is one byte of the file.
        let noise = [0xff; 200];
        std::fs::write(&path, [&noise[..], b"\n", WARN.as_bytes()].concat()).unwrap();
        let mut watch = ConsoleWatch::new(&path);
        assert_eq!(watch.look_before("begin A01-x[tc]"), []);
        assert_eq!(watch.look_before("end A01-x[tc]").len(), 1);
        assert!(watch.look().is_empty());
    }

    #[test]
    fn all_text_of_a_flooded_console_is_examined_if_the_mark_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let flood = "[   10.3] p0: hello\n".repeat(MOST as usize / 10);
        std::fs::write(&path, format!("{WARN}{flood}[   10.4] netkit-lab: end B02-y[tc]\n")).unwrap();
        let mut watch = ConsoleWatch::new(&path);
        assert_eq!(watch.look_before("end B02-y[tc]").len(), 1);
        assert!(watch.look().is_empty());
    }

    #[test]
    fn each_look_returns_new_text_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut watch = ConsoleWatch::new(&path);
        assert!(watch.look().is_empty(), "no console yet");
        let mut file = File::create(&path).unwrap();
        file.write_all(WARN.as_bytes()).unwrap();
        assert_eq!(watch.look().len(), 1);
        assert!(watch.look().is_empty());
        file.write_all(b"[11.0] BUG: sleeping function called from invalid context\n").unwrap();
        assert_eq!(watch.look()[0].title, "BUG: sleeping function called from invalid context");
        file.write_all(WARN.as_bytes()).unwrap();
        watch.skip();
        assert!(watch.look().is_empty());
    }
}
