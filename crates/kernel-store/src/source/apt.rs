//! Kernels from any apt archive: Ubuntu's, whose image and modules are separate packages, a vendor's, or a day of a
//! snapshot archive.

use super::{
    Bound, ConfiguredSource, Indexes, Job, KernelSource, LockEntry, Locked, Site, SourceTable, checksum,
    deb::{self, LockedPackage, PackagePart},
};
use crate::{
    apt::{Apt, Foreign, need_keyring},
    cache::{CachedKernel, WritePurpose},
    debian::Debian,
    error::{KernelsError, Result},
    mirror::{CREDENTIALS, has_user, is_usable, mirror, objection},
    names::is_file_name,
    packages::{self, ArchivePackage},
};
use lab_base::strict_toml::ConfigError;
use lab_protocol::KernelVersion;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// What of an image's name comes before its release, longest first.
const IMAGES: [&str; 2] = ["linux-image-unsigned-", "linux-image-"];
/// In a pattern of `modules` and `extra`: the release of the image that was chosen.
const RELEASE: &str = "{release}";

/// An archive whose address, keyring and packages are known.
struct Preset {
    name: &'static str,
    keyring: &'static str,
    /// Package with the keyring.
    package: &'static str,
    modules: &'static [&'static str],
    extra: &'static [&'static str],
}

const PRESETS: [Preset; 2] = [
    Preset {
        name: "debian",
        keyring: "/usr/share/keyrings/debian-archive-keyring.gpg",
        package: "debian-archive-keyring",
        modules: &[],
        extra: &[],
    },
    Preset {
        name: "ubuntu",
        keyring: "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
        package: "ubuntu-keyring",
        modules: &["linux-modules-{release}"],
        extra: &["linux-modules-extra-{release}"],
    },
];

/// `source.apt`: the newest image of a suite whose name matches, with the packages of its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AptArchive {
    /// Name of a preset, or `scheme://host/path`.
    pub archive: String,
    /// Suite that contains it.
    pub suite: String,
    /// Components of the suite.
    pub components: Vec<String>,
    /// Keys by which the index must be signed.
    pub keyring: PathBuf,
    /// Pattern of the image's name; the highest matching version is used.
    pub package: String,
    /// Packages with its modules, all of which must exist.
    pub modules: Vec<String>,
    /// Packages with more modules, taken where the archive has them.
    pub extra: Vec<String>,
    /// A moment of the preset's snapshot archive, `YYYYMMDDTHHMMSSZ`.
    pub snapshot: Option<String>,
    /// Why the index may be older than its `Valid-Until`.
    pub stale: Option<String>,
}

/// An image of an archive, with the packages of its modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedApt {
    /// As in `kernels.toml`, with the snapshot's moment.
    pub archive: String,
    pub suite: String,
    pub package: String,
    pub version: String,
    /// SHA-256 of the image's `.deb`, hexadecimal.
    #[serde(deserialize_with = "checksum")]
    pub sha256: String,
    /// Version of the kernel in it.
    pub kernel: KernelVersion,
    /// The packages with its modules, of the same version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PackagePart>,
}

impl ConfiguredSource for AptArchive {
    const KEYS: &'static [&'static str] =
        &["archive", "suite", "components", "keyring", "package", "modules", "extra", "snapshot", "stale"];

    fn read(from: &SourceTable<'_>) -> std::result::Result<Self, ConfigError> {
        let SourceTable { table, kernel, .. } = from;
        let (suite, package) = deb::read_package(from)?;
        let archive = table.required("archive")?;
        let preset = PRESETS.iter().find(|it| it.name == archive);
        if preset.is_none() && !is_usable(archive) {
            let names: Vec<&str> = PRESETS.iter().map(|it| it.name).collect();
            let message = format!(
                "`archive` in {kernel} must be {}, or an archive's address, scheme://host/path without spaces",
                names.join(" or ")
            );
            return Err(table.error_at("archive", message));
        }
        // It is written to messages and to the lock.
        if has_user(archive) {
            return Err(table.error_at("archive", format!("`archive` in {kernel} {CREDENTIALS}")));
        }
        let keyring = match (from.path("keyring")?, preset) {
            (Some(path), _) => path,
            (None, Some(preset)) => preset.keyring.into(),
            (None, None) => {
                let message =
                    format!("`apt` source of {kernel} needs `keyring`: the keys by which {archive} is signed");
                return Err(from.error(message));
            }
        };
        // A line of a sources file has no quotes.
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '[' | ']' | ',' | '"' | '\'' | '#');
        if !keyring.to_str().is_some_and(|path| path.chars().all(plain)) {
            let message =
                format!("`keyring` in {kernel} is {keyring:?}: apt takes no path with spaces, brackets or commas");
            return Err(table.error_at("keyring", message));
        }
        let list = |key: &str, preset: &[&str]| -> std::result::Result<Vec<String>, ConfigError> {
            let found = if table.keys().any(|it| it == key) { table.texts(key)? } else { preset.to_vec() };
            match found.iter().find(|name| !is_file_name(&name.replace(RELEASE, "0"))) {
                None => Ok(found.into_iter().map(str::to_owned).collect()),
                Some(wrong) => Err(table.error_at(key, format!("{wrong:?} in `{key}` of {kernel} is not a name"))),
            }
        };
        let components = list("components", &["main"])?;
        if components.is_empty() {
            return Err(table.error_at("components", format!("`components` in {kernel} is empty")));
        }
        let snapshot = match (table.date("snapshot")?, preset) {
            (None, _) => None,
            (Some(text), Some(_)) if archive == "ubuntu" => Some(moment(&text).ok_or_else(|| {
                let message =
                    format!("`snapshot` in {kernel} must be a day, 2026-03-01, or a moment, 20260301T000000Z");
                table.error_at("snapshot", message)
            })?),
            (Some(_), _) => {
                let message = format!(
                    "`snapshot` in {kernel} needs `archive = \"ubuntu\"`: of others, name the snapshot's own address as `archive`, \
                     and `stale`"
                );
                return Err(table.error_at("snapshot", message));
            }
        };
        Ok(Self {
            archive: archive.to_owned(),
            suite,
            components,
            keyring,
            package,
            modules: list("modules", preset.map_or(&[], |it| it.modules))?,
            extra: list("extra", preset.map_or(&[], |it| it.extra))?,
            snapshot,
            stale: table.text("stale")?.map(str::to_owned),
        })
    }
}

/// The moment that a snapshot archive's address names: a day's begins it.
fn moment(text: &str) -> Option<String> {
    let shape = |text: &str, shape: &str| {
        let fits = |(byte, wanted): (u8, u8)| if wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted };
        text.len() == shape.len() && text.bytes().zip(shape.bytes()).all(fits)
    };
    if shape(text, "0000-00-00") {
        return Some(format!("{}T000000Z", text.replace('-', "")));
    }
    shape(text, "00000000T000000Z").then(|| text.to_owned())
}

impl fmt::Display for AptArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "apt {} ({} of {})", self.package, self.suite, self.place())
    }
}

impl fmt::Display for LockedApt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} of {})", self.package, self.version, self.suite, self.archive)
    }
}

impl LockEntry for LockedApt {
    fn kernel(&self) -> KernelVersion {
        self.kernel
    }

    fn is_older_than(&self, before: &Locked) -> Result<bool> {
        let Locked::Apt(before) = before else { return Ok(false) };
        Ok(packages::compare(&self.version, &before.version)?.is_lt())
    }

    fn difference(&self, before: &Locked) -> String {
        let Locked::Apt(before) = before else { return "from another source".to_owned() };
        deb::difference((&before.sha256, &before.parts), (&self.sha256, &self.parts))
    }
}

impl AptArchive {
    /// A suite of an archive, for a list of its images. An address needs a keyring; a preset has one.
    pub(crate) fn suite(archive: &str, suite: &str, keyring: Option<&Path>) -> Option<Self> {
        let preset = PRESETS.iter().find(|it| it.name == archive);
        let keyring = keyring.or_else(|| preset.map(|it| Path::new(it.keyring)))?;
        let list = |list: &[&str]| list.iter().map(|&it| it.to_owned()).collect();
        // An address may be a mirror of either.
        let shape = preset.or_else(|| PRESETS.iter().find(|it| it.name == "ubuntu"));
        Some(Self {
            archive: archive.to_owned(),
            suite: suite.to_owned(),
            components: list(&["main"]),
            keyring: keyring.to_owned(),
            package: String::new(),
            modules: list(shape.map_or(&[], |it| it.modules)),
            extra: list(shape.map_or(&[], |it| it.extra)),
            snapshot: None,
            stale: None,
        })
    }

    /// All kernel packages that the suite has now.
    pub(crate) fn offers(&self, cache: &Path, debian: &Debian, progress: &dyn Fn(&str)) -> Result<Vec<ArchivePackage>> {
        let apt = self.open(cache, debian)?;
        apt.update(progress)?;
        apt.kernels()
    }

    /// The release in an image's name; `None` of another package, or one that follows the newest kernel.
    pub(crate) fn release(image: &str) -> Option<&str> {
        let release = IMAGES.iter().find_map(|prefix| image.strip_prefix(prefix))?;
        (release.starts_with(|c: char| c.is_ascii_digit()) && !release.ends_with("-dbg")).then_some(release)
    }

    /// An id for an image: the release, with the archive's name if it has one.
    pub(crate) fn id(&self, release: &str) -> String {
        let preset = PRESETS.iter().find(|it| it.name == self.archive);
        preset.map_or_else(|| release.to_owned(), |it| format!("{}-{release}", it.name))
    }

    /// The line of `kernels.toml` for an image; `None` if packages of its modules are gone.
    pub(crate) fn entry(&self, image: &ArchivePackage, packages: &[ArchivePackage]) -> Option<String> {
        let has = |name: String| packages.iter().any(|it| it.name == name && it.version == image.version);
        let preset = PRESETS.iter().find(|it| it.name == self.archive);
        let split = self.parts(&self.modules, &image.name).all(has);
        if preset.is_some() && !split {
            return None;
        }
        let mut keys = vec![format!("archive = {:?}, suite = {:?}", self.archive, self.suite)];
        if preset.is_none_or(|it| Path::new(it.keyring) != self.keyring) {
            keys.push(format!("keyring = {:?}", self.keyring.display().to_string()));
        }
        keys.push(format!("package = {:?}", image.name));
        // An image of an archive without a name may have its modules in it.
        if preset.is_none() && split {
            keys.push(format!("modules = {:?}, extra = {:?}", self.modules, self.extra));
        }
        Some(format!("source.apt = {{ {} }}", keys.join(", ")))
    }

    /// Archive and snapshot, for the lock and for messages.
    fn place(&self) -> String {
        match &self.snapshot {
            Some(moment) => format!("{} at {moment}", self.archive),
            None => self.archive.clone(),
        }
    }

    /// The archive's address.
    fn mirror(&self, debian: &Debian) -> Result<String> {
        Ok(match (&*self.archive, &self.snapshot) {
            ("debian", _) => mirror(debian, &self.suite)?,
            ("ubuntu", None) => ubuntus_mirror()?,
            ("ubuntu", Some(moment)) => format!("https://snapshot.ubuntu.com/ubuntu/{moment}"),
            (address, _) => address.to_owned(),
        })
    }

    fn open(&self, cache: &Path, debian: &Debian) -> Result<Apt> {
        match PRESETS.iter().find(|it| Path::new(it.keyring) == self.keyring) {
            Some(preset) => need_keyring(&self.keyring, preset.package)?,
            None if !self.keyring.is_file() => {
                let reason = "is no keyring: correct `keyring` of the `apt` source in kernels.toml".to_owned();
                return Err(KernelsError::BadKernel { path: self.keyring.clone(), reason });
            }
            None => {}
        }
        let mirror = self.mirror(debian)?;
        // What a snapshot has was valid at its moment only.
        let stale = self.stale.is_some() || self.snapshot.is_some();
        let (suite, components, keyring) = (&*self.suite, &*self.components, &*self.keyring);
        Apt::foreign(cache, &Foreign { mirror: &mirror, suite, components, keyring, stale })
    }

    fn wanted<'b>(&'b self, locked: Option<&'b Locked>) -> Result<LockedPackage<'b>> {
        let Some(Locked::Apt(LockedApt { suite, package, version, sha256, kernel, parts, .. })) = locked else {
            return Err(KernelsError::Unlocked);
        };
        Ok(LockedPackage {
            suite,
            pattern: &self.package,
            package,
            version,
            sha256,
            kernel: *kernel,
            whole: true,
            parts,
        })
    }

    /// The names of the packages of an image's modules.
    fn parts<'b>(&self, patterns: &'b [String], image: &'b str) -> impl Iterator<Item = String> + 'b {
        let release = IMAGES.iter().find_map(|prefix| image.strip_prefix(prefix)).unwrap_or(image);
        patterns.iter().map(move |pattern| pattern.replace(RELEASE, release))
    }

    fn choose(&self, packages: &[ArchivePackage]) -> Result<LockedApt> {
        let suite = format!("{} of {}", self.suite, self.place());
        let (image, kernel) = deb::choose(packages, &suite, &self.package)?;
        let find = |name: &String| packages.iter().find(|it| it.name == *name && it.version == image.version);
        let mut parts = Vec::new();
        for name in self.parts(&self.modules, &image.name) {
            let part = find(&name).ok_or_else(|| KernelsError::NoPackage {
                pattern: format!("{name} {}", image.version),
                suite: suite.clone(),
                nearest: format!(", which `modules` names for {}", image.name),
            })?;
            parts.push(PackagePart { package: name, sha256: part.sha256.clone() });
        }
        for name in self.parts(&self.extra, &image.name) {
            if let Some(part) = find(&name) {
                parts.push(PackagePart { package: name, sha256: part.sha256.clone() });
            }
        }
        Ok(LockedApt {
            archive: self.place(),
            suite: self.suite.clone(),
            package: image.name.clone(),
            version: image.version.clone(),
            sha256: image.sha256.clone(),
            kernel,
            parts,
        })
    }
}

/// Ubuntu's archive, or the mirror that the environment names.
fn ubuntus_mirror() -> Result<String> {
    const VARIABLE: &str = "NETKIT_LAB_UBUNTU_MIRROR";
    match std::env::var(VARIABLE).ok().filter(|value| !value.is_empty()) {
        None => Ok("http://archive.ubuntu.com/ubuntu".to_owned()),
        Some(address) => match objection(&address) {
            None => Ok(address),
            Some(_) => Err(KernelsError::BadMirror { mirror: "the value".to_owned(), origin: VARIABLE }),
        },
    }
}

impl KernelSource for AptArchive {
    fn promised(&self) -> Option<KernelVersion> {
        IMAGES.iter().find_map(|prefix| self.package.strip_prefix(prefix))?.parse().ok()
    }

    fn is_published(&self) -> bool {
        true
    }

    fn is_resolved_by(&self, locked: &Locked) -> bool {
        let Locked::Apt(it) = locked else { return false };
        let is_locked = |name: String| it.parts.iter().any(|part| part.package == name);
        it.archive == self.place()
            && deb::is_of(&self.suite, &self.package, (&it.suite, &it.package))
            && self.parts(&self.modules, &it.package).all(is_locked)
    }

    fn resolve(&self, site: &Site<'_>, indexes: &mut Indexes, progress: &dyn Fn(&str)) -> Result<Option<Locked>> {
        let writing = site.cache.write(WritePurpose::Fetch, progress)?;
        let apt = self.open(writing.root(), site.debian)?;
        let packages: &Vec<ArchivePackage> = indexes.get_or_read(apt.directory(), || {
            apt.update(progress)?;
            apt.kernels()
        })?;
        self.choose(packages).map(|locked| Some(Locked::Apt(locked)))
    }

    fn identity(&self, _: &Site<'_>, locked: Option<&Locked>) -> Result<Bound> {
        let wanted = self.wanted(locked)?;
        Ok(Bound { version: wanted.kernel, sha256: deb::identity_of(wanted.sha256, wanted.parts) })
    }

    fn fetch(&self, job: &Job<'_>) -> Result<CachedKernel> {
        let wanted = self.wanted(job.locked)?;
        deb::fetch(job, &self.open(job.writing.root(), job.site.debian)?, &wanted, true)
    }

    fn changelog(&self, site: &Site<'_>, locked: &Locked, progress: &dyn Fn(&str)) -> Result<String> {
        let wanted = self.wanted(Some(locked))?;
        let writing = site.cache.write(WritePurpose::Fetch, progress)?;
        wanted.changelog(&writing, &self.open(writing.root(), site.debian)?, progress)
    }
}

#[cfg(test)]
#[path = "apt_tests.rs"]
mod tests;
