//! `kernels.local.toml`: kernels of one machine, which are not committed, merged over those of `kernels.toml`.

use super::error::{KernelsError, Result};
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// The file's name, beside `kernels.toml`.
pub const LOCAL_TOML: &str = "kernels.local.toml";

/// The file beside `kernels.toml` and its text, if it exists.
pub(super) fn text(kernels_toml: &Path) -> Result<Option<(PathBuf, String)>> {
    let path = kernels_toml.with_file_name(LOCAL_TOML);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KernelsError::io(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelMatrix;

    fn kernel(id: &str, image: &str, default: bool) -> String {
        format!("[kernels.\"{id}\"]\nclass = \"6.7+\"\ndefault = {default}\nsource.path.image = \"{image}\"\n")
    }

    #[test]
    fn local_kernels_replace_and_add_and_errors_name_their_file() {
        let dir = tempfile::tempdir().unwrap();
        let shared = dir.path().join("kernels.toml");
        fs::write(&shared, kernel("6.12", "shared", true) + &kernel("7.1", "shared", false)).unwrap();
        let load = |local: &str| {
            fs::write(dir.path().join(LOCAL_TOML), local).unwrap();
            KernelMatrix::load(&shared).map_err(|error| error.to_string())
        };
        let merged = load(
            &("[debian]\nmirror = \"m\"\n".to_owned() + &kernel("6.12", "own", false) + &kernel("mine", "own", true)),
        );
        let merged = merged.unwrap();
        let kernels: Vec<_> = merged.kernels.iter().map(|it| (&*it.id, it.source.to_string(), it.default)).collect();
        let path = |name: &str| format!("path {}", dir.path().join(name).display());
        assert_eq!(
            kernels,
            [("6.12", path("own"), false), ("7.1", path("shared"), false), ("mine", path("own"), true)]
        );
        assert_eq!(merged.local.iter().collect::<Vec<_>>(), ["6.12", "mine"]);
        assert_eq!(merged.debian.mirror.as_deref(), Some("m"));
        let error = load(&kernel("6.12", "own", false)).unwrap_err();
        assert!(error.contains("kernels.toml:1: no kernel has `default = true`"), "{error}");
        let error = load("[kernels.mine]\nclass = \"6.7+\"\n").unwrap_err();
        assert!(error.contains("kernels.local.toml:1: [kernels.\"mine\"] has no `source`"), "{error}");
    }
}
