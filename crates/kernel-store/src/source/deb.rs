//! Kernels from Debian packages.

use super::{
    Bound, ConfiguredSource, Indexes, Job, KernelSource, LockEntry, Locked, Packages, Site, SourceTable, checksum,
};
use crate::{
    apt::Apt,
    cache::{CachedKernel, WritePurpose, Writing, sha256_of},
    changelog,
    debian::Debian,
    error::{KernelsError, Result},
    files::Identity,
    modules,
    names::is_file_name,
    packages::{self, ArchivePackage},
    untar::{UnpackedFiles, refused},
};
use lab_base::{arch::Architecture, process, strict_toml::ConfigError};
use lab_protocol::KernelVersion;
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// `source.deb`: the newest package of a suite whose name matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deb {
    /// Suite that contains it.
    pub suite: String,
    /// Pattern of the package's name; the highest matching version is used.
    pub package: String,
    /// The architecture of its kernel.
    pub arch: Architecture,
}

/// A package of a Debian suite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedDeb {
    pub suite: String,
    /// Absent where it is the lab's own.
    #[serde(default, skip_serializing_if = "Architecture::is_own")]
    pub arch: Architecture,
    pub package: String,
    pub version: String,
    /// SHA-256 of the `.deb`, hexadecimal.
    #[serde(deserialize_with = "checksum")]
    pub sha256: String,
    /// Version of the kernel in it.
    pub kernel: KernelVersion,
    /// Packages of the same version that contain the files, if this package only depends on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PackagePart>,
}

/// A package with a part of a kernel's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackagePart {
    pub package: String,
    /// SHA-256 of the `.deb`, hexadecimal.
    #[serde(deserialize_with = "checksum")]
    pub sha256: String,
}

impl ConfiguredSource for Deb {
    const KEYS: &'static [&'static str] = &["suite", "package", "arch"];

    fn read(table: &SourceTable<'_>) -> std::result::Result<Self, ConfigError> {
        let (suite, package) = read_package(table)?;
        let arch = match table.table.text("arch")? {
            None => Architecture::default(),
            Some(name) => Architecture::named(name).ok_or_else(|| {
                let known = Architecture::ALL.map(Architecture::name).join(", ");
                table.table.error_at("arch", format!("`arch` in {} must be one of: {known}", table.kernel))
            })?,
        };
        Ok(Self { suite, package, arch })
    }
}

/// Reads `suite` and the pattern `package`.
pub(crate) fn read_package(table: &SourceTable<'_>) -> std::result::Result<(String, String), ConfigError> {
    let SourceTable { table, kernel, .. } = table;
    let (suite, package) = (table.required("suite")?, table.required("package")?);
    if !is_file_name(suite) {
        return Err(table.error_at("suite", format!("{suite:?} in {kernel} is not a suite's name")));
    }
    if let Err(error) = globset::Glob::new(package) {
        return Err(table.error_at("package", format!("`package` in {kernel}: {}", error.kind())));
    }
    Ok((suite.to_owned(), package.to_owned()))
}

/// Whether a locked package is one of this suite and pattern.
pub(crate) fn is_of(suite: &str, pattern: &str, locked: (&str, &str)) -> bool {
    let matches = || globset::Glob::new(pattern).is_ok_and(|glob| glob.compile_matcher().is_match(locked.1));
    suite == locked.0 && matches()
}

impl fmt::Display for Deb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arch = if self.arch.is_own() { String::new() } else { format!(", {}", self.arch) };
        write!(f, "deb {} ({}{arch})", self.package, self.suite)
    }
}

impl fmt::Display for LockedDeb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.package, self.version, self.suite)
    }
}

impl LockEntry for LockedDeb {
    fn kernel(&self) -> KernelVersion {
        self.kernel
    }

    fn is_older_than(&self, before: &Locked) -> Result<bool> {
        let Locked::Deb(before) = before else { return Ok(false) };
        Ok(packages::compare(&self.version, &before.version)?.is_lt())
    }

    fn difference(&self, before: &Locked) -> String {
        let Locked::Deb(before) = before else { return "from another source".to_owned() };
        difference((&before.sha256, &before.parts), (&self.sha256, &self.parts))
    }
}

/// What has changed in the packages of one version, each with its checksum and its parts.
pub(crate) fn difference(before: (&str, &[PackagePart]), after: (&str, &[PackagePart])) -> String {
    let mut told = Vec::new();
    if before.0 != after.0 {
        told.push("the package has a different checksum".to_owned());
    }
    for part in after.1 {
        match before.1.iter().find(|it| it.package == part.package) {
            None => told.push(format!("with {}", part.package)),
            Some(it) if it.sha256 != part.sha256 => told.push(format!("different checksum of {}", part.package)),
            Some(_) => {}
        }
    }
    let lost = before.1.iter().filter(|part| !after.1.iter().any(|it| it.package == part.package));
    told.extend(lost.map(|part| format!("without {}", part.package)));
    if told.is_empty() {
        return "other fields of the entry differ".to_owned();
    }
    format!("the same version: {}", told.join(", "))
}

impl Deb {
    fn wanted<'b>(&'b self, locked: Option<&'b Locked>) -> Result<LockedPackage<'b>> {
        let Some(Locked::Deb(LockedDeb { suite, package, version, sha256, kernel, parts, .. })) = locked else {
            return Err(KernelsError::Unlocked);
        };
        let whole = parts.is_empty();
        Ok(LockedPackage { suite, pattern: &self.package, package, version, sha256, kernel: *kernel, whole, parts })
    }
}

impl Deb {
    /// The series that the pattern names: 6.12 of `linux-image-6.12.*-cloud-amd64`.
    pub(super) fn series(&self) -> Option<&str> {
        let rest = ["linux-image-", "linux-binary-"].iter().find_map(|prefix| self.package.strip_prefix(prefix))?;
        let end = rest.match_indices(|c: char| !c.is_ascii_digit()).nth(1).map_or(rest.len(), |(at, _)| at);
        let (series, next) = rest.split_at(end);
        let (major, minor) = series.split_once('.')?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number that goes on with any characters is not a whole one.
        (is_number(major) && is_number(minor) && !next.starts_with(['*', '?', '['])).then_some(series)
    }
}

impl KernelSource for Deb {
    fn architecture(&self) -> Architecture {
        self.arch
    }

    fn promised(&self) -> Option<KernelVersion> {
        self.package.strip_prefix("linux-image-")?.parse().ok()
    }

    fn is_published(&self) -> bool {
        true
    }

    fn is_resolved_by(&self, locked: &Locked) -> bool {
        matches!(locked, Locked::Deb(it) if it.arch == self.arch && is_of(&self.suite, &self.package, (&it.suite, &it.package)))
    }

    fn resolve(&self, site: &Site<'_>, indexes: &mut Indexes, progress: &dyn Fn(&str)) -> Result<Option<Locked>> {
        // apt's lists are also protected by the lock.
        let writing = site.cache.write(WritePurpose::Fetch, progress)?;
        let packages = of_suite(indexes, writing.root(), site.debian, (&self.suite, self.arch), progress)?;
        let locked = resolve(packages, &self.suite, &self.package)?;
        Ok(Some(Locked::Deb(LockedDeb { arch: self.arch, ..locked })))
    }

    fn identity(&self, _: &Site<'_>, locked: Option<&Locked>) -> Result<Bound> {
        let wanted = self.wanted(locked)?;
        Ok(Bound { version: wanted.kernel, sha256: identity_of(wanted.sha256, wanted.parts) })
    }

    fn packages<'b>(&'b self, locked: Option<&'b Locked>) -> Option<Packages<'b>> {
        let wanted = self.wanted(locked).ok()?;
        let names = wanted.files().into_iter().map(|(name, _)| name).collect();
        Some(Packages { suite: wanted.suite, arch: self.arch, version: wanted.version, names })
    }

    fn fetch(&self, job: &Job<'_>) -> Result<CachedKernel> {
        let wanted = self.wanted(job.locked)?;
        fetch(job, &Apt::new(job.writing.root(), job.site.debian, wanted.suite, self.arch)?, &wanted, false)
    }

    fn changelog(&self, site: &Site<'_>, locked: &Locked, progress: &dyn Fn(&str)) -> Result<String> {
        let wanted = self.wanted(Some(locked))?;
        let writing = site.cache.write(WritePurpose::Fetch, progress)?;
        wanted.changelog(&writing, &Apt::new(writing.root(), site.debian, wanted.suite, self.arch)?, progress)
    }
}

/// Disk space for a package: unpacked it has about four times its size (6.1 has uncompressed modules), plus the `.deb`.
const SPACE_PER_BYTE: u64 = 6;

/// The kernel packages of a suite, which are read once per update of the lock.
///
/// # Errors
/// The network or the mirror fails, or a signature is invalid.
pub(crate) fn of_suite<'i>(
    indexes: &'i mut Indexes,
    cache: &Path,
    debian: &Debian,
    (suite, arch): (&str, Architecture),
    progress: &dyn Fn(&str),
) -> Result<&'i Vec<ArchivePackage>> {
    indexes.get_or_read(&format!("{suite} {arch}"), || {
        let apt = Apt::new(cache, debian, suite, arch)?;
        apt.update(progress)?;
        apt.kernels()
    })
}

/// Finds the current package of a pattern.
///
/// # Errors
/// No package matches, or the matching one has no kernel version or lacks a part.
pub(crate) fn resolve(packages: &[ArchivePackage], suite: &str, pattern: &str) -> Result<LockedDeb> {
    let (package, kernel) = choose(packages, suite, pattern)?;
    let part = |name: &String| {
        let found = packages.iter().find(|part| part.name == *name && part.version == package.version);
        let found = found.ok_or_else(|| KernelsError::Incomplete {
            package: package.name.clone(),
            part: name.clone(),
            suite: suite.to_owned(),
        })?;
        Ok(PackagePart { package: name.clone(), sha256: found.sha256.clone() })
    };
    Ok(LockedDeb {
        parts: package.parts.iter().map(part).collect::<Result<_>>()?,
        suite: suite.to_owned(),
        arch: Architecture::default(),
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
pub(crate) fn choose<'a>(
    packages: &'a [ArchivePackage],
    suite: &str,
    pattern: &str,
) -> Result<(&'a ArchivePackage, KernelVersion)> {
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
pub(crate) fn identity_of(sha256: &str, parts: &[PackagePart]) -> String {
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
pub(crate) struct LockedPackage<'a> {
    pub suite: &'a str,
    pub pattern: &'a str,
    pub package: &'a str,
    pub version: &'a str,
    pub sha256: &'a str,
    pub kernel: KernelVersion,
    /// Whether it has files of the kernel itself, besides those of its parts.
    pub whole: bool,
    pub parts: &'a [PackagePart],
}

impl<'a> LockedPackage<'a> {
    /// The packages with the kernel's files, each with its hash.
    fn files(&self) -> Vec<(&'a str, &'a str)> {
        let itself = self.whole.then_some((self.package, self.sha256));
        itself.into_iter().chain(self.parts.iter().map(|part| (&*part.package, &*part.sha256))).collect()
    }

    /// Its changelog.
    ///
    /// # Errors
    /// It can't be fetched, or has none.
    pub fn changelog(&self, writing: &Writing<'_>, apt: &Apt, progress: &dyn Fn(&str)) -> Result<String> {
        let stage = writing.stage()?;
        changelog::of_package(&self.get(writing, apt, (self.package, self.sha256), stage.path(), progress)?)
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

/// Downloads, checks and unpacks the locked package. With `modules`, a kernel without modules is refused.
///
/// # Errors
/// It no longer exists, differs from the locked one or is damaged, or the disk or the network fails.
pub(crate) fn fetch(job: &Job<'_>, apt: &Apt, wanted: &LockedPackage<'_>, modules: bool) -> Result<CachedKernel> {
    let Job { writing, target, progress, .. } = *job;
    let stage = writing.stage()?;
    let download = stage.path().join("download");
    fs::create_dir(&download).map_err(KernelsError::io(&download))?;
    let mut found = UnpackedFiles::default();
    for (package, sha256) in wanted.files() {
        let deb = wanted.get(writing, apt, (package, sha256), &download, progress)?;
        progress(&format!("unpacking {package}"));
        unpack(&deb, stage.path(), &mut found)?;
        fs::remove_file(&deb).map_err(KernelsError::io(&deb))?;
    }
    let release = match modules {
        true => release_with_modules(found, wanted.package, stage.path())?,
        false => found.release().map_err(|refusal| refused(refusal, wanted.package, stage.path()))?,
    };
    modules::index(stage.path(), &release)?;
    fs::remove_dir_all(&download).map_err(KernelsError::io(&download))?;
    writing.finish(stage, target, wanted.kernel, &job.bound.sha256)
}

/// The release of a kernel whose packages were unpacked to `stage`.
///
/// # Errors
/// There is no kernel, there are several, or it has no modules.
pub(crate) fn release_with_modules(found: UnpackedFiles, package: &str, stage: &Path) -> Result<String> {
    let release = found.release().map_err(|refusal| refused(refusal, package, stage))?;
    let installed = stage.join("root/lib/modules").join(&release);
    if installed.join("kernel").is_dir() || installed.join("updates").is_dir() {
        return Ok(release);
    }
    let reason = format!("has no modules of {release}: name the packages that have them in `modules`");
    Err(KernelsError::Archive { archive: package.to_owned(), reason })
}

/// Passes a package's files to [`UnpackedFiles::add`].
fn unpack(deb: &Path, stage: &Path, found: &mut UnpackedFiles) -> Result<()> {
    let args = ["--fsys-tarfile".as_ref(), deb.as_os_str()];
    let stream = process::command("dpkg-deb", args).stderr_null().reader();
    let stream = stream.map_err(|error| process::start_error("dpkg-deb --fsys-tarfile", "dpkg", &error))?;
    found.add(&stream, stage).map_err(|refusal| {
        // Otherwise dpkg-deb would wait for a reader.
        let _ = stream.kill();
        refused(refusal, &deb.file_name().unwrap_or_default().to_string_lossy(), stage)
    })
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
        let wanted = LockedPackage { suite, pattern, package: "k", version, sha256: &sum, kernel, whole: true, parts };
        assert_eq!(wanted.checked(deb.clone(), ("k", &sum)).unwrap(), deb);
        let other = "0".repeat(64);
        let error = wanted.checked(deb, ("k", &other)).unwrap_err();
        assert!(matches!(error, KernelsError::Checksum { .. }), "{error}");
        assert!(error.to_string().contains(&sum) && error.to_string().contains(&other), "{error}");
    }

    #[test]
    fn a_pattern_may_name_a_series() {
        for (package, series) in [
            ("linux-image-6.12.*-cloud-amd64", Some("6.12")),
            ("linux-image-6.1.0-??-amd64", Some("6.1")),
            ("linux-binary-7.0.4+deb13-cloud-amd64", Some("7.0")),
            ("linux-image-7.3-cloud-amd64", Some("7.3")),
            ("linux-image-6.1*-cloud-amd64", None),
            ("linux-image-*-cloud-amd64", None),
            ("linux-image-cloud-amd64", None),
        ] {
            let deb = Deb { suite: "sid".into(), package: package.into(), arch: Architecture::default() };
            assert_eq!(deb.series(), series, "{package}");
        }
    }

    #[test]
    fn a_truncated_package_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let deb = package(dir.path());
        let stage = dir.path().join("whole");
        fs::create_dir(&stage).unwrap();
        let mut found = UnpackedFiles::default();
        unpack(&deb, &stage, &mut found).unwrap();
        assert_eq!(found.release().unwrap(), "6.7.1");
        let bytes = fs::read(&deb).unwrap();
        for (name, length) in [("half", bytes.len() / 2), ("head", 100), ("empty", 0), ("tail", bytes.len() - 40)] {
            fs::write(&deb, &bytes[..length]).unwrap();
            let stage = dir.path().join(name);
            fs::create_dir(&stage).unwrap();
            let error = unpack(&deb, &stage, &mut UnpackedFiles::default()).unwrap_err();
            assert!(matches!(error, KernelsError::Archive { .. }), "{name}: {error}");
            assert!(error.to_string().starts_with("k.deb: "), "{error}");
        }
    }
}
