//! Proposes entries of `kernels.toml` for the kernels that Debian's suites, another archive or a tree of releases offer now.

use super::{
    cache::WritePurpose,
    class::KernelClass,
    error::{KernelsError, Result},
    lockfile::KernelsLock,
    mirror::objection,
    packages::ArchivePackage,
    source::{AptArchive, Indexes, Locked, of_suite},
    store::KernelStore,
};
use lab_base::arch::Architecture;
use lab_protocol::KernelVersion;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

/// A kernel that the matrix does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LadderStep {
    pub id: String,
    pub class: KernelClass,
    /// Suite of a package; `None` for a tag.
    pub suite: Option<String>,
    /// Package, or tag.
    pub package: String,
    /// Version of the package, or of the tag.
    pub version: String,
    pub kernel: KernelVersion,
    /// Its `source.…` line in `kernels.toml`.
    pub source: String,
    /// Why its probes decide what it must have, where its version does not tell.
    pub believe: Option<String>,
}

/// What the suites offer, oldest kernels first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KernelLadder {
    pub steps: Vec<LadderStep>,
    /// Kernels of which an archive has dropped packages: suite, name and version.
    pub incomplete: Vec<String>,
}

impl KernelLadder {
    /// Adds the kernels of a suite from `since` on whose package matches and that neither `known` nor the ladder has.
    pub(super) fn add(
        &mut self,
        suite: &str,
        packages: &[ArchivePackage],
        pattern: &globset::GlobMatcher,
        since: KernelVersion,
        known: &KernelsLock,
    ) {
        for package in packages.iter().filter(|it| pattern.is_match(&it.name)) {
            // Meta-packages name no version, and follow the newest kernel.
            let named = package
                .name
                .strip_prefix("linux-image-")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            let Ok(kernel) = package.version.parse::<KernelVersion>() else { continue };
            if !named || package.name.ends_with("-dbg") || kernel < since {
                continue;
            }
            let locked = known.kernels.values().any(|it| it.get().kernel() == kernel);
            if locked || self.steps.iter().any(|it| it.kernel == kernel) {
                continue;
            }
            let has = |part: &String| packages.iter().any(|it| it.name == *part && it.version == package.version);
            if !package.parts.iter().all(has) {
                self.incomplete.push(format!("{suite}: {} {}", package.name, package.version));
                continue;
            }
            let class = if KernelClass::From67.holds(kernel) { KernelClass::From67 } else { KernelClass::Below67 };
            self.steps.push(LadderStep {
                id: kernel.to_string(),
                class,
                suite: Some(suite.to_owned()),
                package: package.name.clone(),
                version: package.version.clone(),
                kernel,
                source: format!("source.deb = {{ suite = \"{suite}\", package = \"{}\" }}", package.name),
                believe: None,
            });
        }
        self.sort();
    }

    /// Adds the images of an apt archive's suite. Several builds of one version are several kernels there.
    pub(super) fn add_images(
        &mut self,
        of: &AptArchive,
        packages: &[ArchivePackage],
        pattern: &globset::GlobMatcher,
        since: KernelVersion,
        known: &KernelsLock,
    ) {
        for package in packages.iter().filter(|it| pattern.is_match(&it.name)) {
            let Ok(kernel) = package.version.parse::<KernelVersion>() else { continue };
            let Some(release) = AptArchive::release(&package.name).filter(|_| kernel >= since) else { continue };
            let is_locked = |it: &Locked| matches!(it, Locked::Apt(it) if (&it.package, &it.version) == (&package.name, &package.version));
            let is_known = |it: &LadderStep| it.package == package.name && it.version == package.version;
            if known.kernels.values().any(is_locked) || self.steps.iter().any(is_known) {
                continue;
            }
            let Some(source) = of.entry(package, packages) else {
                self.incomplete.push(format!("{}: {} {}", of.suite, package.name, package.version));
                continue;
            };
            // The package of a later suite replaces that of an earlier one.
            self.steps.retain(|it| it.package != package.name);
            self.steps.push(LadderStep {
                id: of.id(release),
                class: if KernelClass::From67.holds(kernel) { KernelClass::From67 } else { KernelClass::Below67 },
                suite: Some(of.suite.clone()),
                package: package.name.clone(),
                version: package.version.clone(),
                kernel,
                source,
                believe: Some("the package's version does not name the stable release that it contains".to_owned()),
            });
        }
        self.sort();
    }

    /// Adds the newest release of each series among the tags of a kernel tree.
    pub(super) fn add_tags(
        &mut self,
        tree: &Path,
        tags: impl Iterator<Item = impl AsRef<str>>,
        since: KernelVersion,
        known: &KernelsLock,
    ) {
        let mut newest: BTreeMap<(u16, u16), (KernelVersion, String)> = BTreeMap::new();
        for tag in tags {
            let tag = tag.as_ref().trim();
            // Candidates have `-rc`.
            let is_release = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            let kernel = tag.strip_prefix('v').filter(is_release).and_then(|text| text.parse::<KernelVersion>().ok());
            let Some(kernel) = kernel.filter(|kernel| *kernel >= since) else { continue };
            let of_series = newest.entry((kernel.major, kernel.minor)).or_insert_with(|| (kernel, tag.to_owned()));
            if of_series.0 < kernel {
                *of_series = (kernel, tag.to_owned());
            }
        }
        for (kernel, tag) in newest.into_values() {
            if known.kernels.values().any(|it| it.get().kernel() == kernel) {
                continue;
            }
            self.steps.push(LadderStep {
                id: kernel.to_string(),
                class: if KernelClass::From67.holds(kernel) { KernelClass::From67 } else { KernelClass::Below67 },
                suite: None,
                source: format!("source.git = {{ tree = {:?}, ref = \"{tag}\" }}", tree.display().to_string()),
                version: kernel.to_string(),
                package: tag,
                kernel,
                believe: None,
            });
        }
        self.sort();
    }

    fn sort(&mut self) {
        self.steps.sort_by(|a, b| (a.kernel, &a.version).cmp(&(b.kernel, &b.version)));
        let is_offered = |it: &String| !self.steps.iter().any(|step| it.ends_with(&format!(" {}", step.version)));
        self.incomplete.retain(is_offered);
    }
}

impl KernelStore<'_> {
    /// The kernels from `since` on that Debian's suites offer now and that the lock does not have. Without suites, those of
    /// the `deb` sources in `kernels.toml`.
    ///
    /// # Errors
    /// The pattern is invalid, there is no suite, or an index can't be fetched.
    pub fn ladder(
        &self,
        suites: &[String],
        pattern: &str,
        since: KernelVersion,
        lock: &KernelsLock,
        progress: &dyn Fn(&str),
    ) -> Result<KernelLadder> {
        let pattern = self::pattern(pattern)?;
        let known = self.config.kernels.iter().filter_map(|kernel| kernel.source.suite_of_debian());
        let own: BTreeSet<&str> = known.collect();
        let named: BTreeSet<&str> = suites.iter().map(|suite| &**suite).collect();
        let writing = self.cache.write(WritePurpose::Fetch, progress)?;
        let mut indexes = Indexes::default();
        let mut found = KernelLadder::default();
        for suite in if named.is_empty() { own } else { named } {
            let debian = &self.config.debian;
            let packages = of_suite(&mut indexes, writing.root(), debian, (suite, Architecture::default()), progress)?;
            found.add(suite, packages, &pattern, since, lock);
        }
        Ok(found)
    }

    /// The images from `since` on that suites of an apt archive offer now and that the lock does not have. `archive` is
    /// `ubuntu` or an address, which needs a keyring. Without suites, those of its sources in `kernels.toml`.
    ///
    /// # Errors
    /// The pattern is invalid, no suite or keyring is known, or an index can't be fetched.
    pub fn ladder_of_archive(
        &self,
        (archive, keyring): (&str, Option<&Path>),
        suites: &[String],
        (pattern, since): (&str, KernelVersion),
        lock: &KernelsLock,
        progress: &dyn Fn(&str),
    ) -> Result<KernelLadder> {
        let pattern = self::pattern(pattern)?;
        let known = self.config.kernels.iter().filter_map(|kernel| kernel.source.suite_of_archive(archive));
        let known: BTreeSet<&str> = known.collect();
        let named: Vec<&str> = suites.iter().map(|suite| &**suite).collect();
        let suites = if named.is_empty() { known.into_iter().collect() } else { named };
        let lacks = |what| KernelsError::NoLadder { archive: archive.to_owned(), what };
        if let Some(wrong) = objection(archive).filter(|_| archive.contains(":/")) {
            return Err(KernelsError::NoLadder { archive: "the archive's address".to_owned(), what: wrong });
        }
        if suites.is_empty() {
            return Err(lacks("kernels.toml has no source of its suites: name them by --suite"));
        }
        let writing = self.cache.write(WritePurpose::Fetch, progress)?;
        let mut found = KernelLadder::default();
        for suite in suites {
            let of = AptArchive::suite(archive, suite, keyring);
            let of = of.ok_or_else(|| lacks("name the keys by which it is signed by --keyring"))?;
            found.add_images(&of, &of.offers(writing.root(), &self.config.debian, progress)?, &pattern, since, lock);
        }
        Ok(found)
    }

    /// The newest release of each series from `since` on among the tags of a kernel tree, that the lock does not have.
    ///
    /// # Errors
    /// It is no git repository.
    pub fn ladder_of_tags(tree: &Path, since: KernelVersion, lock: &KernelsLock) -> Result<KernelLadder> {
        let tags = lab_base::git::git(tree, ["tag", "--list", "v*"])?;
        let mut found = KernelLadder::default();
        found.add_tags(tree, tags.lines(), since, lock);
        Ok(found)
    }
}

/// The glob of packages, or the error of the command line.
///
/// # Errors
/// It is no pattern.
pub(super) fn pattern(text: &str) -> Result<globset::GlobMatcher> {
    let glob = globset::Glob::new(text);
    let glob =
        glob.map_err(|error| KernelsError::BadPattern { pattern: text.to_owned(), reason: error.kind().to_string() });
    glob.map(|glob| glob.compile_matcher())
}

/// Tables of `kernels.toml`.
impl fmt::Display for KernelLadder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for LadderStep { id, class, package, version, source, believe, .. } in &self.steps {
            writeln!(f, "# {package} {version}")?;
            writeln!(f, "[kernels.\"{id}\"]\nclass = \"{class}\"")?;
            if let Some(reason) = believe {
                writeln!(f, "believe = \"probes\"\nreason = \"{reason}\"")?;
            }
            writeln!(f, "{source}\n")?;
        }
        for package in &self.incomplete {
            writeln!(f, "# left out, packages of it are gone: {package}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KernelMatrix, packages};

    const INDEX: &str = "\
Package: linux-image-6.1.0-56-cloud-amd64
Version: 6.1.192-2

Package: linux-image-6.12.94+deb13-cloud-amd64
Version: 6.12.94-1

Package: linux-image-6.12.94+deb13-amd64
Version: 6.12.94-1

Package: linux-image-cloud-amd64
Version: 6.12.117-1

Package: linux-image-6.12.117+deb13-cloud-amd64
Version: 6.12.117-1

Package: linux-image-7.0.4-cloud-amd64
Version: 7.0.4-1
Depends: linux-binary-7.0.4 (= 7.0.4-1), linux-modules-7.0.4 (= 7.0.4-1)

Package: linux-binary-7.0.4
Version: 7.0.4-1

Package: linux-image-5.10.0-40-cloud-amd64
Version: 5.10.262-1
";

    #[test]
    fn the_newest_release_of_each_series_is_proposed() {
        let mut ladder = KernelLadder::default();
        let tags = ["v6.12", "v6.12.9", "v6.12.57", "v6.13-rc1", "v6.6.100", "v5.4.1", "next-20260101", "v6.17.8"];
        let lock = "[kernels.a]\nsource = \"git\"\nref = \"v6.17.8\"\ncommit = \"aa\"\nkernel = \"6.17.8\"\n";
        let lock = KernelsLock::parse(lock, "kernels.lock").unwrap();
        ladder.add_tags("linux".as_ref(), tags.iter(), "6.1".parse().unwrap(), &lock);
        let text = ladder.to_string();
        let found: Vec<&str> = ladder.steps.iter().map(|it| &*it.package).collect();
        assert_eq!(found, ["v6.6.100", "v6.12.57"], "{text}");
        let whole = text.replacen("source.git", "default = true\nsource.git", 1);
        assert_eq!(KernelMatrix::parse(&whole, "kernels.toml", "/lab".into()).unwrap().kernels.len(), 2);
    }

    #[test]
    fn what_the_matrix_lacks_is_a_table_that_can_be_pasted() {
        let lock = "[kernels.\"6.12\"]\nsource = \"deb\"\nsuite = \"trixie\"\npackage = \"x\"\nversion = \"6.12.117-1\"\n\
                    sha256 = \"aa\"\nkernel = \"6.12.117\"\n";
        let lock = KernelsLock::parse(lock, "kernels.lock").unwrap();
        let packages = packages::kernels(INDEX.as_bytes()).unwrap();
        let mut ladder = KernelLadder::default();
        let pattern = pattern("linux-image-*-cloud-amd64").unwrap();
        for suite in ["trixie", "trixie-security"] {
            ladder.add(suite, &packages, &pattern, "6.1".parse().unwrap(), &lock);
        }
        let text = ladder.to_string();
        assert_eq!(text.matches("[kernels.").count(), 2, "{text}");
        assert!(text.contains("[kernels.\"6.1.192\"]\nclass = \"below-6.7\"\n"), "{text}");
        assert!(text.contains("package = \"linux-image-6.12.94+deb13-cloud-amd64\" }"), "{text}");
        assert!(
            text.contains("# left out, packages of it are gone: trixie: linux-image-7.0.4-cloud-amd64 7.0.4-1"),
            "{text}"
        );
        let whole = text.replacen("source.deb", "default = true\nsource.deb", 1);
        assert_eq!(KernelMatrix::parse(&whole, "kernels.toml", "/lab".into()).unwrap().kernels.len(), 2);
    }
}
