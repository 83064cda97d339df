//! The two streams of a command.

use crate::file::FileError;

use std::io::Write;

/// Progress, on standard error so that standard output stays what was asked for. A reader that has left is no reason to stop,
/// as `eprintln!` would by a panic.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Writes what a command is for. A reader that has left (`lab list | head`) ends the output, not the command.
///
/// # Errors
/// Standard output can't be written to.
pub fn show(text: impl std::fmt::Display) -> Result<(), FileError> {
    match write!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(FileError::of("write", "stdout")(error)),
        _ => Ok(()),
    }
}
