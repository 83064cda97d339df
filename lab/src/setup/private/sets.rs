//! Which packages are unpacked together, and which of their programs are started.

use sha2::{Digest, Sha256};

use lab_base::programs;

/// Packages that are resolved, downloaded and unpacked as one.
#[derive(Debug, PartialEq, Eq)]
pub struct PackageSet {
    /// Its directory's name.
    pub name: &'static str,
    /// What people read.
    pub label: &'static str,
    /// The packages that are wanted; what they depend on comes with them.
    pub roots: &'static [&'static str],
    /// Dependencies that the programs do without, or that the host has: name and what it provides.
    assumed: &'static [(&'static str, &'static str)],
    /// Where the packages come from.
    pub release: Release,
    /// The programs.
    pub programs: &'static [PrivateProgram],
    /// What is removed after unpacking, below the set's root.
    pub prune: &'static [&'static str],
}

/// Which releases a set may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The newest that the mirror has, with its backports.
    Newest,
    /// The host's own: what is linked with the host's compiler must not need a newer C library than the host's.
    Own,
}

/// A program of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrivateProgram {
    /// What it is called as.
    pub name: &'static str,
    /// Where it is, where that is no usual directory of programs.
    pub path: Option<&'static str>,
    /// Arguments in front of the caller's; `{root}` is the set's directory.
    pub arguments: &'static [&'static str],
}

const fn program(name: &'static str) -> PrivateProgram {
    PrivateProgram { name, path: None, arguments: &[] }
}

/// What packages of every set depend on for their maintainer scripts alone, which are never run.
const SCRIPTS: &[(&str, &str)] = &[
    ("adduser", ""),
    ("base-files", ""),
    ("base-passwd", ""),
    ("ca-certificates", ""),
    ("debconf", "debconf-2.0"),
    ("debianutils", ""),
    ("dpkg", ""),
    ("libpam-modules", ""),
    ("media-types", ""),
    ("openssl-provider-legacy", ""),
    ("passwd", ""),
    ("tar", ""),
];

/// Debian builds QEMU to look for its firmware below /usr alone.
const FIRMWARE: &[&str] =
    &["-L", "{root}/usr/share/qemu", "-L", "{root}/usr/share/seabios", "-L", "{root}/usr/lib/ipxe/qemu"];

/// QEMU and its firmware. Its loadable modules (displays, sound, USB) are not found, and no guest uses any.
pub const QEMU: PackageSet = PackageSet {
    name: "qemu",
    label: "QEMU with its firmware",
    roots: &["qemu-system-x86"],
    assumed: &[],
    release: Release::Newest,
    programs: &[PrivateProgram { name: "qemu-system-x86_64", path: None, arguments: FIRMWARE }],
    prune: &[],
};

/// The small programs: for kernel packages, for virtme-ng, and for who enters a guest.
pub const SHELL: PackageSet = PackageSet {
    name: programs::UNPACKED,
    label: "kernel and network tools",
    roots: &[
        "kmod",
        "file",
        "binutils",
        "xz-utils",
        "busybox-static",
        "iproute2",
        "bpftool",
        "tcpdump",
        "bash",
        "ncurses-base",
        "python3-pip-whl",
    ],
    assumed: &[],
    release: Release::Newest,
    programs: &[
        program("depmod"),
        program("modinfo"),
        PrivateProgram { name: "file", path: None, arguments: &["-m", "{root}/usr/lib/file/magic.mgc"] },
        program("strings"),
        program("xz"),
        program("busybox"),
        program("ip"),
        program("tc"),
        program("ss"),
        program("bpftool"),
        program("tcpdump"),
    ],
    prune: &[],
};

/// The compiler for the kernel's virtual machine, and the LLVM that its linker is built with.
pub const BPF: PackageSet = PackageSet {
    name: "bpf",
    label: "BPF compiler",
    roots: &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "rust-web-llvm", "llvm-22-dev", "libpolly-22-dev"],
    assumed: &[
        ("binutils", ""),
        ("gcc", "c-compiler"),
        ("libc6-dev", "libc-dev"),
        ("libclang-cpp22", ""),
        ("libicu-dev", ""),
        ("python3", ""),
        ("python3-pkg-resources", ""),
        ("python3-pygments", ""),
        ("python3-yaml", ""),
    ],
    release: Release::Own,
    programs: &[
        PrivateProgram { name: "rustc", path: None, arguments: &["--sysroot", "{root}/usr"] },
        program("cargo"),
        PrivateProgram { name: "llvm-config", path: Some("usr/lib/llvm-22/bin/llvm-config"), arguments: &[] },
    ],
    prune: &["usr/lib/llvm-22/build", "usr/lib/llvm-22/share"],
};

impl PackageSet {
    /// Stanzas that make apt take the assumed packages for installed.
    pub fn status(&self) -> String {
        let stanza = |(name, provides): &(&str, &str)| {
            let provides = if provides.is_empty() { String::new() } else { format!("Provides: {provides}\n") };
            // Libraries are looked for under the architecture, everything else may be of any.
            let (architecture, multi) = match *name {
                "python3" => ("amd64", "allowed"),
                name if name.starts_with("lib") => ("amd64", "same"),
                _ => ("all", "foreign"),
            };
            format!(
                "Package: {name}\nStatus: install ok installed\nArchitecture: {architecture}\nMulti-Arch: {multi}\n\
                 Version: 999\n{provides}Maintainer: nobody <nobody@example.org>\nDescription: assumed\n\n"
            )
        };
        SCRIPTS.iter().chain(self.assumed).map(stanza).collect()
    }

    /// What a directory's name begins with: it changes with this table, so that a directory made by an older table is
    /// not taken for a newer one's.
    pub fn prefix(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{FORMAT} {}", self.contents()));
        format!("{}-{}-", self.name, hex(hash, 3))
    }

    /// The table as text. Its words are fixed: a type that gets another name must not make every machine download the
    /// packages again.
    fn contents(&self) -> String {
        let program = |it: &PrivateProgram| {
            format!("Program {{ name: {:?}, path: {:?}, arguments: {:?} }}", it.name, it.path, it.arguments)
        };
        let programs: Vec<String> = self.programs.iter().map(program).collect();
        format!(
            "Set {{ name: {:?}, label: {:?}, roots: {:?}, assumed: {:?}, release: {:?}, programs: [{}], prune: {:?} }}",
            self.name,
            self.label,
            self.roots,
            self.assumed,
            self.release,
            programs.join(", "),
            self.prune
        )
    }
}

/// How a set is laid out on disk; another number makes every set anew.
const FORMAT: u32 = 1;

/// The first bytes of a sum.
pub fn hex(hash: Sha256, bytes: usize) -> String {
    hash.finalize().iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apt_is_told_of_packages_that_are_not_unpacked() {
        let status = BPF.status();
        assert!(status.contains("Package: gcc\nStatus: install ok installed\nArchitecture: all\n"), "{status}");
        assert!(status.contains("Multi-Arch: same\nVersion: 999\nProvides: libc-dev\n"), "{status}");
        assert_eq!(status.matches("\n\n").count(), SCRIPTS.len() + BPF.assumed.len());
    }

    #[test]
    fn sets_have_directories_of_their_own() {
        let prefixes: std::collections::BTreeSet<_> = [QEMU, SHELL, BPF].iter().map(PackageSet::prefix).collect();
        assert_eq!(prefixes.len(), 3);
        assert!(QEMU.prefix().starts_with("qemu-"));
    }

    #[test]
    fn a_directory_is_named_by_the_table_and_not_by_names_in_this_program() {
        let programs = &[PrivateProgram { name: "x", path: Some("usr/x"), arguments: &["-a"] }];
        let set = PackageSet {
            name: "set",
            label: "what people read",
            roots: &["x"],
            assumed: &[("y", "z")],
            release: Release::Own,
            programs,
            prune: &["usr/share"],
        };
        assert_eq!(set.prefix(), "set-5c9e3a-");
        assert_ne!(PackageSet { roots: &["x", "y"], ..set }.prefix(), "set-5c9e3a-");
    }
}
