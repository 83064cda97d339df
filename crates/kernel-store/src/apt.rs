//! apt with its own state directory per suite: it uses the host's keyring, mirror and proxy, no other configuration of
//! the host, and installs nothing.

use super::{
    debian::Debian,
    error::{KernelsError, Result},
    files::Identity,
    mirror::mirror,
    packages::{self, ArchivePackage},
};
use lab_base::{arch::Architecture, process, transfer::Transfer};
use std::{
    ffi::OsStr,
    fs,
    io::BufReader,
    path::{Path, PathBuf},
};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const HELPER: &str = "/usr/lib/apt/apt-helper";
/// No file that apt writes while it downloads may be larger than this or than the file itself, bytes: apt has a cache of
/// its own.
const LEAST_LIMIT: u64 = 64 << 20;

/// Private configuration and state of apt in one directory, for one suite or several.
#[derive(Debug)]
pub struct AptState {
    config: PathBuf,
}

impl AptState {
    /// Writes the private configuration, without network access. `status` is the content of dpkg's status file: stanzas
    /// of packages that count as installed. The packages are those of one architecture.
    ///
    /// # Errors
    /// No mirror is known, the keyring is missing, or the directory can't be written.
    pub fn create(
        root: &Path,
        debian: &Debian,
        suites: &[&str],
        status: &str,
        architecture: Architecture,
    ) -> Result<Self> {
        need_keyring(Path::new(KEYRING), "debian-archive-keyring")?;
        let sources = suites.iter().map(|suite| Ok(source(&mirror(debian, suite)?, suite, debian, architecture)));
        Self::with_sources(root, &sources.collect::<Result<String>>()?, status, architecture)
    }

    /// The same with the lines of a sources file, or with none for [`Self::download`].
    fn with_sources(root: &Path, sources: &str, status: &str, architecture: Architecture) -> Result<Self> {
        for dir in ["etc", "state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(root.join(dir)).map_err(KernelsError::io(root))?;
        }
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            fs::write(&path, text).map_err(KernelsError::io(&path))
        };
        write("etc/sources.list", sources)?;
        write("status", status)?;
        write("apt.conf", &configuration(root, &proxies()?, architecture))?;
        Ok(Self { config: root.join("apt.conf") })
    }

    /// One that has no sources, for [`Self::download`].
    ///
    /// # Errors
    /// The directory can't be written.
    pub(super) fn without_sources(cache: &Path) -> Result<Self> {
        Self::with_sources(&cache.join("apt").join("files"), "", "", Architecture::default())
    }

    /// Downloads one file by apt's own methods: with the host's proxy, retries and certificates. What is at the address
    /// decides nothing: the caller compares size and digest.
    ///
    /// # Errors
    /// The network fails, there is no such file, or it is much larger than `size`, bytes.
    pub(super) fn download(&self, address: &str, size: u64, to: &Path, progress: &dyn Fn(&str)) -> Result<()> {
        // The method `file` copies nothing.
        let from = address.strip_prefix("file:").map_or_else(|| address.to_owned(), |path| format!("copy:{path}"));
        let limit = format!("--fsize={}", size.max(LEAST_LIMIT));
        let arguments =
            [limit.as_ref(), "--".as_ref(), HELPER.as_ref(), "download-file".as_ref(), from.as_ref(), to.as_os_str()];
        let command = self.command("prlimit", arguments);
        let name = address.rsplit('/').next().unwrap_or(address);
        let mut transfer = Transfer::new(name.to_owned(), size);
        let length = || to.metadata().map_or(0, |it| it.len());
        process::capture_watched(&format!("apt-helper download-file {address}"), "apt", command, &mut || {
            transfer.at(length(), progress);
        })?;
        Ok(())
    }

    /// A command of apt that uses this state.
    pub fn command<I>(&self, program: &str, args: I) -> duct::Expression
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        process::command(program, args).env("APT_CONFIG", &self.config)
    }

    /// Fetches the indexes; apt checks their signatures, and their dates unless `kernels.toml` has an exception.
    ///
    /// # Errors
    /// The network or the mirror fails, or a signature is invalid.
    pub fn update(&self, what: &str) -> Result<()> {
        // Without error-on=any a failed download is only a warning, and old lists would be used.
        let command = self.command("apt-get", ["-q", "update", "--error-on=any"]);
        process::capture(&format!("apt-get update of {what}"), "apt", command)?;
        Ok(())
    }
}

/// Refuses an absent keyring.
///
/// # Errors
/// It is no file; the error names its package.
pub(super) fn need_keyring(keyring: &Path, package: &'static str) -> Result<()> {
    if keyring.is_file() {
        return Ok(());
    }
    Err(KernelsError::MissingProgram { program: keyring.display().to_string(), package })
}

/// apt for one suite of an archive.
pub(super) struct Apt {
    /// Its name in messages.
    suite: String,
    /// Its directory's name in the cache, which no other archive has.
    directory: String,
    /// What in `kernels.toml` accepts an index that is too old.
    waiver: String,
    state: AptState,
}

/// A suite of an archive that is not the host's Debian mirror.
pub(super) struct Foreign<'a> {
    /// `scheme://host/path`.
    pub mirror: &'a str,
    pub suite: &'a str,
    pub components: &'a [String],
    /// The keys by which its index must be signed.
    pub keyring: &'a Path,
    /// Whether its index may be older than its `Valid-Until`.
    pub stale: bool,
}

impl Foreign<'_> {
    /// The line of the sources file.
    fn line(&self) -> String {
        let Self { mirror, suite, keyring, .. } = self;
        let expiry = if self.stale { " check-valid-until=no" } else { "" };
        let components = self.components.join(" ");
        format!("deb [arch=amd64 signed-by={}{expiry}] {mirror} {suite} {components}\n", keyring.display())
    }
}

impl Apt {
    /// Writes the private configuration, without network access.
    ///
    /// # Errors
    /// No mirror is known, the keyring is missing, or the cache can't be written.
    pub fn new(cache: &Path, debian: &Debian, suite: &str, architecture: Architecture) -> Result<Self> {
        let directory = match architecture.is_own() {
            true => suite.to_owned(),
            false => format!("{suite}-{architecture}"),
        };
        let state = AptState::create(&cache.join("apt").join(&directory), debian, &[suite], "", architecture)?;
        let waiver = format!("`stale.{suite} = \"reason\"` under [debian]");
        Ok(Self { suite: suite.to_owned(), directory, waiver, state })
    }

    /// The same for a suite of another archive. Its state is kept apart from that of every other archive.
    ///
    /// # Errors
    /// The cache can't be written.
    pub fn foreign(cache: &Path, archive: &Foreign<'_>) -> Result<Self> {
        let line = archive.line();
        let mut identity = Identity::default();
        identity.add(&line);
        let directory = format!("archive-{}", &identity.finish()[..16]);
        let state = AptState::with_sources(&cache.join("apt").join(&directory), &line, "", Architecture::default())?;
        let suite = format!("{} of {}", archive.suite, archive.mirror);
        let waiver = "`stale = \"reason\"` in its `source.apt`".to_owned();
        Ok(Self { suite, directory, waiver, state })
    }

    fn command<I>(&self, program: &str, args: I) -> duct::Expression
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.state.command(program, args)
    }

    /// The name of its directory in the cache, which no other archive has.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// Fetches the suite's index; apt checks its signature, and its date unless `kernels.toml` has an exception.
    ///
    /// # Errors
    /// The network or the mirror fails, or the signature is invalid.
    pub fn update(&self, progress: &dyn Fn(&str)) -> Result<()> {
        progress(&format!("reading the package index of {}", self.suite));
        self.state.update(&self.suite).map_err(|error| match error {
            KernelsError::Program { detail, .. } if detail.contains(" is expired ") => {
                KernelsError::Expired { suite: self.suite.clone(), detail, waiver: self.waiver.clone() }
            }
            other => other,
        })
    }

    /// The kernel packages in the index on disk; empty if the index was never fetched.
    ///
    /// # Errors
    /// apt can't read its own files.
    pub fn kernels(&self) -> Result<Vec<ArchivePackage>> {
        let args = ["indextargets", "--format", "$(FILENAME)", "Created-By: Packages"];
        let files = process::capture("apt-get indextargets", "apt", self.command("apt-get", args))?;
        let mut found = Vec::new();
        for file in files.lines().filter(|file| Path::new(file).exists()) {
            // The index on disk may be compressed.
            let reader = self.command(HELPER, ["cat-file", file]).stderr_null().reader();
            let reader = reader.map_err(|error| process::start_error(HELPER, "apt", &error))?;
            found.extend(packages::kernels(BufReader::new(reader)).map_err(KernelsError::io(file))?);
        }
        Ok(found)
    }

    /// Downloads a version of a package to `dir`, which must be empty.
    ///
    /// # Errors
    /// The index does not contain it, or the network fails.
    pub fn download(&self, package: &ArchivePackage, dir: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf> {
        progress(&format!("downloading {} {} ({} MiB)", package.name, package.version, package.size.div_ceil(1 << 20)));
        let wanted = format!("{}={}", package.name, package.version);
        let command = self.command("apt-get", ["-q", "download", &*wanted]).dir(dir);
        let what = format!("apt-get download {wanted}");
        let mut transfer = Transfer::new(package.name.clone(), package.size);
        process::capture_watched(&what, "apt", command, &mut || transfer.at(size_of(dir), progress))?;
        drop(transfer);
        let entries = fs::read_dir(dir).map_err(KernelsError::io(dir))?;
        let mut debs =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension() == Some("deb".as_ref()));
        debs.next().ok_or_else(|| KernelsError::Program {
            what: format!("apt-get download {wanted}"),
            detail: format!("no .deb appeared in {}", dir.display()),
        })
    }
}

/// Bytes of the files in a directory that a download writes to.
fn size_of(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).filter(|it| it.is_file()).map(|it| it.len()).sum()
}

/// The line of the sources file. `stale` disables the check of an index's date, but never of its signature.
fn source(mirror: &str, suite: &str, debian: &Debian, architecture: Architecture) -> String {
    let expiry = if debian.stale.contains_key(suite) { " check-valid-until=no" } else { "" };
    format!("deb [arch={architecture} signed-by={KEYRING}{expiry}] {mirror} {suite} main\n")
}

/// The host's proxy settings as configuration lines; behind a proxy no mirror can be reached without them.
fn proxies() -> Result<String> {
    let args = ["dump", "--no-empty", "--format", "%F \"%v\";%n", "Acquire"];
    let dump =
        process::capture("apt-config dump", "apt", process::command("apt-config", args).env_remove("APT_CONFIG"))?;
    Ok(dump.lines().filter(|line| line.contains("::Proxy")).map(|line| format!("{line}\n")).collect())
}

/// The content of the file named by `APT_CONFIG`: apt reads it first, and it disables the host's own files.
fn configuration(root: &Path, proxies: &str, architecture: Architecture) -> String {
    let root = root.display();
    format!(
        "\
Dir \"{root}/\";
Dir::State \"state\";
Dir::State::status \"{root}/status\";
Dir::Cache \"cache\";
Dir::Etc \"etc\";
Dir::Etc::main \"/dev/null\";
Dir::Etc::parts \"/dev/null\";
Dir::Etc::sourcelist \"sources.list\";
Dir::Etc::sourceparts \"/dev/null\";
Dir::Etc::preferences \"/dev/null\";
Dir::Etc::preferencesparts \"/dev/null\";
Dir::Etc::trusted \"/dev/null\";
Dir::Etc::trustedparts \"/dev/null\";
// Passwords for mirrors stay in the host's file.
Dir::Etc::netrc \"/etc/apt/auth.conf\";
Dir::Etc::netrcparts \"/etc/apt/auth.conf.d\";
APT::Architecture \"{architecture}\";
APT::Architectures {{ \"{architecture}\"; }};
// The _apt user can't write to a user's cache; apt would print a warning and continue without the sandbox.
APT::Sandbox::User \"root\";
Acquire::Languages \"none\";
Acquire::Retries \"2\";
Acquire::http::Timeout \"30\";
Acquire::https::Timeout \"30\";
{proxies}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listed_suite_may_be_stale_and_none_may_be_unsigned() {
        let debian = Debian { stale: [("sid".to_owned(), "it lags".to_owned())].into(), ..Debian::default() };
        let line = |suite| source("http://a.example/debian", suite, &debian, Architecture::default());
        assert_eq!(
            line("sid"),
            format!("deb [arch=amd64 signed-by={KEYRING} check-valid-until=no] http://a.example/debian sid main\n")
        );
        assert_eq!(
            line("trixie"),
            format!("deb [arch=amd64 signed-by={KEYRING}] http://a.example/debian trixie main\n")
        );
        let foreign = source("http://a.example/debian", "trixie", &debian, Architecture::Arm64);
        assert!(foreign.starts_with("deb [arch=arm64 signed-by="), "{foreign}");
        let configuration = configuration(Path::new("/x"), "", Architecture::Arm64);
        assert!(configuration.contains("APT::Architectures { \"arm64\"; };") && !configuration.contains("amd64"));
    }
}
