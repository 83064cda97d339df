//! Writes to stdout and stderr, and escapes what must not reach them.
//!
//! Nearly all printed text comes from guests, mirrors or result files. Therefore all output passes one writer. It
//! escapes characters that control a terminal or make a line look like a different one and, in CI systems, text that
//! they would execute as a command. This includes file names and errors.

use crate::{file::FileError, text};
use std::{
    env,
    io::{self, ErrorKind, IsTerminal, Write},
};

/// Prints a progress message to standard error; standard output only has the requested output. A closed standard
/// error is ignored, whereas `eprintln!` would panic.
pub fn say(line: &str) {
    let mut out = stderr();
    // If stderr can't be written to, this can't be reported either.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Prints the requested output to standard output. A closed pipe (`lab list | head`) is not an error.
///
/// # Errors
/// Standard output can't be written to, for another reason than a closed pipe.
pub fn show(text: impl std::fmt::Display) -> Result<(), FileError> {
    let stdout = io::stdout();
    let mut out = Escaping::new(stdout.lock(), stdout.is_terminal());
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(FileError::of("write", "stdout")(error)),
        _ => Ok(()),
    }
}

/// As [`show`], for lines that are commands to GitHub's runner: the lab's own `::error`, `::warning` and
/// `::notice`. Their text may come from guests and is escaped, so that it is not another command.
///
/// # Errors
/// Standard output can't be written to.
pub fn annotate(lines: &str) -> Result<(), FileError> {
    const OWN: [&str; 3] = ["::error ", "::warning ", "::notice "];
    let stdout = io::stdout();
    let mut out = stdout.lock();
    let mut write = || {
        lines.split_inclusive('\n').try_for_each(|line| {
            let own = OWN.iter().find(|begin| line.starts_with(**begin)).copied().unwrap_or_default();
            let words = text::printable(&line[own.len()..], false, true);
            out.write_all(own.as_bytes()).and_then(|()| out.write_all(words.as_bytes()))
        })
    };
    match write() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(FileError::of("write", "stdout")(error)),
        _ => Ok(()),
    }
}

/// Standard error, for output of several lines.
pub fn stderr() -> Escaping<io::Stderr> {
    let stderr = io::stderr();
    let terminal = stderr.is_terminal();
    Escaping::new(stderr, terminal)
}

/// Standard error for a line that is redrawn on a terminal: it contains only the lab's own text and numbers.
pub fn redrawn() -> Box<dyn Write> {
    if is_said_to_people() { Box::new(io::stderr()) } else { Box::new(stderr()) }
}

/// Whether a CI system reads the output.
pub fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// Whether stdout is a terminal or a CI log, not another program.
pub fn is_shown_to_people() -> bool {
    io::stdout().is_terminal()
}

/// Whether stderr is a terminal or a CI log.
pub fn is_said_to_people() -> bool {
    io::stderr().is_terminal()
}

/// Writes whole lines, escaped by [`text::printable`].
#[derive(Debug)]
pub struct Escaping<W: Write> {
    out: W,
    colours: bool,
    ci: bool,
    line: Vec<u8>,
}

impl<W: Write> Escaping<W> {
    /// Creates a writer for a stream; `colours` keeps the lab's own colours, for terminals.
    pub fn new(out: W, colours: bool) -> Self {
        Self { out, colours, ci: in_ci(), line: Vec::new() }
    }

    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        let line = String::from_utf8_lossy(bytes);
        self.out.write_all(text::printable(&line, self.colours, self.ci).as_bytes())
    }
}

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if let Some(end) = self.line.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.line.split_off(end + 1);
            let whole = std::mem::replace(&mut self.line, rest);
            self.pass(&whole)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.line);
        self.pass(&rest)?;
        self.out.flush()
    }
}

impl<W: Write> Drop for Escaping<W> {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_written_in_pieces_is_escaped_as_one() {
        let mut kept = Vec::new();
        let mut out = Escaping { out: &mut kept, colours: false, ci: true, line: Vec::new() };
        for piece in ["a\n:", ":error::", "x\n\x1b", "[2J rest"] {
            out.write_all(piece.as_bytes()).unwrap();
        }
        drop(out);
        assert_eq!(String::from_utf8(kept).unwrap(), "a\n\\u003a:error::x\n\\u001b[2J rest");
    }
}
