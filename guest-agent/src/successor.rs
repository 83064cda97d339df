//! The agent that takes this one's place, after an edit of a case: it arrives in pieces, and PID 1 executes it. The machine stays as it
//! is: modules, mounts, settings. Descriptors are closed, threads end, and what only they held is freed.

use crate::{error::AgentError, sender::Sender};
use nix::unistd::execv;
use std::{
    convert::Infallible,
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The running agent, and the program that others of it start.
const AGENT: &str = "/init";
/// Where the next one grows: the file of a program that runs can't be written.
const NEXT: &str = "/init.next";
/// The argument that tells an agent that it was not booted. The nonce of its `Hello` follows.
const TAKES_OVER: &str = "--takes-over";

/// The next agent, as far as it has arrived.
pub struct Successor {
    path: PathBuf,
    file: File,
}

impl Successor {
    /// Makes its file, which is empty.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn begin() -> Result<Self, AgentError> {
        Self::below(Path::new(NEXT))
    }

    fn below(path: &Path) -> Result<Self, AgentError> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o755).open(path);
        Ok(Self { path: path.to_owned(), file: file.map_err(AgentError::file(path))? })
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// It can't be written: the guest's memory is full.
    pub fn add(&mut self, piece: &[u8]) -> Result<(), AgentError> {
        self.file.write_all(piece).map_err(AgentError::file(&self.path))
    }

    /// Starts it in place of the calling process, and returns only where it can't be started. Nothing is sent meanwhile: a message would
    /// end in the middle.
    ///
    /// # Errors
    /// The kernel can't execute it.
    pub fn start(self, nonce: u64, sender: &Sender) -> Result<Infallible, AgentError> {
        let Self { path, file } = self;
        // The kernel executes no file that somebody may write.
        drop(file);
        fs::rename(&path, AGENT).map_err(AgentError::file(&path))?;
        let words = [AGENT, TAKES_OVER, &nonce.to_string()].map(CString::new);
        let words =
            words.into_iter().collect::<Result<Vec<_>, _>>().map_err(|error| AgentError::Successor(error.into()))?;
        let _held = sender.hold();
        execv(&words[0], &words).map_err(|errno| AgentError::Successor(errno.into()))
    }
}

/// The nonce that this process was given, if it took the place of another agent.
pub fn nonce() -> Option<u64> {
    nonce_of(std::env::args().skip(1))
}

fn nonce_of(mut words: impl Iterator<Item = String>) -> Option<u64> {
    words.find(|word| word == TAKES_OVER)?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn pieces_become_a_program_and_a_second_begin_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("next");
        for whole in ["a longer one", "short"] {
            let mut next = Successor::below(&path).unwrap();
            let (head, tail) = whole.split_at(2);
            next.add(head.as_bytes()).unwrap();
            next.add(tail.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        let error = Successor::below(Path::new("/nonexistent/next")).err().unwrap().to_string();
        assert!(error.starts_with("/nonexistent/next: "), "{error}");
    }

    #[test]
    fn a_booted_agent_has_no_nonce() {
        let of = |words: &str| nonce_of(words.split_whitespace().map(str::to_owned));
        assert_eq!(of("--takes-over 18446744073709551615"), Some(u64::MAX));
        // The kernel hands over words of its command line that it does not know.
        assert_eq!((of("quiet splash"), of("--takes-over"), of("--takes-over x")), (None, None, None));
    }
}
