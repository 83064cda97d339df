//! Which archive a suite is fetched from: the configuration's, or the one that the host's own apt uses.

use super::{
    config::Debian,
    error::{KernelsError, Result},
};
use lab_base::process;
use std::env;

/// One field of each kind per line; `Packages` targets only, so that every source counts once.
pub(super) const TARGET_FORMAT: &str = "$(RELEASE)\t$(ORIGIN)\t$(REPO_URI)";

/// The two archives that Debian's suites live in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Archive {
    Plain,
    Security,
}

impl Archive {
    fn of(suite: &str) -> Self {
        if suite.ends_with("-security") { Self::Security } else { Self::Plain }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "Debian",
            Self::Security => "Debian security",
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::Plain => "mirror",
            Self::Security => "security-mirror",
        }
    }

    const fn variable(self) -> &'static str {
        match self {
            Self::Plain => "NETKIT_LAB_DEBIAN_MIRROR",
            Self::Security => "NETKIT_LAB_DEBIAN_SECURITY_MIRROR",
        }
    }
}

/// The address for a suite: environment, then `kernels.toml`, then the host's apt.
///
/// # Errors
/// None of them names one, or the name cannot stand in a sources file.
pub(super) fn mirror(debian: &Debian, suite: &str) -> Result<String> {
    let archive = Archive::of(suite);
    let configured = match archive {
        Archive::Plain => &debian.mirror,
        Archive::Security => &debian.security_mirror,
    };
    let (found, origin) = match (env::var(archive.variable()).ok().filter(|value| !value.is_empty()), configured) {
        (Some(value), _) => (value, archive.variable()),
        (None, Some(value)) => (value.clone(), archive.key()),
        (None, None) => {
            let args = ["indextargets", "--format", TARGET_FORMAT, "Created-By: Packages"];
            let list = process::capture(
                "apt-get indextargets",
                "apt",
                process::command("apt-get", args).env_remove("APT_CONFIG"),
            )?;
            (choose(&list, suite)?, "apt-get indextargets")
        }
    };
    let usable = found.contains(":/") && found.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '[' | ']'));
    if usable { Ok(found) } else { Err(KernelsError::BadMirror { mirror: found, origin }) }
}

/// Picks the first source of the right archive from `apt-get indextargets`.
fn choose(targets: &str, suite: &str) -> Result<String> {
    let archive = Archive::of(suite);
    targets
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            Some((fields.next()?, fields.next()?, fields.next()?))
        })
        .find(|(release, origin, uri)| is_debian(release, origin) && Archive::of(release) == archive && !uri.is_empty())
        .map(|(_, _, uri)| uri.to_owned())
        .ok_or(KernelsError::NoMirror { archive: archive.name(), key: archive.key(), variable: archive.variable() })
}

/// The origin is known only once the host has run `apt-get update`; until then the suite's name must do.
fn is_debian(release: &str, origin: &str) -> bool {
    const CODENAMES: [&str; 12] = [
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "duke",
        "sid",
        "unstable",
        "testing",
        "stable",
        "oldstable",
        "oldoldstable",
        "experimental",
    ];
    match origin {
        "" => CODENAMES.contains(&release.split('-').next().unwrap_or(release)),
        origin => origin == "Debian" || origin == "Debian Backports",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "\
bookworm-security\tDebian\thttp://a.example/debian-security/
nodistro\tNode\thttps://n.example/node/
bookworm\tDebian\thttp://a.example/debian/
bookworm-updates\tDebian\thttp://a.example/debian/
";

    #[test]
    fn security_suites_come_from_the_security_archive() {
        assert_eq!(choose(HOST, "trixie-backports").unwrap(), "http://a.example/debian/");
        assert_eq!(choose(HOST, "bookworm-security").unwrap(), "http://a.example/debian-security/");
    }

    #[test]
    fn a_host_without_lists_is_judged_by_the_suites_name() {
        let hosts = "noble\t\thttp://u.example/ubuntu/\ntrixie\t\thttp://b.example/debian/\n";
        assert_eq!(choose(hosts, "sid").unwrap(), "http://b.example/debian/");
    }

    #[test]
    fn nothing_is_derived_silently() {
        let plain = "bookworm\tDebian\thttp://a.example/debian/\n";
        insta::assert_snapshot!(choose(plain, "bookworm-security").unwrap_err(),
            @"this host's apt names no Debian security mirror: set `security-mirror` under [debian] in kernels.toml, or NETKIT_LAB_DEBIAN_SECURITY_MIRROR");
        insta::assert_snapshot!(choose("noble\tUbuntu\thttp://u.example/ubuntu/\n", "sid").unwrap_err(),
            @"this host's apt names no Debian mirror: set `mirror` under [debian] in kernels.toml, or NETKIT_LAB_DEBIAN_MIRROR");
    }

    #[test]
    fn the_configuration_comes_before_the_host() {
        let debian = Debian {
            mirror: Some("http://mine.example/debian".into()),
            security_mirror: Some("a b".into()),
            ..Debian::default()
        };
        assert_eq!(mirror(&debian, "sid").unwrap(), "http://mine.example/debian");
        insta::assert_snapshot!(mirror(&debian, "trixie-security").unwrap_err(),
            @"`a b` (from security-mirror) is not a mirror's address: wanted scheme://host/path without spaces");
    }
}
