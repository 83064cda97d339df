//! Locates the programs that the lab starts: installed on the host, or unpacked into the cache by `lab setup`. All
//! processes that use this library find the same programs, tests included.

use crate::paths::cache_dir;
use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// The directory of tools in the cache.
const TOOLS: &str = "tools";
/// The directory for packages of small programs, in the directory of tools.
pub const UNPACKED: &str = "shell";
/// The directory with wrappers that start the programs, in a directory of packages.
pub const BIN: &str = "bin";
/// Directories of administrators' programs, which are not on every user's `PATH`.
const ADMINISTRATIVE: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The directory of tools in a cache.
pub fn tools(cache: &Path) -> PathBuf {
    cache.join(TOOLS)
}

/// The root of the unpacked packages of small programs, if it exists.
pub fn unpacked() -> Option<PathBuf> {
    // Programs in directories that other users can write to are never started.
    let cache = cache_dir().ok().filter(|cache| lab_guard::private::check(cache).is_ok())?;
    Some(tools(&cache).join(UNPACKED)).filter(|root| root.join(BIN).is_dir())
}

/// `PATH` for programs that the lab starts: the user's, the administrators' directories, and the cache's.
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
    // A directory whose name contains a colon can't be on PATH.
    let fits = |dir: &PathBuf| !dir.as_os_str().as_encoded_bytes().contains(&b':');
    // `.` or an empty entry names the working directory, which may be somebody else's project.
    let own = first.into_iter().filter(fits).chain(env::split_paths(path).filter(|dir| dir.is_absolute()));
    let all = own.chain(ADMINISTRATIVE.map(PathBuf::from)).chain(last.into_iter().filter(fits));
    env::join_paths(all).unwrap_or_else(|_| path.to_owned())
}

/// Finds a program on the host or among the unpacked packages.
pub fn find(program: &str) -> Option<PathBuf> {
    which::which_in(program, Some(search_path()), "/").ok()
}

/// Finds a program on the host only.
pub fn on_host(program: &str) -> Option<PathBuf> {
    let path = joined(None, &env::var_os("PATH").unwrap_or_default(), None);
    which::which_in(program, Some(path), "/").ok()
}

/// Finds a program on the host that is a binary, for a guest to run. A script of the same name that comes first, as those in another
/// lab's cache, would start something of the host.
pub fn binary_on_host(program: &str) -> Option<PathBuf> {
    let path = joined(None, &env::var_os("PATH").unwrap_or_default(), None);
    binary_in(program, &path)
}

fn binary_in(program: &str, path: &OsStr) -> Option<PathBuf> {
    which::which_in_all(program, Some(path), "/").ok()?.find(|found| is_binary(found))
}

fn is_binary(path: &Path) -> bool {
    let mut start = [0; 4];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_script_is_not_the_hosts_binary() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str, content: &[u8]| {
            let dir = dir.path().join(name);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("ip"), content).unwrap();
            fs::set_permissions(dir.join("ip"), fs::Permissions::from_mode(0o755)).unwrap();
            dir
        };
        let (script, short, binary) = (place("a", b"#!/bin/sh\n"), place("b", b"\x7f"), place("c", b"\x7fELF\x02"));
        let found = |dirs: &[&PathBuf]| binary_in("ip", &env::join_paths(dirs).unwrap());
        assert_eq!(found(&[&script, &short, &binary]), Some(binary.join("ip")));
        assert_eq!(found(&[&script, &short]), None);
    }

    #[test]
    fn the_hosts_programs_come_first_and_the_unpacked_ones_last() {
        let joined = |first: Option<&str>, unpacked: Option<&str>| {
            joined(first.map(Path::new), "/a:/b".as_ref(), unpacked.map(Path::new)).into_string().unwrap()
        };
        assert_eq!(joined(None, None), "/a:/b:/usr/sbin:/sbin");
        let relative = super::joined(None, ".:/a::bin:/b".as_ref(), None);
        assert_eq!(relative.into_string().unwrap(), "/a:/b:/usr/sbin:/sbin", "no relative directories");
        assert_eq!(joined(Some("/venv/bin"), Some("/c/shell")), "/venv/bin:/a:/b:/usr/sbin:/sbin:/c/shell/bin");
        assert_eq!(
            joined(Some(""), Some("/with:colon")),
            "/a:/b:/usr/sbin:/sbin",
            "a directory with a colon is left out"
        );
    }
}
