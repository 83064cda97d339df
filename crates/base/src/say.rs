//! The two streams of a command.

use crate::file::FileError;

/// Progress, on standard error so that standard output stays what was asked for.
pub fn say(line: &str) {
    eprintln!("{line}");
}

/// Writes what a command is for. A reader that has left (`lab list | head`) ends the output, not the command.
///
/// # Errors
/// Standard output can't be written to.
pub fn show(text: impl std::fmt::Display) -> Result<(), FileError> {
    use std::io::Write;
    match write!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(FileError::of("write", "stdout")(error)),
        _ => Ok(()),
    }
}
