//! Location of the cache directory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// There is no usable cache directory.
#[derive(Debug, thiserror::Error)]
pub enum NoCacheDir {
    /// Neither a cache directory nor a home directory is known.
    #[error("no directory for the cache: set NETKIT_LAB_CACHE, XDG_CACHE_HOME or HOME to an absolute path")]
    Unknown,
    /// virtme-ng's shell, QEMU's options and apt's configuration do not support all characters in its path.
    #[error(
        "{} can't be the cache, because virtme-ng does not support {found:?} in paths: set NETKIT_LAB_CACHE to an absolute path of letters, \
         digits and `/._-+:=@%`",
        path.display()
    )]
    Unusable {
        /// The path.
        path: PathBuf,
        /// The first unsupported character.
        found: char,
    },
}

/// Whether a character of a path is passed to QEMU unchanged: vng passes its arguments through a shell and through
/// QEMU's comma-separated options.
pub fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/._-+:=@%".contains(c)
}

/// Refuses a cache whose path no guest could be started from.
///
/// # Errors
/// [`NoCacheDir::Unusable`].
pub fn usable(path: &Path) -> Result<(), NoCacheDir> {
    match path.to_string_lossy().chars().find(|c| !is_plain(*c)) {
        None => Ok(()),
        Some(found) => Err(NoCacheDir::Unusable { path: path.to_owned(), found }),
    }
}

/// The cache directory: `$NETKIT_LAB_CACHE`, else `$XDG_CACHE_HOME/netkit-lab`, else `~/.cache/netkit-lab`.
///
/// # Errors
/// [`NoCacheDir`] if none of the three variables is an absolute path, or if the path can't be used.
pub fn cache_dir() -> Result<PathBuf, NoCacheDir> {
    let path = choose_cache_dir(|key| std::env::var_os(key))?;
    usable(&path)?;
    Ok(path)
}

/// Ignores relative paths in the variables, as the XDG base directory specification requires: the cache directory must
/// not depend on the working directory.
fn choose_cache_dir(env: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, NoCacheDir> {
    let absolute = |key: &str| env(key).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("NETKIT_LAB_CACHE")
        .or_else(|| absolute("XDG_CACHE_HOME").map(|dir| dir.join("netkit-lab")))
        .or_else(|| absolute("HOME").map(|dir| dir.join(".cache/netkit-lab")))
        .ok_or(NoCacheDir::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(vars: &[(&str, &str)]) -> Option<PathBuf> {
        choose_cache_dir(|key| vars.iter().find(|(name, _)| *name == key).map(|(_, value)| value.into())).ok()
    }

    #[test]
    fn the_most_specific_variable_wins() {
        let all = [("NETKIT_LAB_CACHE", "/a"), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c")];
        assert_eq!(chosen(&all), Some("/a".into()));
        assert_eq!(chosen(&all[1..]), Some("/b/netkit-lab".into()));
        assert_eq!(chosen(&all[2..]), Some("/c/.cache/netkit-lab".into()));
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn relative_paths_are_ignored() {
        assert_eq!(chosen(&[("XDG_CACHE_HOME", "cache"), ("HOME", "/c")]), Some("/c/.cache/netkit-lab".into()));
        assert_eq!(chosen(&[("NETKIT_LAB_CACHE", "")]), None);
    }
}
