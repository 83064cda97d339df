//! Proposes entries of `kernels.toml` for the kernels that Debian's suites offer now.

use super::{
    class::KernelClass,
    error::{KernelsError, Result},
    lockfile::KernelsLock,
    packages::ArchivePackage,
};
use lab_protocol::KernelVersion;
use serde::Serialize;
use std::fmt;

/// A kernel that the matrix does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LadderStep {
    pub id: String,
    pub class: KernelClass,
    pub suite: String,
    pub package: String,
    /// Version of the package.
    pub version: String,
    pub kernel: KernelVersion,
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
                suite: suite.to_owned(),
                package: package.name.clone(),
                version: package.version.clone(),
                kernel,
            });
        }
        self.steps.sort_by_key(|it| it.kernel);
        let is_offered = |it: &String| !self.steps.iter().any(|step| it.ends_with(&format!(" {}", step.version)));
        self.incomplete.retain(is_offered);
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
        for LadderStep { id, class, suite, package, version, .. } in &self.steps {
            writeln!(f, "# {package} {version}")?;
            writeln!(f, "[kernels.\"{id}\"]\nclass = \"{class}\"")?;
            writeln!(f, "source.deb = {{ suite = \"{suite}\", package = \"{package}\" }}\n")?;
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
