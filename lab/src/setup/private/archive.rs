//! The distribution's archive: resolves a set to its current packages, and downloads their files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::error::SetupError;
use super::super::progress::Progress;
use super::assumed::{AssumedVersions, unmet};
use super::sets::{PackageSet, Release};
use lab_base::interrupt::Interrupt;
use lab_base::process;
use lab_kernel_store::{AptState, Debian, KernelsError, sha256_of};

/// Supported releases, newest first.
const RELEASES: [&str; 2] = ["trixie", "bookworm"];

/// A package's file, as in the signed index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// File name in the download directory: `kmod_34.2-2_amd64.deb`.
    pub name: String,
    /// Size, bytes.
    pub size: u64,
    /// SHA-256 sum, hexadecimal.
    pub sha256: String,
}

impl File {
    /// Package and version.
    pub fn package(&self) -> (&str, String) {
        let mut parts = self.name.split('_');
        let name = parts.next().unwrap_or_default();
        (name, parts.next().unwrap_or_default().replace("%3a", ":"))
    }
}

/// A release's archive with its own apt state, separate from the host's.
#[derive(Debug)]
pub struct Archive {
    root: PathBuf,
    apt: AptState,
    suites: Vec<String>,
    assumed: AssumedVersions,
}

/// The suites of a release; the last ones may be missing on a mirror.
fn suites(release: &str, backports: bool) -> Vec<String> {
    let mut suites = vec![release.to_owned(), format!("{release}-updates"), format!("{release}-security")];
    if backports {
        suites.push(format!("{release}-backports"));
    }
    suites
}

/// The releases from which a set may be taken on a host of the given release, in the order of trying.
fn releases(wanted: Release, host: Option<&str>) -> Vec<&'static str> {
    match wanted {
        Release::Newest => RELEASES.to_vec(),
        // On other distributions the oldest: its programs link with any newer C library.
        Release::Own => {
            let own = RELEASES.into_iter().find(|release| Some(*release) == host);
            vec![own.unwrap_or(RELEASES[RELEASES.len() - 1])]
        }
    }
}

impl Archive {
    /// The first archive that has a set; its indexes are read.
    ///
    /// # Errors
    /// The error of the first archive, if none can be read.
    pub fn open(dir: &Path, set: &PackageSet, host: Option<&str>) -> Result<Self, SetupError> {
        let mut first = None;
        for release in releases(set.release, host) {
            let place = match set.architecture.is_own() {
                true => dir.join(release),
                false => dir.join(format!("{release}-{}", set.architecture)),
            };
            match Self::read(&place, release, set) {
                Ok(archive) => return Ok(archive),
                Err(error @ KernelsError::Interrupted { .. }) => return Err(error.into()),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.map_or_else(|| SetupError::NoArchive, SetupError::Archive))
    }

    fn read(root: &Path, release: &str, set: &PackageSet) -> Result<Self, KernelsError> {
        let suites = suites(release, set.release == Release::Newest);
        let assumed = AssumedVersions::default();
        // Both states of a release share the downloaded files.
        let apt = Self::state(root, &suites, set, &assumed)?;
        apt.update(release)?;
        Ok(Self { root: root.to_owned(), apt, suites, assumed })
    }

    fn state(
        root: &Path,
        suites: &[String],
        set: &PackageSet,
        assumed: &AssumedVersions,
    ) -> Result<AptState, KernelsError> {
        let names: Vec<&str> = suites.iter().map(String::as_str).collect();
        AptState::create(root, &Debian::default(), &names, &assumed.status(set), set.architecture)
    }

    /// The download directory.
    fn downloads(&self) -> PathBuf {
        self.root.join("cache/archives")
    }

    fn install(&self, set: &PackageSet, options: &[&str]) -> duct::Expression {
        let backports = self.suites.iter().filter(|suite| suite.ends_with("-backports"));
        let target = backports.flat_map(|suite| ["-t".to_owned(), suite.clone()]);
        let words = ["-q", "-y", "--no-install-recommends"].iter().chain(options).map(|word| (*word).to_owned());
        let roots = set.roots.iter().map(|root| (*root).to_owned());
        self.apt.command("apt-get", words.chain(target).chain(["install".to_owned()]).chain(roots))
    }

    /// The files of a set. Where the archive wants a package that counts as installed in a certain version, it counts as installed in
    /// that version.
    ///
    /// # Errors
    /// The release has not all of the packages.
    pub fn resolve(&mut self, set: &PackageSet) -> Result<Vec<File>, SetupError> {
        // apt does not list files that it has already downloaded, so give it an empty directory.
        let none = self.root.join("none");
        fs::create_dir_all(none.join("partial")).map_err(SetupError::io(&none))?;
        let empty = format!("Dir::Cache::archives={}/", none.display());
        // By default apt prints MD5 sums even if the index has better ones.
        let options = ["--print-uris", "-o", &empty, "-o", "Acquire::ForceHash=SHA256"];
        let step = "apt-get --print-uris";
        // Each round learns about one package at least.
        loop {
            let command = self.install(set, &options).stdout_capture().stderr_capture();
            let output = process::to_end(&command, |_| Interrupt::raised().is_some());
            let output = output.map_err(|error| process::start_error(step, "apt", &error))?;
            let output = output.ok_or_else(|| KernelsError::Interrupted { what: step.to_owned() })?;
            let said = String::from_utf8_lossy(&output.stdout);
            if !output.status.success() && self.assumed.learn(set, &said) {
                self.apt = Self::state(&self.root, &self.suites, set, &self.assumed)?;
                continue;
            }
            let unmet = unmet(&said);
            if !output.status.success() && !unmet.is_empty() {
                return Err(SetupError::NotOffered { packages: format!("{} ({unmet})", set.roots.join(", ")) });
            }
            let files: Vec<File> = process::success(step, &output)?.lines().filter_map(file).collect();
            if files.is_empty() {
                return Err(SetupError::NotOffered { packages: set.roots.join(", ") });
            }
            return Ok(files);
        }
    }

    /// Downloads the files of a set and checks their sums. Continues the downloads of an interrupted setup.
    ///
    /// # Errors
    /// The download failed, or a file does not match the index.
    pub fn download(
        &self,
        set: &PackageSet,
        files: &[File],
        progress: &mut Progress<'_>,
    ) -> Result<Vec<PathBuf>, SetupError> {
        let total: u64 = files.iter().map(|file| file.size).sum();
        let dir = self.downloads();
        let command = self.install(set, &["--download-only"]).stdout_capture().stderr_capture();
        progress.bytes("downloading", 0, total);
        let step = format!("apt-get --download-only of {}", set.label);
        let output = process::to_end(&command, |elapsed| {
            if elapsed > Duration::ZERO {
                progress.bytes("downloading", there(&dir, files), total);
            }
            Interrupt::raised().is_some()
        });
        let output = output.map_err(|error| process::start_error(&step, "apt", &error))?;
        let output = output.ok_or_else(|| KernelsError::Interrupted { what: step.clone() })?;
        process::success(&step, &output)?;
        files.iter().map(|file| checked(&dir, file)).collect()
    }
}

/// Number of bytes of the files that have been downloaded.
fn there(dir: &Path, files: &[File]) -> u64 {
    let size = |path: PathBuf| fs::metadata(path).map(|metadata| metadata.len()).ok();
    let of = |file: &File| size(dir.join(&file.name)).or_else(|| size(dir.join("partial").join(&file.name)));
    files.iter().filter_map(of).sum()
}

/// apt checks what it downloads, but not files that an earlier setup left.
fn checked(dir: &Path, file: &File) -> Result<PathBuf, SetupError> {
    let path = dir.join(&file.name);
    let found = sha256_of(&path)?;
    if found == file.sha256 {
        return Ok(path);
    }
    fs::remove_file(&path).map_err(SetupError::io(&path))?;
    Err(SetupError::Checksum { file: file.name.clone(), found, wanted: file.sha256.clone() })
}

/// Parses a line of `apt-get --print-uris`: `'http://…' kmod_34.2-2_amd64.deb 95704 SHA256:…`.
fn file(line: &str) -> Option<File> {
    let mut words = line.strip_prefix('\'')?.split_whitespace().skip(1);
    let (name, size, sum) = (words.next()?, words.next()?, words.next()?);
    Some(File { name: name.to_owned(), size: size.parse().ok()?, sha256: sum.strip_prefix("SHA256:")?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_read_from_the_line_that_apt_prints() {
        let sum = "a".repeat(64);
        let line = format!("'http://m.example/x%3a1.deb' seabios_1%3a1.16-2_all.deb 1234 SHA256:{sum}");
        let found = file(&line).unwrap();
        assert_eq!(found, File { name: "seabios_1%3a1.16-2_all.deb".into(), size: 1234, sha256: sum });
        assert_eq!(found.package(), ("seabios", "1:1.16-2".to_owned()));
        assert_eq!(file("Need to get 24.5 MB of archives."), None);
        assert_eq!(file("'http://m.example/x.deb' x_1_all.deb 12 MD5Sum:00"), None, "an MD5 sum is not accepted");
    }

    #[test]
    fn a_set_linked_with_the_hosts_compiler_comes_from_the_hosts_release() {
        assert_eq!(releases(Release::Newest, Some("bookworm")), ["trixie", "bookworm"]);
        assert_eq!(releases(Release::Own, Some("trixie")), ["trixie"]);
        assert_eq!(releases(Release::Own, Some("noble")), ["bookworm"]);
        assert_eq!(releases(Release::Own, None), ["bookworm"]);
    }

    #[test]
    fn a_file_that_does_not_match_the_index_is_refused_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x_1_all.deb"), "other").unwrap();
        let file = File { name: "x_1_all.deb".into(), size: 5, sha256: "0".repeat(64) };
        assert_eq!(there(dir.path(), std::slice::from_ref(&file)), 5);
        let error = checked(dir.path(), &file).unwrap_err().to_string();
        assert!(error.starts_with("x_1_all.deb has the SHA-256 sum "), "{error}");
        assert!(!dir.path().join("x_1_all.deb").exists(), "the next setup downloads it again");
    }
}
