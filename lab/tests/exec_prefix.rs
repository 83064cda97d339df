//! `lab exec` as the prefix of other runners, and what many such runs leave in a project.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Output, Stdio},
    sync::Once,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const LAB: &str = env!("CARGO_BIN_EXE_lab");
const KERNEL: &str = "6.12";

/// The prefix, with a guest's snapshot behind it: what boots one says so on standard error.
fn prefix() -> String {
    static READY: Once = Once::new();
    let prefix = format!("{LAB} --project {ROOT} exec --no-build -k {KERNEL} --");
    READY.call_once(|| {
        // A run of no case builds the agent.
        let built =
            Command::new(LAB).args(["--project", ROOT, "run", "--kernel", KERNEL, "--case", "nosuch-case"]).output();
        assert_eq!(built.unwrap().status.code(), Some(4));
        let ready = shell(Path::new(ROOT), &format!("{prefix} true"));
        assert_eq!(ready.status.code(), Some(0), "{}", text(&ready.stderr));
    });
    prefix
}

/// Runs `script` as a person's shell does: without what `make test` gives to the tests, which would make a make in
/// the script print the directories that it enters.
fn shell(cwd: &Path, script: &str) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).current_dir(cwd).stdin(Stdio::null());
    shell.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("MFLAGS").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_here(program: &str) -> bool {
    shell(Path::new("/"), &format!("command -v {program}")).status.success()
}

fn write(file: &Path, content: &str, mode: u32) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

const CRATE: &str = r#"
#[test]
fn runs_in_the_guest() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(release.starts_with("6.12."), "{release}");
    assert!(std::path::Path::new("Cargo.toml").exists());
}

#[test]
fn may_fail() {
    assert_eq!(std::env::var("WANTED").as_deref(), Ok("yes"));
}
"#;

#[test]
fn cargo_test_runs_a_crates_tests_in_the_guest() {
    let dir = tempfile::tempdir().unwrap();
    write(
        &dir.path().join("Cargo.toml"),
        "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n",
        0o644,
    );
    write(&dir.path().join("src/lib.rs"), CRATE, 0o644);
    let target = format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER", std::env::consts::ARCH.to_uppercase());
    for (wanted, code, line) in [("yes", 0, "2 passed; 0 failed"), ("no", 101, "1 passed; 1 failed")] {
        let mut cargo = Command::new("cargo");
        cargo
            .args(["test", "--offline", "--lib", "--target-dir", "target"])
            .current_dir(dir.path())
            .stdin(Stdio::null());
        let got = cargo.env(&target, prefix()).env("WANTED", wanted).output().unwrap();
        let (out, errors) = (text(&got.stdout), text(&got.stderr));
        assert_eq!(got.status.code(), Some(code), "{out}\n{errors}");
        assert!(out.contains(line) && out.contains("test runs_in_the_guest ... ok"), "{out}");
        assert!(!errors.contains("lab exec:"), "{errors}");
    }
}

#[test]
fn make_has_the_programs_output_and_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("x"), "#!/bin/sh\nuname -r\necho warning >&2\nexit $1\n", 0o755);
    // A line without a character of the shell: make starts the prefix itself.
    let rules = format!("good:\n\t@{0} ./x 0\nbad:\n\t@{0} ./x 3\n", prefix());
    write(&dir.path().join("Makefile"), &rules, 0o644);
    let good = shell(dir.path(), "make good");
    assert_eq!((good.status.code(), text(&good.stderr).as_str()), (Some(0), "warning\n"), "{}", text(&good.stdout));
    assert!(
        text(&good.stdout).starts_with("6.12.") && text(&good.stdout).lines().count() == 1,
        "{}",
        text(&good.stdout)
    );
    let bad = shell(dir.path(), "make bad");
    assert_eq!(bad.status.code(), Some(2), "{}", text(&bad.stderr));
    assert!(text(&bad.stderr).contains("bad] Error 3"), "{}", text(&bad.stderr));
}

const UNITTEST: &str = "
import os, unittest

class Kernel(unittest.TestCase):
    def test_release(self):
        self.assertTrue(os.uname().release.startswith('6.12.'))

    def test_wanted(self):
        self.assertEqual(os.environ.get('WANTED'), 'yes')
";

#[test]
fn python_tests_run_in_the_guest() {
    assert!(is_here("python3"), "python3 is needed, as virtme-ng needs it");
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("test_kernel.py"), UNITTEST, 0o644);
    let run = |wanted| shell(dir.path(), &format!("WANTED={wanted} {} python3 -m unittest", prefix()));
    let (good, bad) = (run("yes"), run("no"));
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    assert!(
        text(&good.stderr).contains("Ran 2 tests") && text(&good.stderr).ends_with("\nOK\n"),
        "{}",
        text(&good.stderr)
    );
    assert_eq!(bad.status.code(), Some(1), "{}", text(&bad.stderr));
    assert!(text(&bad.stderr).contains("FAILED (failures=1)"), "{}", text(&bad.stderr));
}

const GO_TEST: &str = r#"package tiny

import (
	"os"
	"strings"
	"testing"
)

func TestRelease(t *testing.T) {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil || !strings.HasPrefix(string(release), "6.12.") {
		t.Fatal(string(release), err)
	}
}
"#;

#[test]
#[ignore = "needs go, which the lab itself does not: run it with --ignored where go is in PATH"]
fn go_test_runs_a_packages_tests_in_the_guest() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("go.mod"), "module tiny\n\ngo 1.19\n", 0o644);
    write(&dir.path().join("tiny_test.go"), GO_TEST, 0o644);
    let got = shell(dir.path(), &format!("go test -count=1 -exec '{}' ./...", prefix()));
    assert_eq!(got.status.code(), Some(0), "{}{}", text(&got.stdout), text(&got.stderr));
    assert!(text(&got.stdout).starts_with("ok "), "{}", text(&got.stdout));
}

/// Tests of others use a second processor, and more than the suite's half a gigabyte.
#[test]
fn a_command_has_two_processors_and_a_gigabyte_unless_asked_otherwise() {
    let machine = |options: &str| {
        let prefix = prefix().replace(" --no-build", &format!(" --no-build {options}"));
        let told = text(&shell(Path::new("/"), &format!("{prefix} sh -c 'nproc; grep MemTotal /proc/meminfo'")).stdout);
        let numbers: Vec<u64> = told.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        <[u64; 2]>::try_from(numbers).unwrap_or_else(|_| panic!("{told}"))
    };
    let [processors, kib] = machine("");
    assert!(processors == 2 && (900 << 10..=1 << 20).contains(&kib), "{processors} {kib}");
    let [processors, kib] = machine("--cpus 1 --memory 512M");
    assert!(processors == 1 && (400 << 10..=512 << 10).contains(&kib), "{processors} {kib}");
}

/// A prefix makes more runs than anybody keeps.
#[test]
fn runs_of_commands_push_no_run_of_the_suite_out() {
    prefix();
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(ROOT).canonicalize().unwrap();
    for name in ["target", "ebpf", "kernels.toml", "kernels.lock"] {
        symlink(root.join(name), dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("lab.toml"), "[results]\nkeep = 2\n").unwrap();
    // The last event of a run of the suite that passed.
    let passed =
        "{\"event\":\"run-started\"}\n{\"at_ms\":1,\"event\":\"run-finished\",\"exit\":\"passed\",\"wall_ms\":1}\n";
    let suite = ["20261101T000000Z-aaaaaa", "20261102T000000Z-aaaaaa", "20261103T000000Z-aaaaaa"];
    for id in suite {
        write(&dir.path().join("results").join(id).join("events.jsonl"), passed, 0o644);
    }
    let project = dir.path().display();
    let lab = |words: &str| shell(dir.path(), &format!("{LAB} --project {project} {words}"));
    for code in [0, 4, 0, 0] {
        let got = lab(&format!("exec --no-build -k {KERNEL} --name own -- sh -c 'exit {code}'"));
        assert_eq!((got.status.code(), text(&got.stderr).as_str()), (Some(code), ""));
        assert!(got.stdout.is_empty());
    }
    let exec: Vec<String> = fs::read_dir(dir.path().join("results/exec"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "latest")
        .collect();
    assert_eq!(exec.len(), 3, "the newest two, and the newest that failed: {exec:?}");
    for id in suite {
        assert!(dir.path().join("results").join(id).is_dir(), "{id}");
    }
    let listed = text(&lab("results list").stdout);
    assert!(suite.iter().all(|id| listed.contains(id)) && exec.iter().all(|id| listed.contains(id)), "{listed}");
    let told = lab("history --results results 'own*'");
    assert!(
        told.status.success() && text(&told.stdout).contains("own"),
        "{}{}",
        text(&told.stdout),
        text(&told.stderr)
    );
    let mut sorted = exec.clone();
    sorted.sort();
    for name in ["exec/latest", sorted[1].as_str()] {
        assert_eq!(lab(&format!("report {name}")).status.code(), Some(0), "{name}");
    }
    let failed = sorted[0].as_str();
    assert_eq!(lab(&format!("report {failed}")).status.code(), Some(1));
    let compared = lab(&format!("compare {failed} exec/latest"));
    assert_eq!(compared.status.code(), Some(0), "{}{}", text(&compared.stdout), text(&compared.stderr));
    let again = lab(&format!("rerun --failed --no-build {failed}"));
    assert_eq!(again.status.code(), Some(4), "{}", text(&again.stderr));
}
