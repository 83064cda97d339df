//! Where the programs are that the lab starts: the host's first, and behind them those that `lab setup` has unpacked
//! into the cache. Every process that uses this library finds the same ones, tests included.

use crate::paths::cache_dir;
use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// The directory of tools in the cache.
const TOOLS: &str = "tools";
/// The directory, among the tools, with the packages of small programs.
pub const UNPACKED: &str = "shell";
/// The directory, in one of packages, with what starts their programs.
pub const BIN: &str = "bin";
/// The administrator's programs, which not every user has on `PATH`.
const ADMINISTRATIVE: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The directory of tools in a cache.
pub fn tools(cache: &Path) -> PathBuf {
    cache.join(TOOLS)
}

/// The root of the unpacked packages of small programs, if they are there.
pub fn unpacked() -> Option<PathBuf> {
    Some(tools(&cache_dir().ok()?).join(UNPACKED)).filter(|root| root.join(BIN).is_dir())
}

/// `PATH` for whatever the lab starts: the user's, the administrator's directories, and the cache's.
pub fn search_path() -> OsString {
    search_path_behind(None)
}

/// As [`search_path`], with a directory in front.
pub fn search_path_behind(first: Option<&Path>) -> OsString {
    joined(first, &env::var_os("PATH").unwrap_or_default(), unpacked().as_deref())
}

fn joined(first: Option<&Path>, path: &OsStr, unpacked: Option<&Path>) -> OsString {
    let first = first.filter(|dir| !dir.as_os_str().is_empty()).map(Path::to_owned);
    let last = unpacked.map(|root| root.join(BIN));
    // A directory with a colon in its name can't be on PATH at all.
    let fits = |dir: &PathBuf| !dir.as_os_str().as_encoded_bytes().contains(&b':');
    let own = first.into_iter().filter(fits).chain(env::split_paths(path));
    let all = own.chain(ADMINISTRATIVE.map(PathBuf::from)).chain(last.into_iter().filter(fits));
    env::join_paths(all).unwrap_or_else(|_| path.to_owned())
}

/// A program, the host's or an unpacked one.
pub fn find(program: &str) -> Option<PathBuf> {
    which::which_in(program, Some(search_path()), "/").ok()
}

/// A program of the host's own.
pub fn on_host(program: &str) -> Option<PathBuf> {
    let path = joined(None, &env::var_os("PATH").unwrap_or_default(), None);
    which::which_in(program, Some(path), "/").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_programs_come_first_and_the_unpacked_ones_last() {
        let joined = |first: Option<&str>, unpacked: Option<&str>| {
            joined(first.map(Path::new), "/a:/b".as_ref(), unpacked.map(Path::new)).into_string().unwrap()
        };
        assert_eq!(joined(None, None), "/a:/b:/usr/sbin:/sbin");
        assert_eq!(joined(Some("/venv/bin"), Some("/c/shell")), "/venv/bin:/a:/b:/usr/sbin:/sbin:/c/shell/bin");
        assert_eq!(joined(Some(""), Some("/with:colon")), "/a:/b:/usr/sbin:/sbin", "one that can't be named");
    }
}
