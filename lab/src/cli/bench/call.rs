//! Starts this program as a person does, and measures the time until its exit.

use crate::error::Error;
use lab_base::interrupt::Interrupt;
use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// This program, for a project.
pub(super) struct Caller {
    program: PathBuf,
    project: PathBuf,
}

impl Caller {
    /// This program as it runs now.
    pub(super) fn new(project: &Path) -> Result<Self, Error> {
        let program = env::current_exe().map_err(Error::file("find", "this program"))?;
        Ok(Self { program, project: project.to_owned() })
    }

    /// Runs it with these words, which must succeed; gives the time from its start to its exit.
    pub(super) fn timed<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Duration, Error> {
        self.timed_until(words, |code| code == 0)
    }

    /// As [`Self::timed`], for words that may also end with another exit code.
    pub(super) fn timed_until<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
        is_end: fn(i32) -> bool,
    ) -> Result<Duration, Error> {
        let words: Vec<OsString> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        let mut command = Command::new(&self.program);
        command.arg("--project").arg(&self.project).args(&words).stdin(Stdio::null());
        let begin = Instant::now();
        let ended = command.output().map_err(Error::file("start", &self.program))?;
        let took = begin.elapsed();
        if ended.status.code().is_some_and(is_end) && Interrupt::raised().is_none() {
            return Ok(took);
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        let last = said.lines().last().unwrap_or_default();
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        Err(Error::Host(format!("`lab {}` ended with {}: {last}", words.join(" "), ended.status)))
    }
}
