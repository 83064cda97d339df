//! Runs git on a given repository, independent of the user's and the system's settings.

use crate::process::{self, ProcessError};
use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
};

/// Settings that override the repository's own configuration. The user's and the system's configuration, which may
/// have hooks, signatures, aliases, pagers, colours and file system monitors, is not read.
const SETTINGS: [&str; 25] = [
    // Allow repositories of another owner: their Makefile is run anyway.
    "safe.directory=*",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.pager=cat",
    "core.editor=true",
    "core.quotePath=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.autocrlf=false",
    "color.ui=false",
    "color.branch=false",
    "color.diff=false",
    "color.status=false",
    "color.decorate=false",
    "commit.gpgSign=false",
    "tag.gpgSign=false",
    "log.showSignature=false",
    "log.decorate=false",
    "log.date=default",
    "log.follow=false",
    "format.pretty=medium",
    "rerere.enabled=false",
    // Packing would continue in the background during a build.
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
];

/// Runs git in a directory.
/// A git hook, an editor or an outer git set `GIT_DIR`, `GIT_INDEX_FILE` and others in the environment, so that git
/// would use their repository instead of this one. Therefore git's variables are removed.
///
/// # Errors
/// git failed; the error has the end of its output.
pub fn git<I>(dir: &Path, args: I) -> Result<String, ProcessError>
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
    let verb =
        args.iter().find(|arg| !arg.as_encoded_bytes().starts_with(b"-") && !arg.as_encoded_bytes().contains(&b'='));
    let what = format!("git {}", verb.map(|verb| verb.to_string_lossy().into_owned()).unwrap_or_default());
    let settings = SETTINGS.iter().flat_map(|setting| ["-c", setting]).map(OsString::from);
    let command = process::command("git", settings.chain(args)).dir(dir);
    let foreign = env::vars_os().map(|(name, _)| name).filter(|name| name.as_encoded_bytes().starts_with(b"GIT_"));
    let command = foreign.fold(command, |command, name| command.env_remove(name));
    let own = [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_OPTIONAL_LOCKS", "0"),
    ];
    process::capture(&what, "git", own.into_iter().fold(command, |command, (name, value)| command.env(name, value)))
}
