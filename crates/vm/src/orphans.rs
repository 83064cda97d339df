//! Cleans up after a killed `lab` process: orphaned guests and their directories.
//!
//! A process that is killed by SIGKILL can't end its guests, and `PR_SET_PDEATHSIG` would reach only vng, not QEMU below it.
//! Therefore every guest's name (`-name` on QEMU's command line) and every temporary directory's name contains its owner's
//! identity. The next `lab` process ends and removes those whose owner no longer exists.

use super::VmError;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use procfs::process::{Process, all_processes};
use std::{collections::BTreeSet, fs, path::Path};

const PREFIX: &str = "nkl.";

/// Prefix of names of this process: `nkl.<pid namespace>.<pid>.<start>.`
///
/// # Errors
/// `/proc` can't be read.
pub fn mark() -> Result<String, VmError> {
    let proc = |error: procfs::ProcError| VmError::Tool { program: "/proc".to_owned(), problem: error.to_string() };
    let me = Process::myself().map_err(proc)?;
    let (namespace, start) = (pid_namespace(&me).map_err(proc)?, me.stat().map_err(proc)?.starttime);
    Ok(format!("{PREFIX}{namespace}.{}.{start}.", me.pid()))
}

/// The name of a guest of this process, by which a later process can find it.
///
/// # Errors
/// `/proc` can't be read.
pub fn guest_name(guest: &str) -> Result<String, VmError> {
    Ok(mark()? + guest)
}

/// Removes subdirectories of `dir` whose owner no longer exists.
pub fn sweep(dir: &Path) {
    let Ok(namespace) = Process::myself().and_then(|me| pid_namespace(&me)) else { return };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Symbolic links and other users' directories are skipped: in a world-writable directory anyone can create such names.
        if is_orphan(name.trim_start_matches('.'), namespace) && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Kills guests whose owner no longer exists, and returns their number.
pub fn reap() -> usize {
    let Ok(namespace) = Process::myself().and_then(|me| pid_namespace(&me)) else { return 0 };
    let groups: BTreeSet<i32> = all_processes()
        .into_iter()
        .flatten()
        .flatten()
        .filter(|process| process.cmdline().is_ok_and(|words| words.iter().any(|word| is_orphan(word, namespace))))
        .filter_map(|process| Some(process.stat().ok()?.pgrp))
        .collect();
    groups.iter().filter(|group| killpg(Pid::from_raw(**group), Signal::SIGKILL).is_ok()).count()
}

/// Pids are only meaningful within a pid namespace: guests of containers are skipped.
fn pid_namespace(process: &Process) -> procfs::ProcResult<u64> {
    let namespaces = process.namespaces()?.0;
    Ok(namespaces.get(std::ffi::OsStr::new("pid")).map_or(0, |namespace| namespace.identifier))
}

fn is_orphan(word: &str, namespace: u64) -> bool {
    let Some(rest) = word.strip_prefix(PREFIX) else { return false };
    let mut parts = rest.split('.');
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (Some(theirs), Some(pid), Some(start)) = (number(), number(), number()) else { return false };
    theirs == namespace
        && i32::try_from(pid).is_ok_and(|pid| {
            let owner = Process::new(pid).and_then(|process| process.stat());
            !owner.is_ok_and(|stat| stat.starttime == start)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_guests_of_dead_owners_in_this_namespace_are_orphans() {
        let namespace = pid_namespace(&Process::myself().unwrap()).unwrap();
        let ours = guest_name("6.12").unwrap();
        assert!(!is_orphan(&ours, namespace));
        let start = Process::myself().unwrap().stat().unwrap().starttime;
        let pid = std::process::id();
        assert!(is_orphan(&format!("nkl.{namespace}.{pid}.{}.6.12", start + 1), namespace));
        assert!(!is_orphan(&format!("nkl.{}.{pid}.{}.6.12", namespace + 1, start + 1), namespace));
        for word in ["nkl", "nkl.x.y.z", "nklong.1.2.3.4", "", "12.1.2.3.4"] {
            assert!(!is_orphan(word, 1), "{word}");
        }
    }

    #[test]
    fn only_directories_of_dead_owners_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let me = Process::myself().unwrap();
        let (namespace, start) = (pid_namespace(&me).unwrap(), me.stat().unwrap().starttime);
        let dead = format!("nkl.{namespace}.{}.{}.x", me.pid(), start + 1);
        let mine = mark().unwrap() + "x";
        for name in [&dead, &format!(".{dead}"), &mine, "nkl", "results"] {
            fs::create_dir_all(dir.path().join(name).join("inside")).unwrap();
        }
        let linked = dead.replace(".x", ".y");
        std::os::unix::fs::symlink(dir.path().join("results"), dir.path().join(&linked)).unwrap();
        sweep(dir.path());
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        left.sort();
        let mut wanted = [mine, linked, "nkl".to_owned(), "results".to_owned()].map(std::ffi::OsString::from);
        wanted.sort();
        assert_eq!(left, wanted);
        assert!(dir.path().join("results/inside").exists());
    }
}
