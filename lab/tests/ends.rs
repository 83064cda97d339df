//! Runs that are ended from outside: the exit code, the messages, and the reports.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const KERNEL: &str = "6.12";
const PATIENCE: Duration = Duration::from_secs(300);

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(ROOT).args(arguments).stdin(Stdio::null()).env("CI", "true");
    command
}

/// A run of some cells on one kernel, which is fetched and built before.
fn run(case: &str, out: &Path) -> Command {
    let ready = lab(&["build"]).output().unwrap();
    assert!(ready.status.success(), "{}", String::from_utf8_lossy(&ready.stderr));
    let fetched = lab(&["kernels", "fetch", "--kernel", KERNEL]).output().unwrap();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let mut command = lab(&["run", "--no-build", "--kernel", KERNEL, "--case", case, "--out"]);
    command.arg(out);
    command
}

/// The only run below a directory, once it has started.
fn begun(out: &Path) -> PathBuf {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut runs = fs::read_dir(out).into_iter().flatten().flatten().map(|entry| entry.path());
        if let Some(run) = runs.find(|path| path.join("events.jsonl").is_file() && !path.is_symlink()) {
            return run;
        }
        assert!(Instant::now() < deadline, "the run does not begin");
        thread::sleep(Duration::from_millis(20));
    }
}

fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[test]
fn a_closed_terminal_leaves_the_reports() {
    let out = tempfile::tempdir().unwrap();
    let command = run("T0*", out.path());
    // The tests themselves may run under nohup.
    let mut hearing = Command::new("env");
    hearing.arg("--default-signal=HUP").arg(command.get_program()).args(command.get_args()).env("CI", "true");
    let child = hearing.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let directory = begun(out.path());
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGHUP).unwrap();
    let (code, said) = ended(child);
    assert_eq!(code, Some(128 + 1), "{said}");
    for report in ["junit.xml", "run.json", "report.html"] {
        assert!(directory.join(report).is_file(), "no {report}: {said}");
    }
    let summary = fs::read_to_string(directory.join("run.json")).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&summary).unwrap()["exit_code"] == 129, "{summary}");
}

#[test]
fn a_run_under_nohup_continues_after_its_terminal_closes() {
    let out = tempfile::tempdir().unwrap();
    let command = run("T0*", out.path());
    let mut ignoring = Command::new("sh");
    ignoring.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    let child = ignoring.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    begun(out.path());
    let pid = Pid::from_raw(child.id().cast_signed());
    kill(pid, Signal::SIGHUP).unwrap();
    thread::sleep(Duration::from_secs(1));
    kill(pid, Signal::SIGTERM).unwrap();
    let (code, said) = ended(child);
    assert_eq!(code, Some(128 + 15), "the second signal ended it: {said}");
}

/// `lab … 2>&1 | head -1`.
#[test]
fn a_closed_stderr_does_not_change_the_exit_code() {
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    for (arguments, code) in [
        (&["kernels", "fetch", "--kernel", "6.99"][..], 4),
        (&["report", "/nonexistent"], 2),
        (&["compare", "--no-such-flag"], 2),
        (&["kernels", "list"], 0),
    ] {
        let status = lab(arguments).stdout(Stdio::null()).stderr(closed()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
    let out = tempfile::tempdir().unwrap();
    let status =
        run("A01-*[tc,veth,from-workload]", out.path()).stdout(Stdio::null()).stderr(closed()).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

/// A disk that is full when the run starts, and one that is full when the reports are written.
#[test]
fn a_full_disk_is_reported_and_not_treated_as_a_signal() {
    for size in ["8k", "64k"] {
        let scratch = tempfile::tempdir().unwrap();
        let disk = scratch.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let command = run("A01-*[tc,veth,from-workload]", &disk.join("out"));
        let script = format!("mount -t tmpfs -o size={size} none \"$0\" && mkdir \"$0/out\" && exec \"$@\"");
        let mut mounted = Command::new("unshare");
        mounted.args(["--map-root-user", "--mount", "sh", "-c", &script]).arg(&disk);
        mounted.arg(command.get_program()).args(command.get_args()).env("CI", "true").stdin(Stdio::null());
        let output = mounted.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{size}: {said}");
        let told: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(told.len() == 1 && told[0].contains("No space left on device"), "{size}: {said}");
        assert!(!said.contains("interrupted"), "{size}: {said}");
    }
}

/// When a CI system stores artifacts, the link becomes a directory.
#[test]
fn a_directory_named_latest_does_not_change_the_exit_code() {
    let out = tempfile::tempdir().unwrap();
    fs::create_dir(out.path().join("latest")).unwrap();
    fs::write(out.path().join("latest/events.jsonl"), "of an earlier run").unwrap();
    let output = run("A01-*[tc,veth,from-workload]", out.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("latest does not point to this run"), "{said}");
    let table = String::from_utf8_lossy(&output.stdout);
    let mut runs = fs::read_dir(out.path()).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let id = runs.find(|name| name != "latest" && !name.starts_with('.')).unwrap();
    assert!(table.contains("passed") && table.contains(&id), "{table}");
    assert_eq!(fs::read_to_string(out.path().join("latest/events.jsonl")).unwrap(), "of an earlier run");
}

#[test]
fn a_run_says_how_long_it_takes_once_its_cells_have_run() {
    let out = tempfile::tempdir().unwrap();
    let told = || {
        let output = run("A01-*[tc,veth,from-workload]", out.path()).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    told();
    let said = told();
    let first = said.lines().find(|line| line.contains("1 cell on 1 kernel")).unwrap_or_default();
    assert!(first.contains(", about ") && first.ends_with(" s"), "{said}");
}

/// The canaries after the first that fails include ones that hang: a run that went on would take minutes.
#[test]
fn the_first_failure_ends_a_run_that_is_to_fail_fast() {
    let out = tempfile::tempdir().unwrap();
    let ended = run("Z*", out.path()).args(["--canary", "--fail-fast", "--jobs", "1"]).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    let summary = fs::read_to_string(out.path().join("latest/run.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    let count = |key: &str| summary["counts"][key].as_u64().unwrap();
    assert_eq!(count("failed"), 1, "{}", summary["counts"]);
    assert_eq!(count("errored"), 0, "a cell that was cut short did not run: {}", summary["counts"]);
    assert!(count("not-run") > 10, "{}", summary["counts"]);
    let shown = String::from_utf8_lossy(&ended.stdout);
    assert!(shown.contains("the run ended at the first failure (--fail-fast)"), "{shown}");
}

#[test]
fn a_run_says_as_much_as_it_was_asked_to() {
    const CASE: &str = "A01-*[tc,veth,from-workload]";
    let out = tempfile::tempdir().unwrap();
    let told = |options: &[&str], code| {
        let ended = run(CASE, out.path()).args(options).output().unwrap();
        let [shown, said] = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(ended.status.code(), Some(code), "{said}");
        (shown, said)
    };
    let (shown, said) = told(&["--verbose"], 0);
    assert!(said.contains("6.12: passed A01-") && shown.contains("4 passed, 0 failed"), "{said}{shown}");
    let (shown, said) = told(&["-q"], 0);
    assert!(shown.contains("4 passed, 0 failed") && said.is_empty(), "{said}{shown}");
    assert_eq!(told(&["-qq"], 0), (String::new(), String::new()));
    let (_, said) = told(&["-q", "-c", "Z02*", "--canary", "-x", "A*"], 4);
    assert!(said.contains("no case matches"), "an error is always said: {said}");
}
