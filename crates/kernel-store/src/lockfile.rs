//! `kernels.lock`: the resolved sources of `kernels.toml`, so that every run boots the same files.

use super::{
    config::Kernel,
    error::{KernelsError, Result},
    source::Locked,
};
use lab_base::{
    file,
    strict_toml::{ConfigError, Origin},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

const HEADER: &str = "\
# The resolved versions of kernels.toml. Written by `lab kernels update`; review the difference and commit it.
";

/// The content of `kernels.lock`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelsLock {
    /// Entries by kernel id. Kernels with a `path` source have none, because the user may change them at any time.
    #[serde(default)]
    pub kernels: BTreeMap<String, Locked>,
}

impl KernelsLock {
    /// Reads `kernels.lock`; a missing file is an empty lock.
    ///
    /// # Errors
    /// The file can't be read, or is not a lock file.
    pub fn load(path: &Path) -> Result<Self> {
        match lab_guard::bounded::text(path) {
            Ok(text) => Ok(Self::parse(&text, &path.display().to_string())?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(KernelsError::io(path)(error)),
        }
    }

    pub(super) fn parse(text: &str, file: &str) -> std::result::Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let message = error.message().lines().next().unwrap_or_default();
            Origin { file, text }.error(error.span(), format!("{message}: fix it, or run `lab kernels update`"))
        })
    }

    /// Replaces the file atomically.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let body = toml::to_string(self).map_err(|error| KernelsError::io(path)(std::io::Error::other(error)))?;
        file::replace_durably(path, format!("{HEADER}\n{body}").as_bytes()).map_err(KernelsError::io(path))
    }

    /// With the entries of another file, which replace those of the same kernels.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.kernels.extend(other.kernels);
        self
    }

    /// The entries of the kernels that `belongs` names, and the others.
    pub fn split(self, belongs: impl Fn(&str) -> bool) -> (Self, Self) {
        let (these, others) = self.kernels.into_iter().partition(|(id, _)| belongs(id));
        (Self { kernels: these }, Self { kernels: others })
    }

    /// The entry by which a kernel is fetched.
    ///
    /// # Errors
    /// There is no entry, or `kernels.toml` was changed since.
    pub fn entry(&self, kernel: &Kernel) -> Result<&Locked> {
        let locked = self.kernels.get(&**kernel.stored_as()).ok_or(KernelsError::Unlocked)?;
        if !kernel.source.get().is_resolved_by(locked) {
            return Err(KernelsError::StaleLock { locked: locked.to_string(), wanted: kernel.source.to_string() });
        }
        Ok(locked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        KernelMatrix,
        source::{LockedCommit, LockedDeb, PackagePart},
    };
    use std::fs;

    fn lock() -> KernelsLock {
        let deb = Locked::Deb(LockedDeb {
            arch: lab_base::arch::Architecture::default(),
            suite: "sid".into(),
            package: "linux-image-7.3-cloud-amd64".into(),
            version: "7.3-1".into(),
            sha256: "00".into(),
            kernel: "7.3".parse().unwrap(),
            parts: vec![PackagePart { package: "linux-binary-7.3-cloud-amd64".into(), sha256: "01".into() }],
        });
        let git = Locked::Git(LockedCommit {
            reference: "v6.7".into(),
            commit: "0dd3ee3".into(),
            kernel: "6.7".parse().unwrap(),
        });
        KernelsLock { kernels: [("7.3".to_owned(), deb), ("tree".to_owned(), git)].into() }
    }

    #[test]
    fn a_saved_lock_can_be_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernels.lock");
        assert_eq!(KernelsLock::load(&path).unwrap(), KernelsLock::default());
        lock().save(&path).unwrap();
        assert_eq!(KernelsLock::load(&path).unwrap(), lock());
        insta::assert_snapshot!(fs::read_to_string(&path).unwrap(), @r#"
        # The resolved versions of kernels.toml. Written by `lab kernels update`; review the difference and commit it.

        [kernels."7.3"]
        source = "deb"
        suite = "sid"
        package = "linux-image-7.3-cloud-amd64"
        version = "7.3-1"
        sha256 = "00"
        kernel = "7.3"

        [[kernels."7.3".parts]]
        package = "linux-binary-7.3-cloud-amd64"
        sha256 = "01"

        [kernels.tree]
        source = "git"
        ref = "v6.7"
        commit = "0dd3ee3"
        kernel = "6.7"
        "#);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file remains");
    }

    #[test]
    fn an_outdated_lock_is_refused() {
        let config = |suite: &str, id: &str| {
            let text = format!(
                "[kernels.\"{id}\"]\nclass = \"6.7+\"\ndefault = true\n\
                 source.deb = {{ suite = \"{suite}\", package = \"linux-image-7.3*-cloud-amd64\" }}"
            );
            KernelMatrix::parse(&text, "kernels.toml", "".into()).unwrap().kernels.remove(0)
        };
        assert!(lock().entry(&config("sid", "7.3")).is_ok());
        insta::assert_snapshot!(lock().entry(&config("forky", "7.3")).unwrap_err(),
            @"kernels.lock has linux-image-7.3-cloud-amd64 7.3-1 (sid), but kernels.toml has deb linux-image-7.3*-cloud-amd64 (forky): run `lab kernels update`");
        insta::assert_snapshot!(lock().entry(&config("sid", "7.4")).unwrap_err(),
            @"not in kernels.lock: run `lab kernels update`");
    }

    #[test]
    fn an_entry_for_a_kernel_of_this_host_is_refused() {
        let error = KernelsLock::parse("[kernels.a]\nsource = \"path\"\n", "kernels.lock").unwrap_err();
        insta::assert_snapshot!(error, @"kernels.lock:1: a `path` source is never locked: fix it, or run `lab kernels update`");
    }

    #[test]
    fn a_damaged_lock_names_its_line() {
        let error = KernelsLock::parse("[kernels.a]\nsource = \"deb\"\nsuite = \"sid\"\n", "kernels.lock").unwrap_err();
        insta::assert_snapshot!(error, @"kernels.lock:1: missing field `package`: fix it, or run `lab kernels update`");
    }
}
