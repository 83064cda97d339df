//! The commit of the sources, which identifies a build together with its version.
//!
//! `lab/build.rs` also includes this file, so it uses only the standard library.

use std::{ffi::OsStr, path::Path, process::Command};

/// Environment variable with the commit: read if there is no repository, and set for builds.
pub const VARIABLE: &str = "NETKIT_LAB_COMMIT";
/// The text for an unknown commit.
const UNKNOWN: &str = "unknown";
/// git settings that replace those of the user and the repository, as in `lab_base::git`, which a build script
/// can't use.
const SETTINGS: [&str; 6] = [
    "safe.directory=*",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "color.ui=false",
    "color.status=false",
    "log.showSignature=false",
];

/// The value of [`VARIABLE`], or the last commit that changed one of `paths` below `root`, with `-dirty` if they
/// differ from it. A commit that changes none of the paths does not change the result, so an unchanged build keeps its
/// name.
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
    // Variables that a surrounding git has set may be for another repository.
    std::env::vars_os()
        .filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GIT_"))
        .for_each(|(name, _)| _ = command.env_remove(name));
    // A relative directory on PATH names one of the working directory, which may be somebody else's.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let absolute = std::env::split_paths(&path).filter(|directory| directory.is_absolute());
    command.env("PATH", std::env::join_paths(absolute).unwrap_or(path.clone()));
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C");
    SETTINGS.iter().for_each(|setting| _ = command.args(["-c", setting]));
    // Another program may be using the index, which is not essential here.
    command.arg("--no-optional-locks").arg("-C").arg(root).args(arguments).arg("--").args(paths);
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
