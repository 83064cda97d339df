//! Selects the mirror of a suite: from the configuration, or from the host's apt.

use super::{
    debian::Debian,
    error::{KernelsError, Result},
};
use lab_base::process;
use std::env;

/// Tab-separated fields, one source per line; only `Packages` targets, so that every source occurs once.
pub(super) const TARGET_FORMAT: &str = "$(RELEASE)\t$(ORIGIN)\t$(REPO_URI)";

/// The two archives of Debian's suites.
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

/// The mirror of a suite: from the environment, else from `kernels.toml`, else from the host's apt.
///
/// # Errors
/// None of them names a mirror, or its address is not valid in a sources file.
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
            let found = match choose(&list, suite) {
                // Targets are only those whose lists apt has read: an image of a container often has none.
                Err(KernelsError::NoMirror { .. }) => {
                    let args = ["update", "--print-uris"];
                    let update = process::command("apt-get", args).env_remove("APT_CONFIG");
                    choose(&unread(&process::capture("apt-get update --print-uris", "apt", update)?), suite)?
                }
                found => found?,
            };
            (found, "apt-get")
        }
    };
    if is_usable(&found) { Ok(found) } else { Err(KernelsError::BadMirror { mirror: found, origin }) }
}

/// Whether a sources file can have this address.
pub(super) fn is_usable(address: &str) -> bool {
    address.contains(":/") && address.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '[' | ']'))
}

/// Why an address of an archive that `kernels.toml` names is refused, if it is. It is written to messages and to the lock,
/// so it has no password; and it may become an argument of a program, so it begins with a scheme.
pub(super) fn objection(address: &str) -> Option<&'static str> {
    let Some((scheme, _)) = address.split_once(":/") else { return Some("has no scheme://host/path") };
    if !is_usable(address) || !["http", "https", "file"].contains(&scheme) {
        return Some("is no http, https or file address without spaces");
    }
    has_user(address).then_some(CREDENTIALS)
}

/// What is wrong with an address that has the name of a user, and perhaps a password.
pub(super) const CREDENTIALS: &str = "has a user's name: credentials belong to /etc/apt/auth.conf.d";

/// Whether an address names a user.
pub(super) fn has_user(address: &str) -> bool {
    let rest = address.split_once(":/").map_or("", |(_, rest)| rest);
    rest.trim_start_matches('/').split('/').next().is_some_and(|host| host.contains('@'))
}

/// What `apt-get update --print-uris` would fetch, in the form of `apt-get indextargets`; the origins are unknown.
pub(super) fn unread(uris: &str) -> String {
    let targets = uris.lines().filter_map(|line| {
        let (uri, _) = line.strip_prefix('\'')?.split_once('\'')?;
        let (mirror, suite) = uri.strip_suffix("/InRelease")?.split_once("/dists/")?;
        Some(format!("{suite}\t\t{mirror}/\n"))
    });
    targets.collect()
}

/// The first source of the right archive in the output of `apt-get indextargets`.
pub(super) fn choose(targets: &str, suite: &str) -> Result<String> {
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

/// The origin is known only after `apt-get update` on the host; before, the suite's name is checked.
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
    fn without_package_lists_the_suites_name_is_checked() {
        let hosts = "noble\t\thttp://u.example/ubuntu/\ntrixie\t\thttp://b.example/debian/\n";
        assert_eq!(choose(hosts, "sid").unwrap(), "http://b.example/debian/");
    }

    #[test]
    fn a_mirror_whose_lists_were_never_read_is_found() {
        let uris = "\
'http://u.example/ubuntu/dists/noble/InRelease' u.example_ubuntu_dists_noble_InRelease 0 \n\
'http://b.example/debian/dists/trixie/InRelease' b.example_debian_dists_trixie_InRelease 0 \n\
'http://b.example/s/dists/trixie-security/InRelease' b.example_s_dists_trixie-security_InRelease 0 \n\
'http://b.example/debian/dists/trixie/main/binary-amd64/Packages.xz' b.example_debian_dists_trixie 0 \n";
        assert_eq!(choose(&unread(uris), "bookworm-backports").unwrap(), "http://b.example/debian/");
        assert_eq!(choose(&unread(uris), "bookworm-security").unwrap(), "http://b.example/s/");
    }

    #[test]
    fn an_address_is_no_option_and_has_no_password() {
        for good in ["https://a.example/os", "http://a.example:81/os/", "file:/srv/os", "file:///srv/a@b/os"] {
            assert_eq!(objection(good), None, "{good}");
        }
        for bad in ["-oDir::Bin=a:/b", "a.example", "rsh://a.example/os", "https://a b/", "https://u:p@a.example/os"] {
            assert!(objection(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_missing_mirror_is_an_error() {
        let plain = "bookworm\tDebian\thttp://a.example/debian/\n";
        insta::assert_snapshot!(choose(plain, "bookworm-security").unwrap_err(),
            @"this host's apt has no Debian security mirror: set `security-mirror` under [debian] in kernels.toml, or NETKIT_LAB_DEBIAN_SECURITY_MIRROR");
        insta::assert_snapshot!(choose("noble\tUbuntu\thttp://u.example/ubuntu/\n", "sid").unwrap_err(),
            @"this host's apt has no Debian mirror: set `mirror` under [debian] in kernels.toml, or NETKIT_LAB_DEBIAN_MIRROR");
    }

    #[test]
    fn the_configuration_takes_precedence_over_the_host() {
        let debian = Debian {
            mirror: Some("http://mine.example/debian".into()),
            security_mirror: Some("a b".into()),
            ..Debian::default()
        };
        assert_eq!(mirror(&debian, "sid").unwrap(), "http://mine.example/debian");
        insta::assert_snapshot!(mirror(&debian, "trixie-security").unwrap_err(),
            @"`a b` (from security-mirror) is not a mirror's address: expected scheme://host/path without spaces");
    }
}
