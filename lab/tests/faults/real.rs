//! Runs the `lab` program on real guests, watches it, and sends signals.

use crate::{ROOT, fault::Seen, marked, measure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Maximum wait for any condition: a cold boot on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Polling interval.
const POLL: Duration = Duration::from_millis(10);

/// The environment of a fault.
pub struct Stage<'a> {
    /// The mark of its processes.
    pub mark: &'a str,
    /// Its directory: `tmp/` is `TMPDIR`, `results/` contains the runs.
    pub scratch: &'a Path,
}

/// Builds agent and eBPF objects once, and creates a snapshot.
pub fn build() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let mut command = lab();
    command.args(["run", "--kernel", "6.12", "--case", "D10*", "--out"]).arg(scratch.path());
    let output = command.output().expect("lab starts");
    assert!(output.status.success(), "no fault was injected yet:\n{}", printed(&output));
}

fn lab() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(["--project", ROOT]).stdin(Stdio::null());
    command
}

/// The output, both streams.
pub fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn last_line(text: &str) -> Option<String> {
    text.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned)
}

impl Stage<'_> {
    /// `lab` with these arguments.
    pub fn lab(&self, arguments: &[&str]) -> Command {
        self.marked(lab(), arguments)
    }

    /// `lab` on another project.
    pub fn lab_on(&self, project: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.arg("--project").arg(project).stdin(Stdio::null());
        self.marked(command, arguments)
    }

    fn marked(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments);
        marked(&mut command, self.mark, self.scratch);
        command
    }

    /// `lab run` of some cells on one kernel.
    pub fn run(&self, selection: &[&str]) -> Command {
        let mut command = self.lab(&["run", "--no-build", "--kernel", "6.12", "--jobs", "1", "--out"]);
        command.arg(self.results()).args(selection);
        command
    }

    /// Directory of the runs.
    pub fn results(&self) -> PathBuf {
        self.scratch.join("results")
    }

    /// Every run so far, oldest first.
    pub fn runs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.results()).into_iter().flatten().flatten();
        let directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        let mut runs: Vec<_> = entries.filter(directory).map(|entry| entry.path()).collect();
        runs.sort();
        runs
    }

    /// Waits until a command ends.
    pub fn finish(&self, mut command: Command) -> Seen {
        let output = command.output().expect("lab starts");
        let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let last = last_line(&shown).or_else(|| last_line(&said)).unwrap_or_default();
        Seen { exit: output.status.code(), printed: printed(&output), last, runs: self.runs() }
    }

    /// Starts a command and waits until its run's events contain this text.
    pub fn until(&self, mut command: Command, words: &str) -> Child {
        let output = fs::File::create(self.scratch.join("printed")).expect("a file");
        command.stdout(output.try_clone().expect("a descriptor")).stderr(output);
        let mut child = command.spawn().expect("lab starts");
        wait_for(&format!("`{words}` in the events"), || {
            assert!(matches!(child.try_wait(), Ok(None)), "lab ended early:\n{}", self.printed());
            let events = self.runs().last().and_then(|run| fs::read_to_string(run.join("events.jsonl")).ok());
            events.is_some_and(|events| events.contains(words))
        });
        child
    }

    /// Waits for the end of a command that was started by [`Self::until`].
    pub fn end(&self, mut child: Child) -> Seen {
        let status = child.wait().expect("our child");
        let printed = self.printed();
        Seen { exit: status.code(), last: last_line(&printed).unwrap_or_default(), printed, runs: self.runs() }
    }

    fn printed(&self) -> String {
        fs::read_to_string(self.scratch.join("printed")).unwrap_or_default()
    }

    /// The virtual machines of this fault.
    pub fn machines(&self) -> Vec<i32> {
        measure::marked(self.mark).into_iter().filter(|pid| measure::command(*pid).contains("qemu-system")).collect()
    }
}

/// Sends a signal.
pub fn hit(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("it was there a moment ago");
}

/// The pid of a child.
pub fn pid(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("pids are below 2^22")
}

/// Waits for a condition.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "timeout while waiting for {what}");
        std::thread::sleep(POLL);
    }
}
