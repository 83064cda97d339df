//! Runs a suite by `lab exec`, and reads the verdicts of its tests from its own output.

use crate::suites;
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Once,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const LAB: &str = env!("CARGO_BIN_EXE_lab");
/// The default matrix.
pub const KERNELS: [&str; 3] = ["6.1", "6.12", "6.17"];
/// `timeout=` of tools/testing/selftests/net/settings is an hour; this is for guests that hang.
const TIMEOUT: &str = "20m";

/// What a test came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    Passed,
    Failed,
    Skipped,
}

/// Verdicts by the names of tests.
pub type Verdicts = BTreeMap<String, Told>;

/// What came out of one guest.
#[derive(Debug)]
pub struct Cell {
    pub code: Option<u64>,
    pub stdout: String,
    pub stderr: String,
}

impl Cell {
    /// The end of what it wrote, for a person.
    pub fn end(&self) -> String {
        let tail = |text: &str| {
            text.lines().rev().take(25).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        format!("exit code {:?}\n{}\n{}", self.code, tail(&self.stdout), tail(&self.stderr))
    }
}

/// A command, and how it is run.
#[derive(Debug)]
pub struct Run {
    name: &'static str,
    options: Vec<String>,
    cwd: PathBuf,
    tools: bool,
}

fn lab() -> Command {
    let mut command = Command::new(LAB);
    command.args(["--project", ROOT]).stdin(Stdio::null());
    command
}

/// `lab exec` starts no compiler where there is an agent; a test must have the agent of this checkout.
fn build() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let listed = lab().args(["list", "--case", "P03*"]).output().unwrap();
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    });
}

impl Run {
    pub fn new(name: &'static str) -> Self {
        Self { name, options: Vec::new(), cwd: env::temp_dir(), tools: false }
    }

    pub fn within(mut self, cwd: &Path) -> Self {
        self.cwd = cwd.to_owned();
        self
    }

    pub fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|word| (*word).to_owned()));
        self
    }

    /// With newer programs than the host's in `PATH`.
    pub fn with_tools(mut self) -> Self {
        self.tools = true;
        self
    }

    /// Runs it on each kernel, in a guest of its own.
    pub fn on(&self, kernels: &[&str], command: &[&str]) -> BTreeMap<String, Cell> {
        build();
        let results = tempfile::tempdir().unwrap();
        let mut exec = lab();
        exec.args(["exec", "--no-build", "--no-input", "-k", &kernels.join(","), "--name", self.name]);
        exec.args(["--timeout", TIMEOUT, "--results"]).arg(results.path()).args(&self.options);
        let path = env::var("PATH").unwrap_or_default();
        if self.tools {
            let own = suites::programs();
            exec.arg("--env").arg(format!("PATH={}:{path}:/usr/sbin:/sbin", own.display()));
        }
        let output = exec.arg("--").args(command).current_dir(&self.cwd).output().unwrap();
        let latest = results.path().join("latest");
        let events = fs::read_to_string(latest.join("events.jsonl"));
        let events = events.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let cells: BTreeMap<String, Cell> = events.lines().filter_map(|line| self.cell(line, &latest)).collect();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(cells.len(), kernels.len(), "{command:?} has a cell on each of {kernels:?}: {errors}");
        cells
    }

    fn cell(&self, line: &str, latest: &Path) -> Option<(String, Cell)> {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let report = &event["verdict"]["report"];
        if event["event"] != "cell-finished" || report["cell"] != self.name {
            return None;
        }
        let kernel = event["kernel"].as_str().unwrap().to_owned();
        let kept = latest.join(&kernel).join("cells").join(self.name);
        let read = |name: &str| fs::read(kept.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let (stdout, stderr) = (read("stdout.txt").unwrap_or_default(), read("stderr.txt").unwrap_or_default());
        Some((kernel, Cell { code: report["program"]["how"]["code"].as_u64(), stdout, stderr }))
    }
}

/// `go test -v`: `--- PASS: TestX/sub (0.00s)`. A test that failed because one below it did is not told.
pub fn go(cell: &Cell) -> Verdicts {
    let mut all = Verdicts::new();
    for line in cell.stdout.lines().map(str::trim_start) {
        let Some((verdict, rest)) = line.strip_prefix("--- ").and_then(|rest| rest.split_once(": ")) else { continue };
        let verdict = match verdict {
            "PASS" => Told::Passed,
            "FAIL" => Told::Failed,
            "SKIP" => Told::Skipped,
            _ => continue,
        };
        all.insert(rest.rsplit_once(" (").map_or(rest, |(name, _)| name).to_owned(), verdict);
    }
    let failed: Vec<String> =
        all.iter().filter(|(_, told)| **told == Told::Failed).map(|(name, _)| name.clone()).collect();
    all.retain(|name, _| !failed.iter().any(|other| other.starts_with(&format!("{name}/"))));
    all
}

/// `pytest -rA`: `FAILED file.py::Class::test - reason`.
pub fn pytest(cell: &Cell) -> Verdicts {
    let mut all = Verdicts::new();
    for line in cell.stdout.lines() {
        let mut words = line.split_whitespace();
        let verdict = match words.next() {
            Some("PASSED") => Told::Passed,
            Some("FAILED" | "ERROR") => Told::Failed,
            _ => continue,
        };
        if let Some((_, name)) = words.next().and_then(|path| path.split_once("::")) {
            all.insert(name.to_owned(), verdict);
        }
    }
    all
}

/// Rules of kselftest: 4 is a skip (`KSFT_SKIP`).
pub fn exit_code(test: &str, cell: &Cell) -> Verdicts {
    let verdict = match cell.code {
        Some(0) => Told::Passed,
        Some(4) => Told::Skipped,
        _ => Told::Failed,
    };
    Verdicts::from([(test.to_owned(), verdict)])
}

/// A crate's tests with `lab exec` as the runner of the target: a guest for each test under nextest, and without it one for each
/// test binary, of cargo's own runner.
pub fn cargo_tests(kernel: &str, place: &Path, only: &[&str]) -> (Verdicts, String) {
    build();
    let results = tempfile::tempdir().unwrap();
    let runner = format!(
        "{LAB} --project {ROOT} exec --no-build --no-input -k {kernel} --results {} --",
        results.path().display()
    );
    let target = format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER", env::consts::ARCH.to_uppercase());
    let has_nextest = suites::has_nextest();
    let mut cargo = Command::new("cargo");
    if has_nextest {
        cargo.args(["nextest", "run", "--no-fail-fast", "--test-threads", "2"]);
        cargo.args(["--status-level", "all", "--final-status-level", "none"]);
    } else {
        println!("cargo has no nextest here: its own runner runs the tests");
        cargo.args(["test", "--no-fail-fast"]);
    }
    cargo.args(["--offline", "--color", "never", "--target-dir", "target"]).args(only);
    // Its own settings, and not those of the run that this is a test of.
    let own = env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NEXTEST"));
    own.for_each(|(name, _)| _ = cargo.env_remove(name));
    cargo.current_dir(place).env(target, runner).stdin(Stdio::null()).env_remove("CARGO_TARGET_DIR");
    let output = cargo.output().unwrap();
    let [told, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let verdicts = if has_nextest { nextest(&errors) } else { libtest(&told) };
    (verdicts, format!("{told}{errors}"))
}

/// `PASS [   0.004s] (1/9) tempfile::env test_name`.
fn nextest(text: &str) -> Verdicts {
    let mut all = Verdicts::new();
    for line in text.lines().map(str::trim) {
        let verdict = match line.split_whitespace().next() {
            Some("PASS") => Told::Passed,
            Some("FAIL" | "SIGABRT" | "SIGSEGV") => Told::Failed,
            _ => continue,
        };
        if let Some((_, name)) = line.split_once("] ") {
            all.insert(name.rsplit(' ').next().unwrap_or(name).to_owned(), verdict);
        }
    }
    all
}

/// `test test_name ... ok`.
fn libtest(text: &str) -> Verdicts {
    let mut all = Verdicts::new();
    for line in text.lines() {
        let Some((name, told)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) else { continue };
        let verdict = match told.split(',').next() {
            Some("ok") => Told::Passed,
            Some("FAILED") => Told::Failed,
            Some("ignored") => Told::Skipped,
            _ => continue,
        };
        all.insert(name.to_owned(), verdict);
    }
    all
}

/// What `lab check` tells of an object on a kernel that this loader loads too.
pub fn check(kernel: &str, loader: &str, object: &Path) -> serde_json::Value {
    let done =
        lab().args(["check", "--format", "json", "-k", kernel, "--loader", loader]).arg(object).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}
