//! Reads a suite's `Packages` index, and selects the kernel of a pattern.

use super::error::{KernelsError, Result};
use lab_base::{nearest::nearest, process};
use lab_protocol::KernelVersion;
use std::{
    cmp::Ordering,
    io::{self, BufRead},
};

/// One version of a package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ArchivePackage {
    pub name: String,
    pub version: String,
    pub sha256: String,
    /// Size of the `.deb`, bytes.
    pub size: u64,
    /// The packages with the kernel's files, if this package only depends on them: from 6.19 on, Debian has separate
    /// packages for image, modules and configuration (`linux-binary-*`, `linux-modules-*`, `linux-base-*`).
    pub parts: Vec<String>,
}

/// Number of packages in an error if none is similar to the pattern.
const SHOWN: usize = 8;

/// Name prefixes of kernel packages and of packages with kernel sources.
const PREFIXES: [&str; 5] = ["linux-image-", "linux-binary-", "linux-modules-", "linux-base-", "linux-source-"];

/// Reads the kernel packages of a `Packages` index (deb822: a stanza per package, separated by blank lines).
///
/// # Errors
/// Reading fails.
pub(super) fn kernels(mut index: impl BufRead) -> io::Result<Vec<ArchivePackage>> {
    let mut found = Vec::new();
    let mut package = ArchivePackage::default();
    let mut depends = String::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let end = index.read_until(b'\n', &mut line)? == 0;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        match text.split_once(": ") {
            Some(("Package", value)) => package.name = value.to_owned(),
            Some(("Version", value)) => package.version = value.to_owned(),
            Some(("SHA256", value)) => package.sha256 = value.to_owned(),
            Some(("Depends", value)) => depends = value.to_owned(),
            Some(("Size", value)) => package.size = value.parse().unwrap_or(0),
            _ => {}
        }
        if text.is_empty() {
            let (done, depends) = (std::mem::take(&mut package), std::mem::take(&mut depends));
            if PREFIXES.iter().any(|prefix| done.name.starts_with(prefix)) {
                let parts = parts(&depends, &done.version);
                found.push(ArchivePackage { parts, ..done });
            }
        }
        if end {
            return Ok(found);
        }
    }
}

/// The dependencies on exactly this version, if one of them is the image.
fn parts(depends: &str, version: &str) -> Vec<String> {
    let exactly = format!(" (= {version})");
    let names: Vec<String> =
        depends.split(", ").filter_map(|one| one.strip_suffix(&exactly)).map(str::to_owned).collect();
    if names.iter().any(|name| name.starts_with("linux-binary-")) { names } else { Vec::new() }
}

/// The highest version of the packages that match a pattern.
///
/// # Errors
/// The pattern matches nothing.
pub(super) fn newest<'a>(packages: &'a [ArchivePackage], pattern: &str, suite: &str) -> Result<&'a ArchivePackage> {
    let mut best: Option<&ArchivePackage> = None;
    for package in matching(packages, pattern) {
        best = match best {
            Some(other) if compare(&other.version, &package.version)? != Ordering::Less => Some(other),
            _ => Some(package),
        };
    }
    best.ok_or_else(|| {
        let images = packages.iter().map(|package| &*package.name).filter(|name| name.starts_with(PREFIXES[0]));
        let images: Vec<&str> = images.collect();
        let names = nearest(pattern, images.iter().copied());
        let nearest = match (names.is_empty(), &*images) {
            (_, []) => ", which has no kernels".to_owned(),
            (true, images) => {
                format!(" (it has {})", images.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", "))
            }
            (false, _) => format!(" (similar: {})", names.join(", ")),
        };
        KernelsError::NoPackage { pattern: pattern.to_owned(), suite: suite.to_owned(), nearest }
    })
}

/// Finds the locked version.
///
/// # Errors
/// The suite no longer has it; the error lists the current matches.
pub(super) fn locked<'a>(
    packages: &'a [ArchivePackage],
    name: &str,
    version: &str,
    pattern: &str,
    suite: &str,
) -> Result<&'a ArchivePackage> {
    packages.iter().find(|package| package.name == name && package.version == version).ok_or_else(|| {
        let mut now: Vec<_> = matching(packages, pattern)
            .map(|package| (package.version.parse::<KernelVersion>().ok(), &*package.version))
            .collect();
        now.sort();
        now.dedup();
        let now: Vec<&str> = now.iter().rev().take(5).map(|(_, version)| *version).collect();
        let available = if now.is_empty() { "no version that matches".to_owned() } else { now.join(", ") };
        KernelsError::Vanished { package: name.into(), version: version.into(), suite: suite.into(), available }
    })
}

fn matching<'a>(packages: &'a [ArchivePackage], pattern: &str) -> impl Iterator<Item = &'a ArchivePackage> {
    // The configuration was parsed, so the pattern is valid.
    let matcher = globset::Glob::new(pattern).ok().map(|glob| glob.compile_matcher());
    packages.iter().filter(move |package| matcher.as_ref().is_some_and(|matcher| matcher.is_match(&package.name)))
}

/// Compares Debian versions (with epochs and tildes) by `dpkg --compare-versions`.
pub(super) fn compare(left: &str, right: &str) -> Result<Ordering> {
    let holds = |relation: &str| {
        let args = ["--compare-versions", left, relation, right];
        let run = process::command("dpkg", args).unchecked().stderr_null().run();
        run.map(|output| output.status.success())
            .map_err(|error| process::start_error("dpkg --compare-versions", "dpkg", &error))
    };
    Ok(if holds("lt")? {
        Ordering::Less
    } else if holds("eq")? {
        Ordering::Equal
    } else {
        Ordering::Greater
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "\
Package: linux-image-6.12.9+deb12-cloud-amd64
Version: 6.12.9-1~deb12u1
Size: 100
SHA256: aa
Description: Linux 6.12 for x86-64 cloud (signed)

Package: bash
Version: 5

Package: linux-image-6.12.117+deb12-cloud-amd64
Version: 6.12.117-1~deb12u1
Size: 200
SHA256: bb

Package: linux-image-6.12.117+deb12-cloud-amd64-dbg
Version: 6.12.117-1~deb12u1
";
    const PATTERN: &str = "linux-image-6.12.*-cloud-amd64";

    fn index() -> Vec<ArchivePackage> {
        kernels(INDEX.as_bytes()).unwrap()
    }

    #[test]
    fn versions_are_compared_as_versions_not_as_text() {
        assert_eq!(index().len(), 3);
        let best = index();
        let best = newest(&best, PATTERN, "bookworm-security").unwrap();
        assert_eq!((&*best.sha256, best.size), ("bb", 200));
    }

    #[test]
    fn only_split_kernels_have_parts() {
        let index = "\
Package: linux-image-7.2.12
Version: 7.2.12-1
Depends: kmod, linux-base-7.2.12 (= 7.2.12-1), linux-binary-7.2.12 (= 7.2.12-1), linux-modules-7.2.12 (= 7.2.12-1)

Package: linux-image-6.18.5
Version: 6.18.5-1
Depends: kmod, linux-base-6.18.5 (= 6.18.5-1)
";
        let found = kernels(index.as_bytes()).unwrap();
        assert_eq!(found[0].parts, ["linux-base-7.2.12", "linux-binary-7.2.12", "linux-modules-7.2.12"]);
        assert!(found[1].parts.is_empty(), "the base package is not needed for booting");
    }

    #[test]
    fn an_error_about_a_removed_version_names_current_ones() {
        let name = "linux-image-6.12.8+deb12-cloud-amd64";
        insta::assert_snapshot!(locked(&index(), name, "6.12.8-1", PATTERN, "bookworm-security").unwrap_err(),
            @"bookworm-security no longer has linux-image-6.12.8+deb12-cloud-amd64 6.12.8-1; it now has 6.12.117-1~deb12u1, 6.12.9-1~deb12u1: run `lab kernels update`");
        insta::assert_snapshot!(locked(&index(), name, "6.12.8-1", "linux-image-9*", "sid").unwrap_err(),
            @"sid no longer has linux-image-6.12.8+deb12-cloud-amd64 6.12.8-1; it now has no version that matches: run `lab kernels update`");
    }

    #[test]
    fn an_error_about_a_pattern_without_match_names_similar_packages() {
        insta::assert_snapshot!(newest(&index(), "linux-image-6.12.*-claud-amd64", "sid").unwrap_err(),
            @"no package matches `linux-image-6.12.*-claud-amd64` in sid (similar: linux-image-6.12.9+deb12-cloud-amd64, linux-image-6.12.117+deb12-cloud-amd64, linux-image-6.12.117+deb12-cloud-amd64-dbg): fix `package` or `suite` in kernels.toml");
    }
}
