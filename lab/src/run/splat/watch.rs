//! Reads a console while it grows.

use super::scan;
use lab_record::splat::Splat;
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Maximum bytes of console text that are examined at once.
const PIECE: u64 = 256 << 10;
/// Pieces of a flooded console that are examined from its start; of what follows only the end is.
const PIECES: u32 = 64;

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
        self.until(None).0
    }

    /// Splats since the last call and before the line with `mark`. Text after the mark is left for the next call.
    ///
    /// The agent writes marks only to a console with text. Therefore, if the mark is missing, there is no text before
    /// it, unless the console was flooded: then all text is examined.
    pub fn look_before(&mut self, mark: &str) -> Vec<Splat> {
        let begin = self.read;
        let (splats, found) = self.until(Some(mark));
        if found || self.read - begin > PIECE {
            return splats;
        }
        self.read = begin;
        Vec::new()
    }

    /// Splats of the new text up to the line with the mark, and whether there is one.
    fn until(&mut self, mark: Option<&str>) -> (Vec<Splat>, bool) {
        let end = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        let mut splats = Vec::new();
        for number in 0.. {
            if number == PIECES {
                self.read = self.read.max(end.saturating_sub(PIECE));
            }
            let text = self.piece(end);
            if text.is_empty() {
                break;
            }
            if let Some(within) = mark.and_then(|mark| text.find(mark)) {
                let at = text[..within].rfind('\n').map_or(0, |end| end + 1);
                self.read += at as u64;
                splats.extend(scan(&text[..at]));
                return (splats, true);
            }
            self.read += text.len() as u64;
            splats.extend(scan(&text));
        }
        (splats, false)
    }

    /// Skips the present content of the console: text that a restored guest printed before it was saved.
    pub fn skip(&mut self) {
        self.read = std::fs::metadata(&self.path).map_or(self.read, |file| file.len());
    }

    /// The next piece of the text before `end`, of whole lines where more follows. Invalid UTF-8 becomes `?`, so that offsets in the
    /// text are offsets in the file.
    fn piece(&self, end: u64) -> String {
        let mut bytes = Vec::new();
        let mut read = || -> std::io::Result<()> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.read))?;
            file.take(PIECE.min(end.saturating_sub(self.read))).read_to_end(&mut bytes)?;
            Ok(())
        };
        // What can't be read has no splats.
        drop(read());
        if self.read + (bytes.len() as u64) < end
            && let Some(line) = bytes.iter().rposition(|byte| *byte == b'\n')
        {
            bytes.truncate(line + 1);
        }
        bytes.iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'?');
        String::from_utf8_lossy(&bytes).into_owned()
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
        let flood = "[   10.3] p0: hello\n".repeat(PIECE as usize / 10);
        std::fs::write(&path, format!("{WARN}{flood}[   10.4] netkit-lab: end B02-y[tc]\n")).unwrap();
        let mut watch = ConsoleWatch::new(&path);
        assert_eq!(watch.look_before("end B02-y[tc]").len(), 1);
        assert!(watch.look().is_empty());
    }

    #[test]
    fn splats_behind_a_flood_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let line = "[   10.3] p0: hello\n";
        let other = "[   10.5] BUG: sleeping function called from invalid context\n";
        // Twice a piece, and more than all pieces.
        for lines in [2 * PIECE as usize / line.len(), (u64::from(PIECES) + 2) as usize * PIECE as usize / line.len()] {
            let flood = line.repeat(lines);
            std::fs::write(&path, format!("{WARN}{flood}{WARN}[   10.4] netkit-lab: end B02-y[tc]\n{other}")).unwrap();
            let mut watch = ConsoleWatch::new(&path);
            assert_eq!(watch.look_before("end B02-y[tc]").len(), 2);
            assert_eq!(watch.look().len(), 1, "what follows the mark");
            assert_eq!(ConsoleWatch::new(&path).look().len(), 3);
        }
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
