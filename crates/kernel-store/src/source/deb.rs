//! Kernels from Debian packages.

use super::{Bound, Job, KernelSource, Site};
use crate::{
    apt::Apt,
    cache::{Errand, Finished, Writing, sha256_of},
    config::{Debian, Kernel},
    error::{KernelsError, Result},
    files::Identity,
    lockfile::{Locked, Part},
    modules,
    packages::{self, Package},
    untar::{Refusal, Unpacked},
};
use lab_base::process;
use lab_protocol::KernelVersion;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs,
    path::{Path, PathBuf},
};

/// The newest package of a suite whose name matches.
pub(super) struct Deb<'a> {
    pub suite: &'a str,
    pub package: &'a str,
}

impl Deb<'_> {
    fn wanted<'b>(&'b self, locked: Option<&'b Locked>) -> Result<Wanted<'b>> {
        let Some(Locked::Deb { suite, package, version, sha256, kernel, parts }) = locked else {
            return Err(KernelsError::Unlocked);
        };
        Ok(Wanted { suite, pattern: self.package, package, version, sha256, kernel: *kernel, parts })
    }
}

impl KernelSource for Deb<'_> {
    fn resolve(&self, site: &Site<'_>, indexes: &mut Indexes, progress: &dyn Fn(&str)) -> Result<Option<Locked>> {
        // apt's lists are also protected by the lock.
        let writing = site.cache.write(Errand::Fetch, progress)?;
        let packages = indexes.of(writing.root(), site.debian, self.suite, progress)?;
        resolve(packages, self.suite, self.package).map(Some)
    }

    fn identity(&self, _: &Site<'_>, locked: Option<&Locked>) -> Result<Bound> {
        let wanted = self.wanted(locked)?;
        Ok(Bound { version: wanted.kernel, sha256: identity_of(wanted.sha256, wanted.parts) })
    }

    fn fetch(&self, job: &Job<'_>) -> Result<Finished> {
        let wanted = self.wanted(job.locked)?;
        fetch(job.writing, job.site.debian, job.kernel, &wanted, &job.bound.sha256, job.progress)
    }
}

/// Disk space for a package: unpacked it has about four times its size (6.1 has uncompressed modules), plus the `.deb`.
const SPACE_PER_BYTE: u64 = 6;

/// The current packages of suites; each suite is read once.
#[derive(Default)]
pub(crate) struct Indexes(BTreeMap<String, Vec<Package>>);

impl Indexes {
    /// The kernel packages of a suite.
    ///
    /// # Errors
    /// The network or the mirror fails, or a signature is invalid.
    pub fn of(&mut self, cache: &Path, debian: &Debian, suite: &str, progress: &dyn Fn(&str)) -> Result<&[Package]> {
        match self.0.entry(suite.to_owned()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => {
                let apt = Apt::new(cache, debian, suite)?;
                apt.update(progress)?;
                Ok(new.insert(apt.kernels()?))
            }
        }
    }
}

/// Finds the current package of a pattern.
///
/// # Errors
/// No package matches, or the matching one has no kernel version or lacks a part.
pub(crate) fn resolve(packages: &[Package], suite: &str, pattern: &str) -> Result<Locked> {
    let (package, kernel) = choose(packages, suite, pattern)?;
    let part = |name: &String| {
        let found = packages.iter().find(|part| part.name == *name && part.version == package.version);
        let found = found.ok_or_else(|| KernelsError::Incomplete {
            package: package.name.clone(),
            part: name.clone(),
            suite: suite.to_owned(),
        })?;
        Ok(Part { package: name.clone(), sha256: found.sha256.clone() })
    };
    Ok(Locked::Deb {
        parts: package.parts.iter().map(part).collect::<Result<_>>()?,
        suite: suite.to_owned(),
        package: package.name.clone(),
        version: package.version.clone(),
        sha256: package.sha256.clone(),
        kernel,
    })
}

/// The current package of a pattern, and its kernel version.
///
/// # Errors
/// No package matches, or the matching one has no kernel version.
pub(crate) fn choose<'a>(packages: &'a [Package], suite: &str, pattern: &str) -> Result<(&'a Package, KernelVersion)> {
    let package = packages::newest(packages, pattern, suite)?;
    let kernel = package.version.parse().map_err(|_| KernelsError::NoPackage {
        pattern: pattern.to_owned(),
        suite: suite.to_owned(),
        nearest: format!(" with a kernel version ({} is {})", package.name, package.version),
    })?;
    Ok((package, kernel))
}

/// The identity of a package. A package that only depends on others may be unchanged while they change, so their hashes
/// are included.
fn identity_of(sha256: &str, parts: &[Part]) -> String {
    if parts.is_empty() {
        return sha256.to_owned();
    }
    let mut identity = Identity::default();
    identity.add(sha256);
    for part in parts {
        identity.add(&part.package).add(&part.sha256);
    }
    identity.finish()
}

/// A package in the lock.
pub(crate) struct Wanted<'a> {
    pub suite: &'a str,
    pub pattern: &'a str,
    pub package: &'a str,
    pub version: &'a str,
    pub sha256: &'a str,
    pub kernel: KernelVersion,
    pub parts: &'a [Part],
}

impl<'a> Wanted<'a> {
    /// The packages with the kernel's files, each with its hash.
    fn files(&self) -> Vec<(&'a str, &'a str)> {
        match self.parts {
            [] => vec![(self.package, self.sha256)],
            parts => parts.iter().map(|part| (&*part.package, &*part.sha256)).collect(),
        }
    }

    /// Downloads one of [`Self::files`] and checks its hash. The index on disk may be older than the lock, or name
    /// files that the mirror has removed, so after a failure the index is fetched again once.
    ///
    /// # Errors
    /// The package no longer exists, its hash differs, the disk is too small, or the network fails.
    pub fn get(
        &self,
        writing: &Writing<'_>,
        apt: &Apt,
        (package, sha256): (&str, &str),
        dir: &Path,
        progress: &dyn Fn(&str),
    ) -> Result<PathBuf> {
        let get = || {
            let packages = apt.kernels()?;
            let package = packages::locked(&packages, package, self.version, self.pattern, self.suite)?;
            writing.reserve(package.size.saturating_mul(SPACE_PER_BYTE))?;
            apt.download(package, dir, progress)
        };
        let deb = match get() {
            Err(KernelsError::Vanished { .. } | KernelsError::Program { .. }) => {
                apt.update(progress)?;
                get()?
            }
            other => other?,
        };
        self.checked(deb, (package, sha256))
    }

    /// Returns the file if its hash is the locked one.
    fn checked(&self, deb: PathBuf, (package, sha256): (&str, &str)) -> Result<PathBuf> {
        let found = sha256_of(&deb)?;
        if found == sha256 {
            return Ok(deb);
        }
        let what = format!("{package} {}", self.version);
        Err(KernelsError::Checksum { what, found, locked: sha256.to_owned() })
    }
}

/// Downloads, checks and unpacks the locked package.
///
/// # Errors
/// It no longer exists, differs from the locked one or is damaged, or the disk or the network fails.
pub(crate) fn fetch(
    writing: &Writing<'_>,
    debian: &Debian,
    kernel: &Kernel,
    wanted: &Wanted<'_>,
    identity: &str,
    progress: &dyn Fn(&str),
) -> Result<Finished> {
    let apt = Apt::new(writing.root(), debian, wanted.suite)?;
    let stage = writing.stage()?;
    let download = stage.path().join("download");
    fs::create_dir(&download).map_err(KernelsError::io(&download))?;
    let mut found = Unpacked::default();
    for (package, sha256) in wanted.files() {
        let deb = wanted.get(writing, &apt, (package, sha256), &download, progress)?;
        progress(&format!("unpacking {package}"));
        unpack(&deb, stage.path(), &mut found)?;
        fs::remove_file(&deb).map_err(KernelsError::io(&deb))?;
    }
    let release = found.release().map_err(|refusal| refused(refusal, wanted.package, stage.path()))?;
    modules::index(stage.path(), &release)?;
    fs::remove_dir_all(&download).map_err(KernelsError::io(&download))?;
    writing.finish(stage, kernel, wanted.kernel, identity)
}

/// Passes a package's files to [`Unpacked::add`].
fn unpack(deb: &Path, stage: &Path, found: &mut Unpacked) -> Result<()> {
    let args = ["--fsys-tarfile".as_ref(), deb.as_os_str()];
    let stream = process::command("dpkg-deb", args).stderr_null().reader();
    let stream = stream.map_err(|error| process::start_error("dpkg-deb --fsys-tarfile", "dpkg", &error))?;
    found.add(&stream, stage).map_err(|refusal| {
        // Otherwise dpkg-deb would wait for a reader.
        let _ = stream.kill();
        refused(refusal, &deb.file_name().unwrap_or_default().to_string_lossy(), stage)
    })
}

fn refused(refusal: Refusal, archive: &str, stage: &Path) -> KernelsError {
    match refusal {
        Refusal::Disk(error) => KernelsError::io(stage)(error),
        Refusal::Stopped => KernelsError::Interrupted { what: format!("unpacking {archive}") },
        Refusal::Archive(reason) => KernelsError::Archive { archive: archive.to_owned(), reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test package is built by dpkg-deb, so that no package of a real kernel is needed.
    fn package(dir: &Path) -> std::path::PathBuf {
        let tree = dir.join("tree");
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::create_dir_all(tree.join("boot")).unwrap();
        let control = "Package: k\nVersion: 1\nArchitecture: all\nMaintainer: k <k@k.example>\nDescription: k\n";
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        let noise: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        fs::write(tree.join("boot/vmlinuz-6.7.1"), noise).unwrap();
        let deb = dir.join("k.deb");
        let args = ["--root-owner-group".as_ref(), "-b".as_ref(), tree.as_os_str(), deb.as_os_str()];
        process::capture("dpkg-deb -b", "dpkg", process::command("dpkg-deb", args)).unwrap();
        deb
    }

    #[test]
    fn a_package_with_another_hash_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let deb = package(dir.path());
        let sum = sha256_of(&deb).unwrap();
        let kernel = "6.7.1".parse().unwrap();
        let (suite, pattern, version, parts) = ("sid", "k", "1", &[]);
        let wanted = Wanted { suite, pattern, package: "k", version, sha256: &sum, kernel, parts };
        assert_eq!(wanted.checked(deb.clone(), ("k", &sum)).unwrap(), deb);
        let other = "0".repeat(64);
        let error = wanted.checked(deb, ("k", &other)).unwrap_err();
        assert!(matches!(error, KernelsError::Checksum { .. }), "{error}");
        assert!(error.to_string().contains(&sum) && error.to_string().contains(&other), "{error}");
    }

    #[test]
    fn a_truncated_package_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let deb = package(dir.path());
        let stage = dir.path().join("whole");
        fs::create_dir(&stage).unwrap();
        let mut found = Unpacked::default();
        unpack(&deb, &stage, &mut found).unwrap();
        assert_eq!(found.release().unwrap(), "6.7.1");
        let bytes = fs::read(&deb).unwrap();
        for (name, length) in [("half", bytes.len() / 2), ("head", 100), ("empty", 0), ("tail", bytes.len() - 40)] {
            fs::write(&deb, &bytes[..length]).unwrap();
            let stage = dir.path().join(name);
            fs::create_dir(&stage).unwrap();
            let error = unpack(&deb, &stage, &mut Unpacked::default()).unwrap_err();
            assert!(matches!(error, KernelsError::Archive { .. }), "{name}: {error}");
            assert!(error.to_string().starts_with("k.deb: "), "{error}");
        }
    }
}
