//! The kernel log: writes marks, which attribute a splat to the cell that was running, and reads splats. The
//! console shows only warnings and worse; the log has the backtraces too.

use lab_protocol::complaint::{CUT_HERE, scan};
use nix::libc::O_NONBLOCK;
use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
};

/// Maximum length of a record of `/dev/kmsg` with its dictionary, bytes (`CONSOLE_EXT_LOG_MAX`, `PRINTK_MESSAGE_MAX`).
const RECORD: usize = 16 << 10;
/// Maximum length of the splats in one message, bytes; the host has the same limit.
const MOST: usize = 256 << 10;

/// Prefix of the agent's own lines.
const OWN: &str = "netkit-lab: ";
/// Lowest level number that the console does not show: it shows warnings and worse (`KERN_WARNING` of
/// include/linux/kern_levels.h).
const WARNING: u8 = 4;
/// Priority of lines that only go to the log.
const NOTICE: u8 = 5;

/// Writes one line to the kernel log and the console; if that fails the line is lost.
pub fn say(line: &str) {
    write(WARNING, line);
}

/// Writes one line to the kernel log only: writing to the console of an emulated guest is slow, since it takes one byte
/// at a time.
pub fn note(line: &str) {
    write(NOTICE, line);
}

fn write(level: u8, line: &str) {
    if let Ok(mut kmsg) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // One write is one record.
        let _ = kmsg.write_all(format!("<{level}>{OWN}{line}\n").as_bytes());
    } else {
        println!("{OWN}{line}");
    }
}

/// A reader of the kernel log, starting at its oldest record.
pub struct Log {
    file: Option<File>,
    /// Whether a record that was read since the last call of [`Log::was_loud`] also went to the console.
    loud: bool,
}

impl Log {
    /// Opens the log; if that fails the host only has the console.
    pub fn open() -> Self {
        let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg");
        let file = file.inspect_err(|error| say(&format!("cannot read /dev/kmsg: {error}"))).ok();
        Self { file, loud: false }
    }

    /// The text of the splats since the last call, as in the log; empty if there are none.
    pub fn splats(&mut self) -> String {
        let mut lines = String::new();
        let mut buffer = vec![0; RECORD];
        while let Some(file) = &mut self.file {
            match file.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    let record = String::from_utf8_lossy(&buffer[..count]);
                    self.loud |= is_loud(&record);
                    message(&record, &mut lines);
                }
                // Records were overwritten before they were read: the next read continues with the oldest.
                Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        told(&lines)
    }

    /// Whether any record that was read since the last call also went to the console, except the agent's own.
    pub fn was_loud(&mut self) -> bool {
        std::mem::take(&mut self.loud)
    }
}

/// Facility and level come first in a record, as `facility << 3 | level`.
fn is_loud(record: &str) -> bool {
    let Some((head, text)) = record.split_once(';') else { return false };
    let prefix = head.split(',').next().and_then(|prefix| prefix.parse::<u32>().ok());
    prefix.is_some_and(|prefix| prefix & 7 <= u32::from(WARNING)) && !text.starts_with(OWN)
}

/// A splat that begins with the message of a WARN is only recognised together with the line before it, so that line is
/// always included.
fn told(log: &str) -> String {
    let mut out = String::new();
    for (_, lines) in scan(log) {
        let text = format!("{CUT_HERE}\n{}\n", lines.join("\n"));
        if out.len() + text.len() > MOST {
            break;
        }
        out += &text;
    }
    out
}

/// Appends the text of a record, `6,339,5140900,-;text\n KEY=value\n` (Documentation/ABI/testing/dev-kmsg). The
/// kernel escapes unprintable characters in it, including line ends.
fn message(record: &str, lines: &mut String) {
    let text = record.split_once(';').map_or(record, |(_, text)| text);
    let mut rest = text.lines().next().unwrap_or_default();
    while let Some((plain, escaped)) = rest.split_once("\\x") {
        lines.push_str(plain);
        match escaped.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(code) => {
                lines.push(char::from(code));
                rest = &escaped[2..];
            }
            None => {
                lines.push_str("\\x");
                rest = escaped;
            }
        }
    }
    lines.push_str(rest);
    lines.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_its_text() {
        let mut lines = String::new();
        message("4,339,5140900,-;WARNING: a\\x0ab \\\\x c\n SUBSYSTEM=net\n", &mut lines);
        message("4,340,5140901,c;\\x09indented\n", &mut lines);
        assert_eq!(lines, "WARNING: a\nb \\\\x c\n\tindented\n");
    }

    #[test]
    fn warnings_and_worse_are_on_the_console_but_the_agents_own_lines_do_not_count() {
        assert!(is_loud("4,339,5140900,-;WARNING\n") && is_loud("12,340,1,-;from user space\n"));
        assert!(!is_loud("5,341,2,-;a notice\n") && !is_loud("14,342,3,-;info\n") && !is_loud("garbage"));
        assert!(!is_loud("12,343,4,-;netkit-lab: end A01-x[tc]\n"));
    }

    #[test]
    fn only_splats_are_reported_and_their_text_is_unchanged() {
        let quiet = "p0: entered promiscuous mode\nnetkit-lab: begin A01\n";
        assert_eq!(told(quiet), "");
        let splat = "refcount_t: underflow; use-after-free.\nWARNING: CPU: 0 PID: 1 at lib/refcount.c:28 f+0x1/0x2\n\
                     ---[ end trace 0000000000000000 ]---\n";
        let log = format!("{quiet}{CUT_HERE}\n{splat}{quiet}");
        assert_eq!(told(&log), format!("{CUT_HERE}\n{splat}"));
        assert_eq!(scan(&told(&log)), scan(&log));
    }
}
