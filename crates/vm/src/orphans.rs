//! Guests whose lab is gone, and what lies about of them.
//!
//! A lab that is killed outright can't kill its guests, and `PR_SET_PDEATHSIG` would reach vng only, not QEMU below
//! it. So every guest carries its owner's identity in its name (`-name` on QEMU's command line), and so does every directory
//! that is made for a while. The next lab ends and removes those whose owner no longer exists.

use super::VmError;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use procfs::process::{Process, all_processes};
use std::{collections::BTreeSet, fs, path::Path};

const PREFIX: &str = "nkl.";

/// What a name of this process's begins with: `nkl.<pid namespace>.<pid>.<start>.`
///
/// # Errors
/// `/proc` can't be read.
pub fn mark() -> Result<String, VmError> {
    let proc = |error: procfs::ProcError| VmError::Tool { program: "/proc".to_owned(), problem: error.to_string() };
    let me = Process::myself().map_err(proc)?;
    let (namespace, start) = (pid_namespace(&me).map_err(proc)?, me.stat().map_err(proc)?.starttime);
    Ok(format!("{PREFIX}{namespace}.{}.{start}.", me.pid()))
}

/// The name by which a guest of this process is found again.
///
/// # Errors
/// `/proc` can't be read.
pub fn guest_name(guest: &str) -> Result<String, VmError> {
    Ok(mark()? + guest)
}

/// Removes directories whose owner is gone from one that holds such directories.
pub fn sweep(dir: &Path) {
    let Ok(namespace) = Process::myself().and_then(|me| pid_namespace(&me)) else { return };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Never a link, and only what this user may remove: the name alone proves nothing in a directory for everyone.
        if is_orphan(name.trim_start_matches('.'), namespace) && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Kills guests whose owner is gone, and says how many.
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

/// A pid means nothing in another namespace: a container's guests are not ours to judge.
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
    fn only_a_dead_owner_in_our_namespace_makes_an_orphan() {
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
    fn what_a_dead_owner_left_is_swept_and_nothing_else() {
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
