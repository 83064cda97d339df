//! Cleans up after a killed `lab` process: orphaned guests and their directories.
//!
//! A process that is killed by SIGKILL can't end its guests, and `PR_SET_PDEATHSIG` would reach only vng, not QEMU
//! below it. Therefore every guest's name (`-name` on QEMU's command line) and every temporary directory's name
//! contains its owner's identity. The next `lab` process ends and removes those whose owner no longer exists.
//!
//! The identity includes the boot id of the host, because a pid is only valid on one host and hosts may share a cache.
//! Directories of another host, or of this host before a reboot, are kept until they are old.

use super::seal::boot_id;
use lab_guard::private::{self, Untrusted};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use procfs::process::{Process, all_processes};
use std::{
    collections::BTreeSet,
    env, fs, io,
    path::Path,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

const PREFIX: &str = "nkl.";
/// Digits of the boot id in a name: enough to distinguish hosts that share a directory, and short enough for a socket's
/// path.
const BOOT_DIGITS: usize = 12;
/// Age at which a directory of another host is removed: directories are used for one snapshot or one guest only.
const ABANDONED: Duration = Duration::from_secs(7 * 86_400);

/// The scope in which a pid is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// Boot id of the host.
    boot: String,
    /// The pid namespace: guests of containers are skipped.
    namespace: u64,
}

impl Place {
    fn here() -> procfs::ProcResult<Self> {
        let boot = boot_id()?.chars().filter(char::is_ascii_hexdigit).take(BOOT_DIGITS).collect();
        let namespaces = Process::myself()?.namespaces()?.0;
        let namespace = namespaces.get(std::ffi::OsStr::new("pid")).map_or(0, |namespace| namespace.identifier);
        Ok(Self { boot, namespace })
    }
}

/// Prefix of names of this process: `nkl.<boot>.<pid namespace>.<pid>.<start>.`
///
/// # Errors
/// `/proc` can't be read.
pub fn mark() -> Result<String, Untrusted> {
    let proc = |error: procfs::ProcError| Untrusted::Io { path: "/proc".into(), error: io::Error::other(error) };
    let me = Process::myself().map_err(proc)?;
    let (Place { boot, namespace }, start) = (Place::here().map_err(proc)?, me.stat().map_err(proc)?.starttime);
    Ok(format!("{PREFIX}{boot}.{namespace}.{}.{start}.", me.pid()))
}

/// The name of a guest of this process, by which a later process can find it.
///
/// # Errors
/// `/proc` can't be read.
pub fn guest_name(guest: &str) -> Result<String, Untrusted> {
    Ok(mark()? + guest)
}

/// A private directory for temporary files of this process, in the directory for such files (`TMPDIR`). It is removed with
/// the value; if the process is killed, the next one that asks for such a directory or starts guests removes it.
///
/// # Errors
/// It can't be created, or `/proc` can't be read.
pub fn scratch() -> Result<TempDir, Untrusted> {
    let parent = env::temp_dir();
    sweep(&parent);
    private::temporary(&mark()?, &parent)
}

/// As [`scratch`], with a hidden name in a directory that a group may share.
///
/// # Errors
/// As [`scratch`].
pub fn hidden_scratch(parent: &Path) -> Result<TempDir, Untrusted> {
    sweep(parent);
    let dir = tempfile::Builder::new().prefix(&format!(".{}", mark()?)).tempdir_in(parent);
    dir.map_err(|error| Untrusted::Io { path: parent.to_owned(), error })
}

/// Removes subdirectories of `dir` whose owner no longer exists.
pub fn sweep(dir: &Path) {
    let Ok(here) = Place::here() else { return };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let gone = match owner(name.trim_start_matches('.'), &here) {
            Owner::Gone => true,
            Owner::Elsewhere => entry.metadata().and_then(|it| it.modified()).is_ok_and(is_abandoned),
            Owner::Alive | Owner::Nobody => false,
        };
        // Symbolic links and other users' directories are skipped: in a world-writable directory anyone can create such
        // names.
        if gone && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Kills guests whose owner no longer exists, and returns their number.
pub fn reap() -> usize {
    let Ok(here) = Place::here() else { return 0 };
    let orphaned = |word: &String| owner(word, &here) == Owner::Gone;
    let groups: BTreeSet<i32> = all_processes()
        .into_iter()
        .flatten()
        .flatten()
        .filter(|process| process.cmdline().is_ok_and(|words| words.iter().any(orphaned)))
        .filter_map(|process| Some(process.stat().ok()?.pgrp))
        .collect();
    groups.iter().filter(|group| killpg(Pid::from_raw(**group), Signal::SIGKILL).is_ok()).count()
}

/// The owner of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// A running process of this boot.
    Alive,
    /// A process of this boot that has ended.
    Gone,
    /// A process of another boot or host.
    Elsewhere,
    /// A process of another pid namespace, or the name has another form.
    Nobody,
}

fn owner(word: &str, here: &Place) -> Owner {
    let Some(rest) = word.strip_prefix(PREFIX) else { return Owner::Nobody };
    let mut parts = rest.split('.');
    let boot = parts.next().unwrap_or_default();
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (Some(namespace), Some(pid), Some(start)) = (number(), number(), number()) else { return Owner::Nobody };
    if boot != here.boot {
        return Owner::Elsewhere;
    }
    let Some(pid) = i32::try_from(pid).ok().filter(|_| namespace == here.namespace) else { return Owner::Nobody };
    let alive = Process::new(pid).and_then(|process| process.stat()).is_ok_and(|stat| stat.starttime == start);
    if alive { Owner::Alive } else { Owner::Gone }
}

fn is_abandoned(modified: SystemTime) -> bool {
    modified.elapsed().is_ok_and(|age| age > ABANDONED)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name whose owner has ended on this host.
    fn dead(here: &Place) -> String {
        let me = Process::myself().unwrap();
        format!("{PREFIX}{}.{}.{}.{}.6.12", here.boot, here.namespace, me.pid(), me.stat().unwrap().starttime + 1)
    }

    #[test]
    fn only_guests_of_dead_owners_in_this_namespace_are_orphans() {
        let here = Place::here().unwrap();
        assert_eq!(here.boot.len(), BOOT_DIGITS);
        assert_eq!(owner(&guest_name("6.12").unwrap(), &here), Owner::Alive);
        assert_eq!(owner(&dead(&here), &here), Owner::Gone);
        let container = Place { namespace: here.namespace + 1, ..here.clone() };
        assert_eq!(owner(&dead(&container), &here), Owner::Nobody);
        let rebooted = Place { boot: "0123456789ab".to_owned(), ..here.clone() };
        assert_eq!(owner(&dead(&rebooted), &here), Owner::Elsewhere);
        for word in ["nkl", "nkl.x.y.z", "nkl.x.1.y.z", "nklong.1.2.3.4", "", "12.1.2.3.4"] {
            assert_eq!(owner(word, &here), Owner::Nobody, "{word}");
        }
    }

    #[test]
    fn only_directories_of_dead_owners_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let here = Place::here().unwrap();
        let (dead, mine) = (dead(&here), mark().unwrap() + "x");
        for name in [&dead, &format!(".{dead}"), &mine, "nkl", "results"] {
            fs::create_dir_all(dir.path().join(name).join("inside")).unwrap();
        }
        let linked = dead.clone() + ".y";
        std::os::unix::fs::symlink(dir.path().join("results"), dir.path().join(&linked)).unwrap();
        sweep(dir.path());
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        left.sort();
        let mut wanted = [mine, linked, "nkl".to_owned(), "results".to_owned()].map(std::ffi::OsString::from);
        wanted.sort();
        assert_eq!(left, wanted);
        assert!(dir.path().join("results/inside").exists());
    }

    #[test]
    fn a_temporary_directory_takes_the_place_of_those_of_killed_processes() {
        let dir = tempfile::tempdir().unwrap();
        let here = Place::here().unwrap();
        let left = dir.path().join(format!(".{}", dead(&here)));
        fs::create_dir(&left).unwrap();
        let first = hidden_scratch(dir.path()).unwrap();
        let second = hidden_scratch(dir.path()).unwrap();
        assert!(!left.exists() && first.path().exists() && second.path().exists());
        assert_eq!(
            owner(first.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.'), &here),
            Owner::Alive
        );
    }

    #[test]
    fn directories_of_other_hosts_are_kept_until_they_are_old() {
        let dir = tempfile::tempdir().unwrap();
        let here = Place::here().unwrap();
        let other = Place { boot: "0123456789ab".to_owned(), ..here.clone() };
        let (fresh, old) =
            (dir.path().join(format!(".{}a", dead(&other))), dir.path().join(format!(".{}b", dead(&other))));
        for path in [&fresh, &old] {
            fs::create_dir(path).unwrap();
        }
        let past = SystemTime::now() - ABANDONED - Duration::from_secs(60);
        fs::File::open(&old).unwrap().set_modified(past).unwrap();
        sweep(dir.path());
        assert!(fresh.exists() && !old.exists());
    }
}
