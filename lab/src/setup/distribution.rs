//! Identifies the distribution by /etc/os-release only, since dpkg, apt, dnf and pacman can be installed on any of
//! them.

use std::fs;

/// Families of distributions, by package manager.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DistributionFamily {
    /// Debian and its derivatives: dpkg and apt.
    Debian,
    /// Fedora and its derivatives: dnf.
    Fedora,
    /// Arch and its derivatives: pacman.
    Arch,
    /// Any other or unknown distribution.
    #[default]
    Other,
}

/// The distribution of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Its family.
    pub family: DistributionFamily,
    /// The code name of its release.
    pub codename: Option<String>,
}

/// Commands whose package has another name: Fedora's and Arch's package names.
const PACKAGES: [(&str, &str, &str); 12] = [
    ("apt-get", "apt", "apt"),
    ("bpftool", "bpftool", "bpf"),
    ("cc", "gcc", "gcc"),
    ("depmod", "kmod", "kmod"),
    ("dpkg-deb", "dpkg", "dpkg"),
    ("ip", "iproute", "iproute2"),
    ("python3", "python3", "python"),
    ("qemu-system-x86_64", "qemu-system-x86", "qemu-system-x86"),
    ("ss", "iproute", "iproute2"),
    ("strings", "binutils", "binutils"),
    ("tc", "iproute-tc", "iproute2"),
    ("xz", "xz", "xz"),
];

impl Distribution {
    /// Reads the distribution of this host.
    pub fn of_this_host() -> Self {
        let places = ["/etc/os-release", "/usr/lib/os-release"];
        places
            .iter()
            .find_map(|path| fs::read_to_string(path).ok())
            .map_or_else(Self::default, |text| Self::read(&text))
    }

    /// Parses the text of os-release(5).
    pub fn read(text: &str) -> Self {
        let value = |key: &str| {
            let found = text.lines().rev().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
            found.map(|value| value.trim_matches(['"', '\'']).to_owned()).filter(|value| !value.is_empty())
        };
        let names = [value("ID"), value("ID_LIKE")].into_iter().flatten().collect::<Vec<_>>().join(" ");
        let family = names.split_whitespace().find_map(|name| match name {
            "debian" | "ubuntu" => Some(DistributionFamily::Debian),
            "fedora" | "rhel" | "centos" => Some(DistributionFamily::Fedora),
            "arch" => Some(DistributionFamily::Arch),
            _ => None,
        });
        Self { family: family.unwrap_or_default(), codename: value("VERSION_CODENAME") }
    }

    /// Advice how to install the packages that have these commands.
    pub fn advice(&self, commands: &[&str]) -> String {
        let names = |fedora: bool| {
            let name = |command: &&str| {
                let known = PACKAGES.iter().find(|(known, ..)| known == command);
                known.map_or((*command).to_owned(), |(_, dnf, pacman)| (if fedora { *dnf } else { *pacman }).to_owned())
            };
            let mut names: Vec<String> = commands.iter().map(name).collect();
            names.sort();
            names.dedup();
            names.join(" ")
        };
        match self.family {
            DistributionFamily::Fedora => format!("sudo dnf install {}", names(true)),
            DistributionFamily::Arch => format!("sudo pacman -S {}", names(false)),
            DistributionFamily::Debian | DistributionFamily::Other => {
                "install them with this distribution's package manager".to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_read_from_os_release() {
        let family = |text: &str| Distribution::read(text).family;
        assert_eq!(
            family("NAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_CODENAME=trixie\n"),
            DistributionFamily::Debian
        );
        assert_eq!(family("ID=ubuntu\nID_LIKE=debian\n"), DistributionFamily::Debian);
        assert_eq!(family("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), DistributionFamily::Debian);
        assert_eq!(family("ID=fedora\n"), DistributionFamily::Fedora);
        assert_eq!(family("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), DistributionFamily::Fedora);
        assert_eq!(family("ID=endeavouros\nID_LIKE=arch\n"), DistributionFamily::Arch);
        assert_eq!(family("ID=nixos\n"), DistributionFamily::Other);
        assert_eq!(family(""), DistributionFamily::Other);
        let codename = |text: &str| Distribution::read(text).codename;
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n"), Some("bookworm".to_owned()));
        assert_eq!(codename("ID=arch\n"), None);
    }

    #[test]
    fn each_distribution_has_a_command_for_what_is_missing() {
        let advice = |id: &str| Distribution::read(&format!("ID={id}\n")).advice(&["ip", "cc", "ss", "tc", "bpftool"]);
        assert_eq!(advice("fedora"), "sudo dnf install bpftool gcc iproute iproute-tc");
        assert_eq!(advice("arch"), "sudo pacman -S bpf gcc iproute2");
        assert_eq!(advice("nixos"), "install them with this distribution's package manager");
    }
}
