//! Guests whose lab is gone.
//!
//! A lab that is killed outright can't kill its guests, and `PR_SET_PDEATHSIG` would reach vng only, not QEMU below
//! it. So every guest carries its owner's identity in its name (`-name` on QEMU's command line), and the next lab ends
//! those whose owner no longer exists.

use super::VmError;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use procfs::process::{Process, all_processes};
use std::collections::BTreeSet;

const PREFIX: &str = "nkl.";

/// The name by which a guest of this process is found again: `nkl.<pid namespace>.<pid>.<start>.<guest>`.
///
/// # Errors
/// `/proc` can't be read.
pub fn guest_name(guest: &str) -> Result<String, VmError> {
    let proc = |error: procfs::ProcError| VmError::Tool { program: "/proc".to_owned(), problem: error.to_string() };
    let me = Process::myself().map_err(proc)?;
    let (namespace, start) = (pid_namespace(&me).map_err(proc)?, me.stat().map_err(proc)?.starttime);
    Ok(format!("{PREFIX}{namespace}.{}.{start}.{guest}", me.pid()))
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
}
