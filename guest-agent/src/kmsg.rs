//! The kernel log: marks in it, so that a splat can be attributed to the cell that was running, and the splats themselves. The
//! console shows warnings and worse only; the log has the backtraces too.

use lab_protocol::complaint::{CUT_HERE, scan};
use nix::libc::O_NONBLOCK;
use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
};

/// A record of `/dev/kmsg` with its dictionary is never longer (`CONSOLE_EXT_LOG_MAX`, `PRINTK_MESSAGE_MAX`).
const RECORD: usize = 16 << 10;
/// Bytes of splats in one message; the host cuts at the same place.
const MOST: usize = 256 << 10;

/// What the agent's own lines begin with.
const OWN: &str = "netkit-lab: ";
/// What passes the console's threshold: warnings and worse (`KERN_WARNING` of include/linux/kern_levels.h).
const WARNING: u8 = 4;
/// What stays in the log.
const NOTICE: u8 = 5;

/// Writes one line to the kernel log and the console; where that fails the line is lost.
pub fn say(line: &str) {
    write(WARNING, line);
}

/// Writes one line to the kernel log and not to the console, which takes it byte by byte and twice in an emulated guest.
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

/// The kernel log from its oldest record on.
pub struct Log {
    file: Option<File>,
    /// Whether the kernel put a record that was read since [`Log::was_loud`] was asked on the console too.
    loud: bool,
}

impl Log {
    /// Opens it; where that fails the host has the console only.
    pub fn open() -> Self {
        let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg");
        let file = file.inspect_err(|error| say(&format!("cannot read /dev/kmsg: {error}"))).ok();
        Self { file, loud: false }
    }

    /// The splats since the last call, as they are in the log; empty where there are none.
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
                // Records were overwritten before they were read: the next read goes on with the oldest.
                Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        told(&lines)
    }

    /// Whether any record that was read since the last call is on the console too, the agent's own left out.
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

/// A splat that begins with the message of a WARN is recognised by the line before it only, so that every one gets that line.
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

/// Appends the text of a record, `6,339,5140900,-;text\n KEY=value\n` (Documentation/ABI/testing/dev-kmsg): unprintable
/// characters are escaped in it, line ends too.
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
    fn the_console_shows_warnings_and_worse_and_marks_call_for_no_marks() {
        assert!(is_loud("4,339,5140900,-;WARNING\n") && is_loud("12,340,1,-;from user space\n"));
        assert!(!is_loud("5,341,2,-;a notice\n") && !is_loud("14,342,3,-;info\n") && !is_loud("garbage"));
        assert!(!is_loud("12,343,4,-;netkit-lab: end A01-x[tc]\n"));
    }

    #[test]
    fn only_complaints_are_told_and_they_read_as_they_did() {
        let quiet = "p0: entered promiscuous mode\nnetkit-lab: begin A01\n";
        assert_eq!(told(quiet), "");
        let splat = "refcount_t: underflow; use-after-free.\nWARNING: CPU: 0 PID: 1 at lib/refcount.c:28 f+0x1/0x2\n\
                     ---[ end trace 0000000000000000 ]---\n";
        let log = format!("{quiet}{CUT_HERE}\n{splat}{quiet}");
        assert_eq!(told(&log), format!("{CUT_HERE}\n{splat}"));
        assert_eq!(scan(&told(&log)), scan(&log));
    }
}
