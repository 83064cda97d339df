//! Debian packages: finds which are installed, and installs all missing ones by one apt-get call.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::IsTerminal;
use std::path::Path;

use duct::{Expression, cmd};

use super::{error::SetupError, tools::run_logged};
use lab_base::programs;

/// How this user may install packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Already root.
    Root,
    /// With sudo, which may ask for a password on the terminal.
    Sudo,
    /// The user cannot install packages.
    None,
}

impl Privilege {
    /// Finds out without asking for a password.
    pub fn of_this_process() -> Self {
        Self::decide(
            nix::unistd::geteuid().is_root(),
            programs::on_host("sudo").is_some(),
            || on_path("sudo", ["-n", "true"]).stdin_null().stdout_null().stderr_null().run().is_ok(),
            std::io::stdin().is_terminal(),
        )
    }

    /// A sudo that asks for a password is only usable on a terminal: elsewhere it would fail or hang a CI job.
    fn decide(root: bool, sudo: bool, sudo_is_silent: impl FnOnce() -> bool, terminal: bool) -> Self {
        if root {
            Self::Root
        } else if sudo && (terminal || sudo_is_silent()) {
            Self::Sudo
        } else {
            Self::None
        }
    }

    /// # Errors
    /// [`SetupError::NoPrivilege`] with the command that installs `packages`.
    pub(super) fn or_name_command(self, packages: &[&str]) -> Result<Self, SetupError> {
        match self {
            Self::Root | Self::Sudo => Ok(self),
            Self::None => Err(SetupError::NoPrivilege { command: command_line(packages) }),
        }
    }

    fn run(self, words: &[&str]) -> Expression {
        let environment = ["env", "--unset=LANGUAGE", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"];
        let all = if self == Self::Sudo { &["sudo"][..] } else { &[] }.iter().chain(&environment).chain(words);
        let mut all = all.copied();
        let program = all.next().unwrap_or("env");
        on_path(program, all).stdin_null()
    }
}

/// A program that is never one of the working directory.
fn on_path<I>(program: &str, arguments: I) -> Expression
where
    I: IntoIterator,
    I::Item: Into<OsString>,
{
    cmd(program, arguments).env("PATH", programs::search_path())
}

/// The command with which a user installs `packages`.
pub(super) fn command_line(packages: &[&str]) -> String {
    format!("sudo apt-get install --no-install-recommends {}", packages.join(" "))
}

/// Which of `packages` are installed, with their versions.
pub(super) fn installed(packages: &[&str]) -> BTreeMap<String, String> {
    const FORMAT: &str = "-f=${Package}\t${db:Status-Status}\t${Version}\n";
    let arguments = ["-W", FORMAT].into_iter().chain(packages.iter().copied());
    // The exit status is 1 if any package is unknown to dpkg, which is not an error here.
    let output = on_path("dpkg-query", arguments).stdin_null().stderr_null().unchecked().read();
    parse_installed(&output.unwrap_or_default())
}

fn parse_installed(output: &str) -> BTreeMap<String, String> {
    let fields = output.lines().filter_map(|line| {
        let mut fields = line.split('\t');
        Some((fields.next()?, fields.next()?, fields.next()?))
    });
    let installed = fields.filter(|(_, status, _)| *status == "installed");
    installed.map(|(name, _, version)| (name.to_owned(), version.to_owned())).collect()
}

/// Installs `packages`. Updates the package lists only if they offer no candidate or if a listed file no longer exists.
///
/// # Errors
/// [`SetupError::NoCandidate`], [`SetupError::WouldRemove`], or the failure of apt-get.
pub(super) fn install(packages: &[&str], privilege: Privilege, log: &Path) -> Result<(), SetupError> {
    let mut updated = false;
    if !without_candidate(packages)?.is_empty() {
        update(privilege, log)?;
        updated = true;
        let missing = without_candidate(packages)?;
        if !missing.is_empty() {
            return Err(SetupError::NoCandidate { packages: missing.join(", ") });
        }
    }
    match apt_install(packages, privilege, log) {
        Err(SetupError::Failed { .. }) if !updated => {
            update(privilege, log)?;
            apt_install(packages, privilege, log)
        }
        result => result,
    }
}

fn update(privilege: Privilege, log: &Path) -> Result<(), SetupError> {
    run_logged("apt-get update", privilege.run(&["apt-get", "-q", "update"]), log)
}

fn apt_install(packages: &[&str], privilege: Privilege, log: &Path) -> Result<(), SetupError> {
    let options = ["apt-get", "-q", "-y", "--no-remove", "-o", "DPkg::Lock::Timeout=300"];
    let verb = ["install", "--no-install-recommends"];
    let words: Vec<_> = options.iter().chain(&verb).chain(packages).copied().collect();
    run_logged("apt-get install", privilege.run(&words), log).map_err(|error| match error {
        SetupError::Failed { last_line, log, .. } if last_line.contains("remove is disabled") => {
            let removed = removed(&fs::read_to_string(&log).unwrap_or_default());
            SetupError::WouldRemove { packages: packages.join(", "), removed, log }
        }
        other => other,
    })
}

/// The packages that apt-get would remove, according to its last output in the log.
fn removed(log: &str) -> String {
    let list = log.rsplit_once("The following packages will be REMOVED:\n").map_or("", |(_, list)| list);
    let names = list.lines().take_while(|line| line.starts_with(' ')).flat_map(str::split_whitespace);
    let names: Vec<_> = names.collect();
    if names.is_empty() { "packages".to_owned() } else { names.join(", ") }
}

fn without_candidate<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>, SetupError> {
    let policy = on_path("apt-cache", ["policy"].iter().chain(packages)).env("LC_ALL", "C").stdin_null();
    let output = policy
        .stderr_null()
        .unchecked()
        .read()
        .map_err(|cause| SetupError::Start { program: "apt-cache".into(), cause })?;
    Ok(parse_without_candidate(&output, packages))
}

/// `apt-cache policy` prints a stanza per known package and nothing for the others.
fn parse_without_candidate<'a>(policy: &str, packages: &[&'a str]) -> Vec<&'a str> {
    let mut candidates = BTreeMap::new();
    let mut package = "";
    for line in policy.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with(' ')) {
            package = name;
        } else if let Some(version) = line.trim_start().strip_prefix("Candidate: ") {
            candidates.insert(package, version != "(none)");
        }
    }
    packages.iter().copied().filter(|name| candidates.get(name) != Some(&true)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let output = "gcc\tinstalled\t4:12.2.0-3\nfile\tconfig-files\t1:5.44-3\nkmod\tnot-installed\t\nbroken line\n";
        assert_eq!(parse_installed(output), BTreeMap::from([("gcc".to_owned(), "4:12.2.0-3".to_owned())]));
        assert!(parse_installed("").is_empty());
    }

    #[test]
    fn unknown_and_unavailable_packages_have_no_candidate() {
        let policy = "gcc:\n  Installed: (none)\n  Candidate: 4:12.2.0-3\n  Version table:\n\
                      \u{20}    4:12.2.0-3 500\nrustc-web:\n  Installed: (none)\n  Candidate: (none)\n";
        assert_eq!(parse_without_candidate(policy, &["gcc", "rustc-web", "llvm-22-dev"]), ["rustc-web", "llvm-22-dev"]);
    }

    #[test]
    fn sudo_is_used_only_if_the_user_is_not_root_and_it_can_succeed() {
        let decide = |root, sudo, silent, terminal| Privilege::decide(root, sudo, || silent, terminal);
        assert_eq!(decide(true, true, true, true), Privilege::Root);
        assert_eq!(decide(true, false, false, false), Privilege::Root);
        assert_eq!(decide(false, true, false, true), Privilege::Sudo);
        assert_eq!(decide(false, true, true, false), Privilege::Sudo);
        assert_eq!(decide(false, true, false, false), Privilege::None);
        assert_eq!(decide(false, false, true, true), Privilege::None);
    }

    #[test]
    fn without_privilege_the_command_is_named() {
        let error = Privilege::None.or_name_command(&["gcc", "kmod"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "packages are missing and this user can't install them (not root, no usable sudo); run: \
             sudo apt-get install --no-install-recommends gcc kmod"
        );
    }
}
