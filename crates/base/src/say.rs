//! Writes to stdout and stderr, and escapes what must not reach them.
//!
//! Nearly all printed text comes from guests, mirrors or result files. Therefore all output passes one writer. It
//! escapes characters that control a terminal or make a line look like a different one and, in CI systems, text that
//! they would execute as a command. This includes file names and errors.

use crate::{file::FileError, lock::lock, text};
use std::{
    env,
    ffi::OsStr,
    io::{self, ErrorKind, IsTerminal, Write},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// When output has colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Colour {
    /// On a terminal that is not a CI system's; `NO_COLOR` and `CLICOLOR_FORCE` change it.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The choice of the command line.
static COLOUR: OnceLock<Colour> = OnceLock::new();
/// Whether [`note`] prints nothing.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Chooses the colours of this process; the first choice counts.
pub fn choose(colour: Colour) {
    let _ = COLOUR.set(colour);
}

/// Lets [`note`] print nothing from now on.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// As [`say`], for what a user can do without: nothing with `--quiet`.
pub fn note(line: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        say(line);
    }
}

/// Whether standard output has colours.
pub fn colours() -> bool {
    let (no_color, force) = (env::var_os("NO_COLOR"), env::var_os("CLICOLOR_FORCE"));
    let choice = COLOUR.get().copied().unwrap_or_default();
    has_colours(choice, io::stdout().is_terminal(), no_color.as_deref(), force.as_deref(), in_ci())
}

/// A choice wins over the environment, and of that `NO_COLOR` (no-color.org, not empty) wins over `CLICOLOR_FORCE`
/// (bixense.com/clicolors, neither empty nor 0).
fn has_colours(choice: Colour, is_terminal: bool, no_color: Option<&OsStr>, force: Option<&OsStr>, ci: bool) -> bool {
    let set = |value: Option<&OsStr>| value.is_some_and(|value| !value.is_empty());
    match choice {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto if set(no_color) => false,
        Colour::Auto if set(force) && force.is_some_and(|value| value != "0") => true,
        Colour::Auto => is_terminal && !ci,
    }
}

/// Whether the last thing on a terminal is a line that [`redraw`] replaces.
static REDRAWN: Mutex<bool> = Mutex::new(false);

/// Replaces the line at the bottom of a terminal, for progress; [`say`] removes it. Elsewhere, and with `--quiet`, it
/// prints nothing. The line may only contain the lab's own text and numbers.
pub fn redraw(line: &str) {
    if !is_redrawn() {
        return;
    }
    let mut drawn = lock(&REDRAWN);
    *drawn = true;
    let mut out = io::stderr();
    let _ = write!(out, "\r{line}\x1b[K").and_then(|()| out.flush());
}

/// Removes the line of [`redraw`].
pub fn undraw() {
    if std::mem::take(&mut *lock(&REDRAWN)) {
        let mut out = io::stderr();
        let _ = write!(out, "\r\x1b[K").and_then(|()| out.flush());
    }
}

/// Whether [`redraw`] draws.
pub fn is_redrawn() -> bool {
    is_said_to_people() && !in_ci() && !QUIET.load(Ordering::Relaxed)
}

/// Prints a progress message to standard error; standard output only has the requested output. A closed standard
/// error is ignored, whereas `eprintln!` would panic.
pub fn say(line: &str) {
    undraw();
    let mut out = stderr();
    // If stderr can't be written to, this can't be reported either.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Prints the requested output to standard output. A closed pipe (`lab list | head`) is not an error.
///
/// # Errors
/// Standard output can't be written to, for another reason than a closed pipe.
pub fn show(text: impl std::fmt::Display) -> Result<(), FileError> {
    let mut out = Escaping::new(io::stdout().lock(), colours());
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
    fn a_choice_wins_over_the_environment_and_that_over_the_terminal() {
        let (one, zero, empty) = (Some(OsStr::new("1")), Some(OsStr::new("0")), Some(OsStr::new("")));
        for (choice, terminal, no_color, force, ci, wanted) in [
            (Colour::Auto, true, None, None, false, true),
            (Colour::Auto, false, None, None, false, false),
            (Colour::Auto, true, one, None, false, false),
            (Colour::Auto, true, empty, None, false, true),
            (Colour::Auto, true, None, None, true, false),
            (Colour::Auto, false, None, one, true, true),
            (Colour::Auto, false, None, zero, false, false),
            (Colour::Auto, true, one, one, false, false),
            (Colour::Always, false, one, None, true, true),
            (Colour::Never, true, None, one, false, false),
        ] {
            let told = has_colours(choice, terminal, no_color, force, ci);
            assert_eq!(told, wanted, "{choice:?} {terminal} {no_color:?} {force:?} {ci}");
        }
    }

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
