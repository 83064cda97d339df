//! `kernels.lock`: the resolved sources of `kernels.toml`, so that every run boots the same files.

use super::{
    config::{Kernel, Source},
    error::{KernelsError, Result},
};
use lab_base::{
    file,
    strict_toml::{ConfigError, Origin},
};
use lab_protocol::KernelVersion;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, fs, path::Path};

const HEADER: &str = "\
# What kernels.toml was resolved to. Written by `lab kernels update`; review the difference and commit it.
";

/// The content of `kernels.lock`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Entries by kernel id. Kernels with a `path` source have none, because the user may change them at any time.
    #[serde(default)]
    pub kernels: BTreeMap<String, Locked>,
}

/// The resolved source of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Locked {
    /// A package of a Debian suite.
    Deb {
        suite: String,
        package: String,
        version: String,
        /// SHA-256 of the `.deb`, hexadecimal.
        #[serde(deserialize_with = "checksum")]
        sha256: String,
        /// Version of the kernel in it.
        kernel: KernelVersion,
        /// Packages of the same version that contain the files, if this package only depends on them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        parts: Vec<Part>,
    },
    /// A package with a kernel's sources.
    LinuxSource {
        suite: String,
        package: String,
        version: String,
        /// SHA-256 of the `.deb`, hexadecimal.
        #[serde(deserialize_with = "checksum")]
        sha256: String,
        /// Version of the kernel in it.
        kernel: KernelVersion,
    },
    /// A commit.
    Git {
        /// The branch, tag or commit that was resolved.
        #[serde(rename = "ref")]
        reference: String,
        /// Full commit id.
        commit: String,
        /// Version in the commit's Makefile.
        kernel: KernelVersion,
    },
    /// A prebuilt mainline kernel.
    Mainline {
        /// Version in vng's format.
        version: String,
        /// SHA-256 of the image, hexadecimal.
        #[serde(deserialize_with = "checksum")]
        sha256: String,
        /// Version in the image.
        kernel: KernelVersion,
    },
}

/// A package with a part of a kernel's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub package: String,
    /// SHA-256 of the `.deb`, hexadecimal.
    #[serde(deserialize_with = "checksum")]
    pub sha256: String,
}

impl Locked {
    pub fn kernel(&self) -> KernelVersion {
        match self {
            Self::Deb { kernel, .. }
            | Self::LinuxSource { kernel, .. }
            | Self::Git { kernel, .. }
            | Self::Mainline { kernel, .. } => *kernel,
        }
    }

    /// Whether the entry matches the source in `kernels.toml`.
    fn answers(&self, source: &Source) -> bool {
        match (self, source) {
            (Self::Deb { suite, package, .. }, Source::Deb { suite: wanted, package: pattern })
            | (Self::LinuxSource { suite, package, .. }, Source::LinuxSource { suite: wanted, package: pattern, .. }) => {
                suite == wanted
                    && globset::Glob::new(pattern).is_ok_and(|glob| glob.compile_matcher().is_match(package))
            }
            (Self::Git { reference, .. }, Source::Git { reference: wanted, .. }) => reference == wanted,
            (Self::Mainline { version, .. }, Source::Mainline { version: wanted }) => version == wanted,
            _ => false,
        }
    }
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deb { suite, package, version, .. } | Self::LinuxSource { suite, package, version, .. } => {
                write!(f, "{package} {version} ({suite})")
            }
            Self::Git { reference, commit, .. } => write!(f, "git {reference} at {commit}"),
            Self::Mainline { version, .. } => write!(f, "mainline {version}"),
        }
    }
}

/// Hexadecimal digits: parts of a checksum become names of directories.
fn checksum<'de, D: serde::Deserializer<'de>>(input: D) -> std::result::Result<String, D::Error> {
    let text = String::deserialize(input)?;
    let is_hex = !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex {
        Ok(text)
    } else {
        Err(serde::de::Error::custom(format!("{text:?} is no checksum in hexadecimal digits")))
    }
}

impl Lock {
    /// Reads `kernels.lock`; a missing file is an empty lock.
    ///
    /// # Errors
    /// The file can't be read, or is not a lock file.
    pub fn load(path: &Path) -> Result<Self> {
        match fs::read_to_string(path) {
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
        let locked = self.kernels.get(&*kernel.id).ok_or(KernelsError::Unlocked)?;
        if !locked.answers(&kernel.source) {
            return Err(KernelsError::StaleLock { locked: locked.to_string(), wanted: kernel.source.to_string() });
        }
        Ok(locked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn lock() -> Lock {
        let deb = Locked::Deb {
            suite: "sid".into(),
            package: "linux-image-7.3-cloud-amd64".into(),
            version: "7.3-1".into(),
            sha256: "00".into(),
            kernel: "7.3".parse().unwrap(),
            parts: vec![Part { package: "linux-binary-7.3-cloud-amd64".into(), sha256: "01".into() }],
        };
        let git = Locked::Git { reference: "v6.7".into(), commit: "0dd3ee3".into(), kernel: "6.7".parse().unwrap() };
        Lock { kernels: [("7.3".to_owned(), deb), ("tree".to_owned(), git)].into() }
    }

    #[test]
    fn a_saved_lock_can_be_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernels.lock");
        assert_eq!(Lock::load(&path).unwrap(), Lock::default());
        lock().save(&path).unwrap();
        assert_eq!(Lock::load(&path).unwrap(), lock());
        insta::assert_snapshot!(fs::read_to_string(&path).unwrap(), @r#"
        # What kernels.toml was resolved to. Written by `lab kernels update`; review the difference and commit it.

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
            Config::parse(&text, "kernels.toml", "".into()).unwrap().kernels.remove(0)
        };
        assert!(lock().entry(&config("sid", "7.3")).is_ok());
        insta::assert_snapshot!(lock().entry(&config("forky", "7.3")).unwrap_err(),
            @"kernels.lock has linux-image-7.3-cloud-amd64 7.3-1 (sid), but kernels.toml has deb linux-image-7.3*-cloud-amd64 (forky): run `lab kernels update`");
        insta::assert_snapshot!(lock().entry(&config("sid", "7.4")).unwrap_err(),
            @"not in kernels.lock: run `lab kernels update`");
    }

    #[test]
    fn a_damaged_lock_names_its_line() {
        let error = Lock::parse("[kernels.a]\nsource = \"deb\"\nsuite = \"sid\"\n", "kernels.lock").unwrap_err();
        insta::assert_snapshot!(error, @"kernels.lock:1: missing field `package`: fix it, or run `lab kernels update`");
    }
}
