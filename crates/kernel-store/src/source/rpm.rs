//! Kernels from RPM repositories: Fedora, CentOS Stream, AlmaLinux, Rocky Linux, openSUSE, Amazon Linux.

use super::{Bound, ConfiguredSource, Indexes, Job, KernelSource, LockEntry, Locked, Site, SourceTable, deb};
use crate::{
    apt::AptState,
    cache::{CachedKernel, WritePurpose, Writing},
    compressed::decompressed,
    digest::Digest,
    error::{KernelsError, Result},
    files::Identity,
    mirror::objection,
    modules,
    names::is_file_name,
    openpgp::Keyring,
    rpm::{self, BadIndex, Claims, RpmFile, RpmPackage},
    untar::{UnpackedFiles, refused},
};
use lab_base::{nearest::nearest, strict_toml::ConfigError};
use lab_protocol::KernelVersion;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

/// End of the names of Fedora's packages with an image, whose modules are in packages of their own.
const CORE: &str = "-core";
/// Maximum bytes of `repomd.xml` and its signature: a repository's has some KiB.
const MOST_REPOMD: u64 = 4 << 20;
/// Maximum bytes of a list of packages, compressed.
const MOST_PRIMARY: u64 = 256 << 20;
/// Disk space for a package, in its size: modules are compressed in the package and beside it.
const SPACE_PER_BYTE: u64 = 6;
/// Number of names or versions in an error.
const SHOWN: usize = 5;

/// What is signed by a key of the keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// Every package; the index may be from anybody, who can withhold versions.
    Packages,
    /// The index, which has the checksums of the packages.
    Index,
    Both,
}

/// `source.rpm`: the newest package of a repository whose name and version match, with the packages of its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpmRepository {
    /// Address of the directory that has `repodata/`.
    pub repository: String,
    /// Keys by which packages or index must be signed.
    pub keyring: PathBuf,
    pub signed: Signed,
    /// Name of the package with the image.
    pub package: String,
    /// Pattern of `version-release`.
    pub version: String,
    /// Packages with its modules, all of which must exist.
    pub modules: Vec<String>,
    /// Packages with more modules, taken where the repository has them.
    pub extra: Vec<String>,
}

/// An image of a repository, with the packages of its modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedRpm {
    pub repository: String,
    pub package: String,
    /// `version-release`, with an epoch that is not 0 before it.
    pub version: String,
    /// Version of the kernel in it.
    pub kernel: KernelVersion,
    /// All packages, that of the image first.
    pub parts: Vec<RpmPart>,
}

/// A package with a part of a kernel's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpmPart {
    pub package: String,
    /// Checksum of the `.rpm`.
    pub digest: Digest,
    /// Where the repository had it when it was locked. A lock of an earlier version has no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<RpmPlace>,
}

/// Where a repository has a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpmPlace {
    /// Path in the repository.
    pub href: String,
    /// Bytes of the `.rpm`.
    pub size: u64,
}

impl RpmPlace {
    fn of(package: &RpmPackage) -> Self {
        Self { href: package.href.clone(), size: package.size }
    }
}

impl ConfiguredSource for RpmRepository {
    const KEYS: &'static [&'static str] =
        &["repository", "keyring", "signed", "package", "version", "modules", "extra"];

    fn read(from: &SourceTable<'_>) -> std::result::Result<Self, ConfigError> {
        let SourceTable { table, kernel, .. } = from;
        let repository = table.required("repository")?;
        if let Some(wrong) = objection(repository) {
            let message =
                format!("`repository` in {kernel} {wrong}: expected the address of the directory with `repodata`");
            return Err(table.error_at("repository", message));
        }
        let Some(keyring) = from.path("keyring")? else {
            let message = format!(
                "`rpm` source of {kernel} needs `keyring`: the keys by which the repository's packages are signed"
            );
            return Err(from.error(message));
        };
        let signed = match table.text("signed")? {
            None => Signed::Packages,
            Some(_) => table
                .word("signed", &[("packages", Signed::Packages), ("index", Signed::Index), ("both", Signed::Both)])?,
        };
        let package = table.required("package")?;
        let version = table.text("version")?.unwrap_or("*");
        if let Err(error) = globset::Glob::new(version) {
            return Err(table.error_at("version", format!("`version` in {kernel}: {}", error.kind())));
        }
        let is_name = |name: &str| name.starts_with("kernel") && is_file_name(name);
        if !is_name(package) {
            let message = format!("{package:?} in {kernel} is no name of a kernel package, such as kernel-core");
            return Err(table.error_at("package", message));
        }
        let list = |key: &str, ends: &[&str]| -> std::result::Result<Vec<String>, ConfigError> {
            if !table.keys().any(|it| it == key) {
                // kernel-core and kernel-debug-core; others have their modules in the package itself.
                let stem = package.strip_suffix(CORE);
                return Ok(stem
                    .into_iter()
                    .flat_map(|stem| ends.iter().map(move |end| format!("{stem}{end}")))
                    .collect());
            }
            let found = table.texts(key)?;
            match found.iter().find(|name| !is_name(name)) {
                None => Ok(found.into_iter().map(str::to_owned).collect()),
                Some(wrong) => {
                    Err(table.error_at(key, format!("{wrong:?} in `{key}` of {kernel} is no name of a kernel package")))
                }
            }
        };
        Ok(Self {
            repository: repository.trim_end_matches('/').to_owned(),
            keyring,
            signed,
            package: package.to_owned(),
            version: version.to_owned(),
            modules: list("modules", &["-modules"])?,
            extra: list("extra", &["-modules-core", "-modules-extra"])?,
        })
    }
}

impl fmt::Display for RpmRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rpm {} {} ({})", self.package, self.version, self.repository)
    }
}

impl fmt::Display for LockedRpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.package, self.version, self.repository)
    }
}

impl LockEntry for LockedRpm {
    fn kernel(&self) -> KernelVersion {
        self.kernel
    }

    fn is_older_than(&self, before: &Locked) -> Result<bool> {
        let Locked::Rpm(before) = before else { return Ok(false) };
        Ok(rpm_version::rpm_evr_compare(&self.version, &before.version).is_lt())
    }
}

/// A repository as its index describes it.
struct Packages(Vec<RpmPackage>);

impl RpmRepository {
    fn address(&self, path: &str) -> String {
        format!("{}/{path}", self.repository)
    }

    /// The keys, in a file in `dir`. Not read where nothing is checked by them.
    fn keys(&self, dir: &Path) -> Result<Keyring> {
        Keyring::open(&self.keyring, dir)
    }

    /// Downloads the index and reads its kernel packages.
    fn index(&self, writing: &Writing<'_>, progress: &dyn Fn(&str)) -> Result<Packages> {
        progress(&format!("reading the package index of {}", self.repository));
        let stage = writing.stage()?;
        let apt = AptState::without_sources(writing.root())?;
        let bad = |file: &str| {
            let index = format!("{file} of {}", self.repository);
            move |BadIndex(reason): BadIndex| KernelsError::BadIndex { index, reason }
        };
        let repomd = stage.path().join("repomd.xml");
        apt.download(&self.address("repodata/repomd.xml"), MOST_REPOMD, &repomd, progress)?;
        let keys = self.keys(stage.path())?;
        if matches!(self.signed, Signed::Index | Signed::Both) {
            let signature = stage.path().join("repomd.xml.asc");
            apt.download(&self.address("repodata/repomd.xml.asc"), MOST_REPOMD, &signature, progress)?;
            keys.check(&format!("repomd.xml of {}", self.repository), &signature, &repomd)?;
        }
        let text = lab_guard::bounded::file(&repomd, MOST_REPOMD).map_err(KernelsError::io(&repomd))?;
        let index = rpm::primary(&text).map_err(bad("repomd.xml"))?;
        if index.size > MOST_PRIMARY {
            let reason = format!("names a list of packages of {} MiB", index.size >> 20);
            return Err(bad("repomd.xml")(BadIndex(reason)));
        }
        let primary = stage.path().join("primary");
        apt.download(&self.address(&index.href), index.size, &primary, progress)?;
        index.digest.check(&primary, &format!("{} of {}", index.href, self.repository))?;
        let file = File::open(&primary).map_err(KernelsError::io(&primary))?;
        let list = decompressed(BufReader::new(file)).map_err(KernelsError::io(&primary))?;
        rpm::packages(list).map(Packages).map_err(bad(&index.href))
    }

    fn choose(&self, Packages(all): &Packages) -> Result<LockedRpm> {
        let matcher = globset::Glob::new(&self.version).ok().map(|glob| glob.compile_matcher());
        let fits = |it: &&RpmPackage| {
            let text = format!("{}-{}", it.version, it.release);
            it.name == self.package && matcher.as_ref().is_some_and(|matcher| matcher.is_match(&text))
        };
        let image = all.iter().filter(fits).max_by(|a, b| a.compare(b)).ok_or_else(|| self.none(all))?;
        let version = image.evr();
        let kernel = image.version.parse().map_err(|_| KernelsError::NoBuild {
            package: image.name.clone(),
            version: self.version.clone(),
            repository: self.repository.clone(),
            nearest: format!(", {version} names no kernel"),
        })?;
        let part = |it: &RpmPackage| RpmPart {
            package: it.name.clone(),
            digest: it.digest.clone(),
            place: Some(RpmPlace::of(it)),
        };
        let find = |name: &String| all.iter().find(|it| it.name == *name && it.evr() == version);
        let mut parts = vec![part(image)];
        for name in &self.modules {
            parts.push(part(find(name).ok_or_else(|| KernelsError::NoBuild {
                package: name.clone(),
                version: version.clone(),
                repository: self.repository.clone(),
                nearest: format!(", which `modules` names for {}", image.name),
            })?));
        }
        parts.extend(self.extra.iter().filter_map(find).map(part));
        let (repository, package) = (self.repository.clone(), image.name.clone());
        Ok(LockedRpm { repository, package, version, kernel, parts })
    }

    /// The error for a name and version that no package has.
    fn none(&self, all: &[RpmPackage]) -> KernelsError {
        let versions = newest(all, &self.package);
        let mut names: Vec<&str> = all.iter().map(|it| &*it.name).collect();
        names.sort_unstable();
        names.dedup();
        let nearest = match (versions.is_empty(), names.is_empty()) {
            (false, _) => format!(" (it has {})", versions.join(", ")),
            (true, true) => ", which has no kernels for x86_64".to_owned(),
            (true, false) => {
                let near = nearest(&self.package, names.iter().copied());
                let shown =
                    if near.is_empty() { names.into_iter().take(SHOWN).map(str::to_owned).collect() } else { near };
                format!(" (it has {})", shown.join(", "))
            }
        };
        let (package, version) = (self.package.clone(), self.version.clone());
        KernelsError::NoBuild { package, version, repository: self.repository.clone(), nearest }
    }

    /// Downloads a locked package from where it was when it was locked. Only if it is no longer there, the index is read: for
    /// its new place, or for what there is instead.
    fn download(
        &self,
        (part, version): (&RpmPart, &str),
        to: &Path,
        writing: &Writing<'_>,
        index: &mut Indexes,
        progress: &dyn Fn(&str),
    ) -> Result<()> {
        let apt = AptState::without_sources(writing.root())?;
        let what = format!("{} {version}", part.package);
        let get = |place: &RpmPlace| {
            writing.reserve(place.size.saturating_mul(SPACE_PER_BYTE))?;
            progress(&format!("downloading {what} ({} MiB)", place.size.div_ceil(1 << 20)));
            apt.download(&self.address(&place.href), place.size, to, progress)
        };
        let known = part.place.as_ref().filter(|place| rpm::is_inside(&place.href));
        let lost = match known.map(get) {
            Some(Ok(())) => return part.digest.check(to, &what),
            Some(Err(error @ KernelsError::Program { .. })) => Some(error),
            Some(Err(error)) => return Err(error),
            None => None,
        };
        let Packages(all) = index.get_or_read(&self.key(), || self.index(writing, progress))?;
        let now = all.iter().find(|it| it.name == part.package && it.evr() == version);
        let now = now.map(RpmPlace::of).ok_or_else(|| {
            let versions = newest(all, &part.package);
            let available =
                if versions.is_empty() { "no version that matches".to_owned() } else { versions.join(", ") };
            KernelsError::Vanished {
                package: part.package.clone(),
                version: version.to_owned(),
                suite: self.repository.clone(),
                available,
            }
        })?;
        match lost.filter(|_| known == Some(&now)) {
            Some(error) => Err(error),
            None => get(&now).and_then(|()| part.digest.check(to, &what)),
        }
    }

    /// The key of its index. Kernels of one repository may ask for different signatures.
    fn key(&self) -> String {
        format!("{} {:?} {}", self.repository, self.signed, self.keyring.display())
    }

    fn wanted<'b>(&self, locked: Option<&'b Locked>) -> Result<&'b LockedRpm> {
        let Some(Locked::Rpm(locked)) = locked else { return Err(KernelsError::Unlocked) };
        Ok(locked)
    }
}

/// The newest versions of a package, newest first.
fn newest(all: &[RpmPackage], name: &str) -> Vec<String> {
    let mut found: Vec<&RpmPackage> = all.iter().filter(|it| it.name == name).collect();
    found.sort_by(|a, b| b.compare(a));
    found.into_iter().take(SHOWN).map(RpmPackage::evr).collect()
}

impl KernelSource for RpmRepository {
    fn is_published(&self) -> bool {
        true
    }

    fn is_resolved_by(&self, locked: &Locked) -> bool {
        let Locked::Rpm(it) = locked else { return false };
        // Without the epoch, as the pattern is.
        let version = it.version.split_once(':').map_or(&*it.version, |(_, rest)| rest);
        let matches = || globset::Glob::new(&self.version).is_ok_and(|glob| glob.compile_matcher().is_match(version));
        let is_locked = |name: &String| it.parts.iter().any(|part| part.package == *name);
        it.repository == self.repository
            && it.package == self.package
            && matches()
            && self.modules.iter().all(is_locked)
    }

    fn resolve(&self, site: &Site<'_>, indexes: &mut Indexes, progress: &dyn Fn(&str)) -> Result<Option<Locked>> {
        let writing = site.cache.write(WritePurpose::Fetch, progress)?;
        let packages = indexes.get_or_read(&self.key(), || self.index(&writing, progress))?;
        self.choose(packages).map(|locked| Some(Locked::Rpm(locked)))
    }

    fn identity(&self, _: &Site<'_>, locked: Option<&Locked>) -> Result<Bound> {
        let locked = self.wanted(locked)?;
        let mut identity = Identity::default();
        for part in &locked.parts {
            identity.add(&part.package).add(part.digest.to_string());
        }
        Ok(Bound { version: locked.kernel, sha256: identity.finish() })
    }

    fn fetch(&self, job: &Job<'_>) -> Result<CachedKernel> {
        let Job { writing, target, progress, .. } = *job;
        let locked = self.wanted(job.locked)?;
        let stage = writing.stage()?;
        let download = stage.path().join("download");
        fs::create_dir(&download).map_err(KernelsError::io(&download))?;
        let keys = match self.signed {
            Signed::Index => None,
            Signed::Packages | Signed::Both => Some(self.keys(&download)?),
        };
        // A header has no epoch in its version.
        let version = locked.version.split_once(':').map_or(&*locked.version, |(_, rest)| rest);
        let (mut index, mut files) = (Indexes::default(), UnpackedFiles::default());
        for part in &locked.parts {
            let what = format!("{} {}", part.package, locked.version);
            let path = download.join("package.rpm");
            self.download((part, &locked.version), &path, writing, &mut index, progress)?;
            let file = File::open(&path).map_err(KernelsError::io(&path))?;
            let refusing = |refusal| refused(refusal, &what, stage.path());
            let mut package_file = RpmFile::open(file).map_err(refusing)?;
            if let Some(keys) = &keys {
                package_file.verify(keys, &what, &download)?;
            }
            progress(&format!("unpacking {}", part.package));
            package_file.check(&Claims { name: &part.package, version }).map_err(refusing)?;
            package_file.unpack(stage.path(), &mut files).map_err(refusing)?;
            fs::remove_file(&path).map_err(KernelsError::io(&path))?;
        }
        fs::remove_dir_all(&download).map_err(KernelsError::io(&download))?;
        let release = deb::release_with_modules(files, &locked.package, stage.path())?;
        modules::index(stage.path(), &release)?;
        writing.finish(stage, target, locked.kernel, &job.bound.sha256)
    }
}

#[cfg(test)]
#[path = "rpm_tests.rs"]
mod tests;
