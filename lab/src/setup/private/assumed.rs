//! Packages that count as installed while a set is resolved: the host has them, or nobody needs them.

use std::collections::BTreeMap;

use super::sets::PackageSet;

/// Higher than any version, also than one with an epoch.
const HIGHEST: &str = "9:999";

/// The versions that packages of a set count as installed in, where [`HIGHEST`] does not do: `None` for a package that does not count
/// as installed any more. An archive that moves on may ask for one version exactly, of a package of which it asked for no version before.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AssumedVersions(BTreeMap<String, Option<String>>);

impl AssumedVersions {
    /// dpkg's status file: a stanza for each package.
    pub fn status(&self, set: &PackageSet) -> String {
        set.assumed()
            .filter_map(|(name, provides)| {
                let version = self.0.get(*name).map_or(Some(HIGHEST), Option::as_deref)?;
                Some(stanza(set, name, provides, version))
            })
            .collect()
    }

    /// Takes over what apt says of the set's packages where it finds no way to install the others. Returns whether anything is
    /// different now.
    pub fn learn(&mut self, set: &PackageSet, said: &str) -> bool {
        let mut learned = false;
        for unmet in said.lines().filter_map(Unmet::parse) {
            if !set.assumed().any(|(name, _)| *name == unmet.name) {
                continue;
            }
            // Where two packages want two versions, neither is assumed.
            let known = self.0.contains_key(unmet.name);
            let version = (unmet.relation == "=" && !known).then(|| unmet.version.to_owned());
            learned |= self.0.insert(unmet.name.to_owned(), version.clone()) != Some(version);
        }
        learned
    }
}

fn stanza(set: &PackageSet, name: &str, provides: &str, version: &str) -> String {
    let provides = if provides.is_empty() { String::new() } else { format!("Provides: {provides}\n") };
    // Libraries must have the host's architecture, all other packages may have any.
    let own = set.architecture.name();
    let (architecture, multi) = match name {
        "python3" => (own, "allowed"),
        name if name.starts_with("lib") => (own, "same"),
        _ => ("all", "foreign"),
    };
    format!(
        "Package: {name}\nStatus: install ok installed\nArchitecture: {architecture}\nMulti-Arch: {multi}\n\
         Version: {version}\n{provides}Maintainer: nobody <nobody@example.org>\nDescription: assumed\n\n"
    )
}

/// A dependency that apt can't meet.
struct Unmet<'a> {
    name: &'a str,
    relation: &'a str,
    version: &'a str,
}

impl<'a> Unmet<'a> {
    /// ` llvm-22-dev : Depends: libclang-cpp22 (= 1:22.1.8-1~deb12u1) but 9:999 is to be installed`; a package's further dependencies
    /// are on lines of their own, without its name.
    fn parse(line: &'a str) -> Option<Self> {
        let (_, wanted) = line.split_once("Depends: ")?;
        let (wanted, _) = wanted.split_once(") but ")?;
        let (name, demand) = wanted.split_once(" (")?;
        let (relation, version) = demand.split_once(' ')?;
        // `python3:any`
        Some(Self { name: name.split(':').next()?, relation, version })
    }
}

/// The lines in which apt names what it can't meet, in one.
pub fn unmet(said: &str) -> String {
    let lines = said.lines().filter(|line| line.contains("Depends: ") && line.contains(" but "));
    lines.map(str::trim).take(3).collect::<Vec<_>>().join(" / ")
}

#[cfg(test)]
mod tests {
    use super::super::sets::{ARM64_LIBRARIES, BPF};
    use super::*;

    const SAID: &str = "Reading package lists...\nThe following packages have unmet dependencies:\n \
        llvm-22-dev : Depends: libclang-cpp22 (= 1:22.1.8-1~deb12u1) but 9:999 is to be installed\n               \
        Depends: gcc (< 99) but 9:999 is to be installed\n               \
        Depends: stranger (= 1) but it is not installable\n\
        E: Unable to correct problems, you have held broken packages.\n";

    fn of(status: &str, package: &str) -> Option<String> {
        let stanza = status.split("\n\n").find(|stanza| stanza.starts_with(&format!("Package: {package}\n")))?;
        stanza.lines().find_map(|line| line.strip_prefix("Version: ")).map(str::to_owned)
    }

    #[test]
    fn the_dpkg_status_contains_the_assumed_packages() {
        let status = AssumedVersions::default().status(&BPF);
        assert!(status.contains("Package: gcc\nStatus: install ok installed\nArchitecture: all\n"), "{status}");
        assert!(status.contains("Multi-Arch: same\nVersion: 9:999\nProvides: libc-dev\n"), "{status}");
        assert_eq!(status.matches("\n\n").count(), BPF.assumed().count());
    }

    #[test]
    fn packages_of_another_architecture_assume_libraries_of_it() {
        let status = AssumedVersions::default().status(&ARM64_LIBRARIES);
        assert!(status.contains("Package: libtsan2\nStatus: install ok installed\nArchitecture: arm64\n"), "{status}");
    }

    #[test]
    fn a_version_that_is_wanted_exactly_is_assumed() {
        let mut versions = AssumedVersions::default();
        assert!(versions.learn(&BPF, SAID));
        let status = versions.status(&BPF);
        assert_eq!(of(&status, "libclang-cpp22").as_deref(), Some("1:22.1.8-1~deb12u1"));
        assert_eq!(of(&status, "gcc"), None, "no version is known that is low enough");
        assert_eq!(of(&status, "python3").as_deref(), Some("9:999"));
        assert!(unmet(SAID).starts_with("llvm-22-dev : Depends: libclang-cpp22 (= "), "{}", unmet(SAID));
    }

    #[test]
    fn two_versions_of_one_package_end_in_none() {
        let mut versions = AssumedVersions::default();
        let said = |version: &str| format!(" x : Depends: libclang-cpp22 (= {version}) but y is to be installed\n");
        assert!(versions.learn(&BPF, &said("1")));
        assert!(versions.learn(&BPF, &said("2")));
        assert_eq!(of(&versions.status(&BPF), "libclang-cpp22"), None);
        assert!(!versions.learn(&BPF, &said("3")), "nothing more to learn");
        assert!(!versions.learn(&BPF, "E: Unable to correct problems, you have held broken packages.\n"));
    }
}
