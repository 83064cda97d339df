//! Programs that load objects: started, waited for, ended.

use nix::sys::memfd::{MFdFlags, memfd_create};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Bytes of a program's output that are read.
const OUTPUT: u64 = 1 << 20;
/// Time for a program that neither ends nor attaches anything; a verifier takes a minute for its limit in an emulated guest.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time in which a program that has attached something may attach more.
const MORE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

/// What a program said.
pub struct Said {
    /// Whether its exit code was 0, or it was still running.
    pub is_good: bool,
    /// Both streams, in the order in which it wrote them.
    pub lines: Vec<String>,
}

impl Said {
    /// Of one that could not be started.
    pub fn failed(why: String) -> Self {
        Self { is_good: false, lines: vec![why] }
    }
}

/// A program that runs.
pub struct StartedLoader {
    child: Child,
    /// Both streams: a file, so that it never waits for a reader.
    output: File,
}

impl StartedLoader {
    /// Starts it in the caller's namespaces.
    ///
    /// # Errors
    /// It can't be executed.
    pub fn start(words: &[String], environment: &[(&str, String)]) -> io::Result<Self> {
        let (program, arguments) = words.split_first().ok_or(io::ErrorKind::NotFound)?;
        let output = File::from(memfd_create(c"output", MFdFlags::MFD_CLOEXEC)?);
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        let child = command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        Ok(Self { child, output })
    }

    /// Waits until it has ended, or until a condition holds and some time has passed, so that it may attach more.
    pub fn wait_until(&mut self, holds: impl Fn() -> bool) {
        let begin = Instant::now();
        let mut since = None;
        while begin.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            if since.is_none() && holds() {
                since = Some(Instant::now());
            }
            if since.is_some_and(|at: Instant| at.elapsed() > MORE) {
                return;
            }
            thread::sleep(POLL);
        }
    }

    /// Ends it, if it has not ended.
    pub fn end(mut self) -> Said {
        let ended = self.child.try_wait().ok().flatten();
        if ended.is_none() {
            // It may have ended meanwhile.
            _ = self.child.kill();
            _ = self.child.wait();
        }
        Said { is_good: ended.is_none_or(|status| status.success()), lines: self.lines() }
    }

    fn lines(&mut self) -> Vec<String> {
        let mut bytes = Vec::new();
        // What can't be read back is missing from a message, and nowhere else.
        _ = self.output.seek(SeekFrom::Start(0));
        _ = (&mut self.output).take(OUTPUT).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }
}

/// Runs a program to its end.
///
/// # Errors
/// It can't be executed, or does not end.
pub fn run(words: &[String], more: &[&str]) -> io::Result<Said> {
    let line: Vec<String> = words.iter().cloned().chain(more.iter().map(|&word| word.to_owned())).collect();
    let mut started = StartedLoader::start(&line, &[])?;
    started.wait_until(|| false);
    let has_ended = matches!(started.child.try_wait(), Ok(Some(_)));
    let mut said = started.end();
    if !has_ended {
        said.is_good = false;
        said.lines.push(format!("it did not end within {} s", PATIENCE.as_secs()));
    }
    Ok(said)
}
