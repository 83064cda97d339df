//! The commit that sources are at, which names a build beside its version.
//!
//! `lab/build.rs` contains this file too, so it uses the standard library alone.

use std::{ffi::OsStr, path::Path, process::Command};

/// The variable that names the commit where there is no repository, and under which builds get it.
pub const VARIABLE: &str = "NETKIT_LAB_COMMIT";
/// The commit where nobody knows it.
const UNKNOWN: &str = "unknown";
/// What a surrounding git has set for a repository that may be another one.
const OF_ANOTHER: [&str; 4] = ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"];

/// What [`VARIABLE`] says, or the last commit that changed one of `paths` below `root`, with `-dirty` where they differ from
/// it. A commit that changes none of them does not change the answer: a build that did not change keeps its name.
pub fn of<P: AsRef<OsStr>>(root: &Path, paths: &[P]) -> String {
    match std::env::var(VARIABLE) {
        Ok(commit) if !commit.trim().is_empty() => commit.trim().to_owned(),
        _ => recorded(root, paths).unwrap_or_else(|| UNKNOWN.to_owned()),
    }
}

fn recorded<P: AsRef<OsStr>>(root: &Path, paths: &[P]) -> Option<String> {
    let commit = git(root, &["log", "-1", "--format=%h", "--abbrev=12"], paths).filter(|commit| !commit.is_empty())?;
    let changes = git(root, &["status", "--porcelain"], paths)?;
    Some(if changes.is_empty() { commit } else { commit + "-dirty" })
}

fn git<P: AsRef<OsStr>>(root: &Path, arguments: &[&str], paths: &[P]) -> Option<String> {
    let mut command = Command::new("git");
    OF_ANOTHER.iter().for_each(|name| _ = command.env_remove(name));
    // The index may be another program's at this moment, and only a hint here.
    command.arg("--no-optional-locks").arg("-C").arg(root).args(arguments).arg("--").args(paths);
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
