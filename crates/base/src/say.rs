//! Output of a command to stderr and stdout.

use crate::file::FileError;

/// Prints progress to standard error; standard output holds only the requested output.
pub fn say(line: &str) {
    eprintln!("{line}");
}

/// Prints the requested output to standard output. A closed pipe (`lab list | head`) is not an error.
///
/// # Errors
/// Standard output can't be written to, for another reason than a closed pipe.
pub fn show(text: impl std::fmt::Display) -> Result<(), FileError> {
    use std::io::Write;
    match write!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(FileError::of("write", "stdout")(error)),
        _ => Ok(()),
    }
}
