//! Invalid bisections: each gives one line with the fix and the documented exit code, and leaves the tree unchanged.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const CASE: [&str; 2] = ["--case", "A04-netkit-link"];

fn lab(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(ROOT).args(arguments).output().unwrap()
}

fn bisect(arguments: &[&str]) -> Output {
    lab(&[&["bisect"], &CASE[..], arguments].concat())
}

#[track_caller]
fn refused(output: &Output, code: i32, words: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    let told: Vec<&str> = error.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(told.len() == 1 && told[0].contains(words), "one line with `{words}`:\n{error}");
}

fn git(tree: &Path, arguments: &[&str]) -> String {
    let who = ["-c", "user.name=k", "-c", "user.email=k@k.example", "-c", "commit.gpgsign=false"];
    let output = Command::new("git").arg("-C").arg(tree).args(who).args(arguments).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A tree with the commits one and two, and a branch side.
fn tree(dir: &Path) -> PathBuf {
    let tree = dir.join("linux");
    fs::create_dir(&tree).unwrap();
    git(&tree, &["init", "--quiet", "--initial-branch=one"]);
    for (branch, from) in [("two", "one"), ("side", "one")] {
        if branch == "two" {
            fs::write(tree.join("Makefile"), "VERSION = 6\n").unwrap();
            git(&tree, &["add", "."]);
            git(&tree, &["commit", "--quiet", "--message", "one"]);
        }
        git(&tree, &["checkout", "--quiet", "-b", branch, from]);
        git(&tree, &["commit", "--quiet", "--allow-empty", "--message", branch]);
    }
    fs::write(tree.join(".config"), "CONFIG_MINE=y\n").unwrap();
    tree
}

#[test]
fn invalid_ladders_are_refused() {
    refused(&bisect(&["--good", "6.12", "--bad", "6.12"]), 2, "--good and --bad are both 6.12");
    refused(&bisect(&["--good", "6.12", "--bad", "6.99"]), 2, "no kernel `6.99`; `lab kernels list` names them");
    refused(&bisect(&["--good", "6.12", "--bad", "6.12-generic"]), 2, "no version is between them");
    refused(&bisect(&["--good", "6.1", "--bad", "6.12", "--kernels", "9*"]), 4, "no kernel matches `9*`");
}

#[test]
fn invalid_searches_leave_the_tree_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path());
    let at = tree.to_str().unwrap();
    let state = || {
        let config = fs::read_to_string(tree.join(".config")).unwrap();
        let asked =
            [&["symbolic-ref", "HEAD"][..], &["rev-parse", "HEAD"], &["status", "--porcelain"], &["worktree", "list"]];
        (asked.map(|arguments| git(&tree, arguments)), config)
    };
    let search = |good: &str, bad: &str| bisect(&["--tree", at, "--good", good, "--bad", bad]);
    let before = state();
    refused(&search("one", "one"), 2, "--good and --bad are both one");
    refused(&search("one", "one~0"), 2, "one and one~0 are the same commit");
    refused(&search("one", "three"), 2, "no commit `three` in this git tree");
    refused(&search("two", "side"), 2, "neither two nor side is an ancestor of the other: ");
    assert_eq!(state(), before);
    fs::write(tree.join("Makefile"), "VERSION = 7\n").unwrap();
    let before = state();
    refused(&search("one", "two"), 2, "has uncommitted changes (Makefile): commit or stash them");
    assert_eq!(state(), before);
    let nowhere = dir.path().to_str().unwrap();
    refused(&bisect(&["--tree", nowhere, "--good", "one", "--bad", "two"]), 2, "not a git repository");
}

/// git takes exit code 2 for a bad commit, and would report a wrong one.
#[test]
fn an_invalid_step_stops_the_bisection() {
    for wrong in [&["bisect-step"][..], &["bisect-step", "--case", "A04-netkit-link", "--rate", "often"]] {
        assert_eq!(lab(wrong).status.code(), Some(128), "{wrong:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("none");
    let output = lab(&["bisect-step", "--case", "A04-netkit-link", "--tree", nowhere.to_str().unwrap()]);
    refused(&output, 128, "can't find");
}
