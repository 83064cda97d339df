//! Where the lab keeps what it can fetch or build again.

use std::ffi::OsString;
use std::path::PathBuf;

/// Neither a cache directory nor a home directory is known.
#[derive(Debug, thiserror::Error)]
#[error("no place for the cache: set NETKIT_LAB_CACHE, XDG_CACHE_HOME or HOME to an absolute path")]
pub struct NoCacheDir;

/// The cache directory: `$NETKIT_LAB_CACHE`, else `$XDG_CACHE_HOME/netkit-lab`, else `~/.cache/netkit-lab`.
///
/// # Errors
/// [`NoCacheDir`] where none of the three names an absolute path.
pub fn cache_dir() -> Result<PathBuf, NoCacheDir> {
    choose_cache_dir(|key| std::env::var_os(key))
}

/// A relative path in a variable is ignored, as the XDG base directory specification asks: the cache would move
/// with the working directory.
fn choose_cache_dir(env: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, NoCacheDir> {
    let absolute = |key: &str| env(key).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("NETKIT_LAB_CACHE")
        .or_else(|| absolute("XDG_CACHE_HOME").map(|dir| dir.join("netkit-lab")))
        .or_else(|| absolute("HOME").map(|dir| dir.join(".cache/netkit-lab")))
        .ok_or(NoCacheDir)
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
