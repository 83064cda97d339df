//! apt with a state directory of its own, one per suite: the host's keyring and mirror, nothing else of the host's
//! configuration but its proxy, and nothing installed.

use super::{
    config::Debian,
    error::{KernelsError, Result},
    mirror::mirror,
    packages::{self, Package},
};
use lab_base::process;
use std::{
    ffi::OsStr,
    fs,
    io::BufReader,
    path::{Path, PathBuf},
};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const HELPER: &str = "/usr/lib/apt/apt-helper";

/// A configuration and a state of apt's own below one directory, for one suite or several.
#[derive(Debug)]
pub struct AptState {
    config: PathBuf,
}

impl AptState {
    /// Writes the private configuration. Touches no network. `status` is what dpkg is made to believe in: stanzas of
    /// installed packages.
    ///
    /// # Errors
    /// No mirror is known, the keyring is absent, or the directory cannot be written.
    pub fn create(root: &Path, debian: &Debian, suites: &[&str], status: &str) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            return Err(KernelsError::MissingProgram { program: KEYRING.into(), package: "debian-archive-keyring" });
        }
        for dir in ["etc", "state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(root.join(dir)).map_err(KernelsError::io(root))?;
        }
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            fs::write(&path, text).map_err(KernelsError::io(&path))
        };
        let sources = suites.iter().map(|suite| Ok(source(&mirror(debian, suite)?, suite, debian)));
        write("etc/sources.list", &sources.collect::<Result<String>>()?)?;
        write("status", status)?;
        write("apt.conf", &configuration(root, &proxies()?))?;
        Ok(Self { config: root.join("apt.conf") })
    }

    /// A program of apt's that works with this state.
    pub fn command<I>(&self, program: &str, args: I) -> duct::Expression
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        process::command(program, args).env("APT_CONFIG", &self.config)
    }

    /// Fetches the indexes; apt checks their signatures, and their dates unless `kernels.toml` waives that.
    ///
    /// # Errors
    /// The network, the mirror or a signature.
    pub fn update(&self, what: &str) -> Result<()> {
        // Without error-on=any a failed download is a mere warning and old lists pass for new ones.
        let command = self.command("apt-get", ["-q", "update", "--error-on=any"]);
        process::capture(&format!("apt-get update of {what}"), "apt", command)?;
        Ok(())
    }
}

/// apt for one suite.
pub(super) struct Apt {
    suite: String,
    state: AptState,
}

impl Apt {
    /// Writes the private configuration. Touches no network.
    ///
    /// # Errors
    /// No mirror is known, the keyring is absent, or the cache cannot be written.
    pub fn new(cache: &Path, debian: &Debian, suite: &str) -> Result<Self> {
        let state = AptState::create(&cache.join("apt").join(suite), debian, &[suite], "")?;
        Ok(Self { suite: suite.to_owned(), state })
    }

    fn command<I>(&self, program: &str, args: I) -> duct::Expression
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.state.command(program, args)
    }

    /// Fetches the suite's index; apt checks its signature, and its date unless `kernels.toml` waives that.
    ///
    /// # Errors
    /// The network, the mirror or the signature.
    pub fn update(&self, progress: &dyn Fn(&str)) -> Result<()> {
        progress(&format!("reading the package index of {}", self.suite));
        self.state.update(&self.suite).map_err(|error| match error {
            KernelsError::Program { detail, .. } if detail.contains(" is expired ") => {
                KernelsError::Expired { suite: self.suite.clone(), detail }
            }
            other => other,
        })
    }

    /// The kernel packages in the index on disk; none where it was never fetched.
    ///
    /// # Errors
    /// apt cannot read its own files.
    pub fn kernels(&self) -> Result<Vec<Package>> {
        let args = ["indextargets", "--format", "$(FILENAME)", "Created-By: Packages"];
        let files = process::capture("apt-get indextargets", "apt", self.command("apt-get", args))?;
        let mut found = Vec::new();
        for file in files.lines().filter(|file| Path::new(file).exists()) {
            // The index may lie compressed on disk, in whichever way apt preferred.
            let reader = self.command(HELPER, ["cat-file", file]).stderr_null().reader();
            let reader = reader.map_err(|error| process::start_error(HELPER, "apt", &error))?;
            found.extend(packages::kernels(BufReader::new(reader)).map_err(KernelsError::io(file))?);
        }
        Ok(found)
    }

    /// Downloads one version of one package into `dir`, which must be empty.
    ///
    /// # Errors
    /// The index does not know it, or the network fails.
    pub fn download(&self, package: &Package, dir: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf> {
        progress(&format!("downloading {} {} ({} MiB)", package.name, package.version, package.size >> 20));
        let wanted = format!("{}={}", package.name, package.version);
        let command = self.command("apt-get", ["-q", "download", &*wanted]).dir(dir);
        process::capture(&format!("apt-get download {wanted}"), "apt", command)?;
        let entries = fs::read_dir(dir).map_err(KernelsError::io(dir))?;
        let mut debs =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension() == Some("deb".as_ref()));
        debs.next().ok_or_else(|| KernelsError::Program {
            what: format!("apt-get download {wanted}"),
            detail: format!("no .deb appeared in {}", dir.display()),
        })
    }
}

/// The line of the sources file. An index that is too old is as well signed as a new one: `stale` waives its date, and
/// never its signature.
fn source(mirror: &str, suite: &str, debian: &Debian) -> String {
    let expiry = if debian.stale.contains_key(suite) { " check-valid-until=no" } else { "" };
    format!("deb [arch=amd64 signed-by={KEYRING}{expiry}] {mirror} {suite} main\n")
}

/// The host's proxy settings as configuration lines; a host behind a proxy reaches no mirror without them.
fn proxies() -> Result<String> {
    let args = ["dump", "--no-empty", "--format", "%F \"%v\";%n", "Acquire"];
    let dump =
        process::capture("apt-config dump", "apt", process::command("apt-config", args).env_remove("APT_CONFIG"))?;
    Ok(dump.lines().filter(|line| line.contains("::Proxy")).map(|line| format!("{line}\n")).collect())
}

/// What `APT_CONFIG` holds: apt reads it before anything else, and it turns the host's own files off.
fn configuration(root: &Path, proxies: &str) -> String {
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
// Passwords for mirrors stay where the host keeps them.
Dir::Etc::netrc \"/etc/apt/auth.conf\";
Dir::Etc::netrcparts \"/etc/apt/auth.conf.d\";
APT::Architecture \"amd64\";
APT::Architectures {{ \"amd64\"; }};
// The _apt user cannot write into a person's cache; apt would warn and do without anyway.
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
    fn only_the_named_suite_may_be_old_and_none_may_be_unsigned() {
        let debian = Debian { stale: [("sid".to_owned(), "it lags".to_owned())].into(), ..Debian::default() };
        let line = |suite| source("http://a.example/debian", suite, &debian);
        assert_eq!(
            line("sid"),
            format!("deb [arch=amd64 signed-by={KEYRING} check-valid-until=no] http://a.example/debian sid main\n")
        );
        assert_eq!(
            line("trixie"),
            format!("deb [arch=amd64 signed-by={KEYRING}] http://a.example/debian trixie main\n")
        );
    }
}
