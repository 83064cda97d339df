//! `lab exec --setup` on a real guest: it runs once, later commands start behind it, and a failing one saves nothing.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const KERNEL: &str = "6.12";

fn lab(cwd: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(["--project", ROOT]).args(words).current_dir(cwd).stdin(Stdio::null()).output().unwrap()
}

/// A command behind a set-up, which writes a line to `counted/runs` each time that it runs.
fn behind(cwd: &Path, setup: &str, script: &str) -> (Option<i32>, String, String) {
    let results = cwd.join("results").display().to_string();
    let shared = cwd.join("counted").display().to_string();
    let setup = format!("echo run >>counted/runs; {setup}");
    let words = ["exec", "--no-build", "-k", KERNEL, "--results", &results, "--rw", &shared, "--setup", &setup];
    let output = lab(cwd, &[&words[..], &["--", "sh", "-c", script]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn runs(cwd: &Path) -> usize {
    fs::read_to_string(cwd.join("counted/runs")).unwrap_or_default().lines().count()
}

#[test]
fn a_set_up_runs_once_and_every_command_starts_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let cwd = dir.path();
    fs::create_dir(cwd.join("counted")).unwrap();
    fs::write(cwd.join("prepare"), "ip link add own0 type dummy\nsysctl -qw net.core.somaxconn=1234\n").unwrap();
    assert!(lab(cwd, &["list", "--case", "P03*"]).status.success());
    let setup =
        "set -e; . ./prepare; echo kept >/etc/own; rm /etc/hostname; mkdir -p /opt/made && mv /opt/made /opt/moved";
    let look = "ip -o link show own0 | grep -c own0; cat /proc/sys/net/core/somaxconn /etc/own; ls -d /opt/moved; echo mine >/etc/own; \
                ls /etc/hostname 2>&1 | grep -c lab-";
    let told = "1\n1234\nkept\n/opt/moved\n";
    for _ in 0..2 {
        let (code, out, errors) = behind(cwd, setup, look);
        assert!(out.starts_with(told), "{code:?} {out} {errors}");
        assert!(!errors.contains("left behind"), "what the set-up left is nobody's fault: {errors}");
        assert_eq!(runs(cwd), 1, "{errors}");
    }
    // What the set-up has read: another content is another set-up.
    fs::write(cwd.join("prepare"), "ip link add own0 type dummy\nsysctl -qw net.core.somaxconn=4321\n").unwrap();
    let (code, out, errors) = behind(cwd, setup, "cat /proc/sys/net/core/somaxconn");
    assert_eq!((code, &*out, runs(cwd)), (Some(0), "4321\n", 2), "{errors}");
    assert!(errors.contains("the set-up runs again") && errors.contains("prepare has changed"), "{errors}");

    // One that fails is one clear error, and nothing is saved.
    for failed in 1..=2 {
        let (code, out, errors) = behind(cwd, "echo the reason >&2; exit 3", "echo never");
        assert_eq!((code, &*out, runs(cwd)), (Some(125), "", 2 + failed), "{errors}");
        let line = "6.12: not-run: the set-up failed: exit: exit code 3: the reason (output: ";
        assert_eq!(errors.lines().filter(|it| it.starts_with(line)).count(), 1, "{errors}");
    }
}

#[test]
fn a_set_up_that_can_not_be_kept_is_a_wrong_command_line() {
    let dir = tempfile::tempdir().unwrap();
    for (words, told) in [
        (&["--setup", "true", "--cold"][..], "cannot be used with"),
        (&["--setup", "true", "--root", "none"], "--setup needs a root with a shell"),
        (&["--setup", "true", "--root", "image"], "--setup shares files of this host"),
    ] {
        let output = lab(dir.path(), &[&["exec", "-k", KERNEL][..], words, &["--", "true"]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(125) && errors.contains(told), "{words:?}: {:?} {errors}", output.status);
    }
}
