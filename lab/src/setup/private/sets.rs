//! The sets of packages that are unpacked together, and the programs of them that the lab starts.

use sha2::{Digest, Sha256};

use lab_base::{arch::Architecture, programs};

/// Packages that are resolved, downloaded and unpacked together.
#[derive(Debug, PartialEq, Eq)]
pub struct PackageSet {
    /// Start of its directory's name.
    pub name: &'static str,
    /// Label in messages.
    pub label: &'static str,
    /// The wanted packages; their dependencies are added.
    pub roots: &'static [&'static str],
    /// Dependencies that are not needed or that the host has: name and provided package.
    assumed: &'static [(&'static str, &'static str)],
    /// The releases that the packages may come from.
    pub release: Release,
    /// The architecture of the packages. Only those of the host's have programs to start.
    pub architecture: Architecture,
    /// The programs to make start scripts for.
    pub programs: &'static [PrivateProgram],
    /// Paths to remove after unpacking, relative to the set's root.
    pub prune: &'static [&'static str],
    /// Archives in packages, of which only some files are kept.
    pub parts: &'static [ArchivePart],
}

/// An archive in a package, of which only some files are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchivePart {
    /// The archive, relative to the set's root. It is replaced by its files, in its directory.
    pub archive: &'static str,
    /// Its directories that are kept.
    pub keep: &'static [&'static str],
}

/// The releases that a set may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The newest release of the mirror, with its backports.
    Newest,
    /// The host's release: libraries that are linked with the host's compiler must not need a newer C library than the
    /// host's.
    Own,
}

/// A program of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrivateProgram {
    /// Name of its start script.
    pub name: &'static str,
    /// Its path, if it is not in a usual directory of programs.
    pub path: Option<&'static str>,
    /// Arguments before the caller's; `{root}` is the set's directory.
    pub arguments: &'static [&'static str],
    /// A variable that it is started with, and its value with `{root}` as above.
    pub variable: Option<(&'static str, &'static str)>,
}

const fn program(name: &'static str) -> PrivateProgram {
    PrivateProgram { name, path: None, arguments: &[], variable: None }
}

/// A program whose file has another name.
const fn at(name: &'static str, path: &'static str) -> PrivateProgram {
    PrivateProgram { path: Some(path), ..program(name) }
}

/// Where the programs of xtables find the modules of their matches and targets.
const XTABLES: Option<(&str, &str)> = Some(("XTABLES_LIBDIR", "{root}/usr/lib/x86_64-linux-gnu/xtables"));

/// Dependencies in all sets that only maintainer scripts need; these scripts are never run.
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

/// Debian's QEMU looks for its firmware only below /usr.
const FIRMWARE: &[&str] =
    &["-L", "{root}/usr/share/qemu", "-L", "{root}/usr/share/seabios", "-L", "{root}/usr/lib/ipxe/qemu"];

/// QEMU and its firmware. Its loadable modules (displays, sound, USB) do not work, and no guest uses them.
pub const QEMU: PackageSet = PackageSet {
    name: "qemu",
    label: "QEMU with its firmware",
    roots: &["qemu-system-x86"],
    assumed: &[],
    release: Release::Newest,
    architecture: Architecture::X86_64,
    programs: &[PrivateProgram { arguments: FIRMWARE, ..program("qemu-system-x86_64") }],
    prune: &[],
    parts: &[],
};

/// Small programs: for kernel packages, for virtme-ng, and for `lab shell`.
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
    architecture: Architecture::X86_64,
    programs: &[
        program("depmod"),
        program("modinfo"),
        // virtme-ng asks it for the modules of a stock guest, which the benchmarks compare with.
        program("modprobe"),
        PrivateProgram { arguments: &["-m", "{root}/usr/lib/file/magic.mgc"], ..program("file") },
        program("strings"),
        program("xz"),
        program("busybox"),
        program("ip"),
        program("tc"),
        program("ss"),
        program("bpftool"),
        // Otherwise it becomes the user of its package, whom only an installation makes.
        PrivateProgram { arguments: &["-Z", "root"], ..program("tcpdump") },
    ],
    prune: &[],
    parts: &[],
};

/// The compiler for BPF programs, and the LLVM that bpf-linker is built with.
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
    architecture: Architecture::X86_64,
    programs: &[
        PrivateProgram { arguments: &["--sysroot", "{root}/usr"], ..program("rustc") },
        program("cargo"),
        at("llvm-config", "usr/lib/llvm-22/bin/llvm-config"),
    ],
    prune: &["usr/lib/llvm-22/build", "usr/lib/llvm-22/share"],
    parts: &[],
};

/// The network of guests that have one.
pub const PASST: PackageSet = PackageSet {
    name: "passt",
    label: "passt",
    roots: &["passt"],
    assumed: &[],
    release: Release::Newest,
    architecture: Architecture::X86_64,
    programs: &[program("passt")],
    prune: &[],
    parts: &[],
};

/// Test suites that others wrote, with their compiler and the programs that they call, for `lab/tests/foreign/`.
pub const SUITES: PackageSet = PackageSet {
    name: "suites",
    label: "test suites of others",
    roots: &[
        "golang-go",
        "golang-github-cilium-ebpf-dev",
        "golang-github-frankban-quicktest-dev",
        "linux-source-6.12",
        "python3-pytest",
        "python3-psutil",
        "iproute2",
        "iputils-ping",
        "iputils-arping",
        "traceroute",
        "netsniff-ng",
        "tcpdump",
        "ethtool",
        "nftables",
        "iptables",
        "ipset",
        "conntrack",
        "socat",
        "ncat",
        "netcat-openbsd",
        "iperf3",
        "smcroute",
        "jq",
        "kmod",
        "udev",
    ],
    // Python is the host's, from 3.11 on.
    assumed: &[
        ("python3", ""),
        ("python3-tomli", ""),
        ("python3-exceptiongroup", ""),
        ("binutils", ""),
        ("xz-utils", ""),
    ],
    release: Release::Newest,
    architecture: Architecture::X86_64,
    programs: &[
        program("go"),
        program("ip"),
        program("bridge"),
        program("tc"),
        program("ss"),
        program("ping"),
        PrivateProgram { arguments: &["-6"], ..at("ping6", "usr/bin/ping") },
        program("arping"),
        at("traceroute", "usr/bin/traceroute.db"),
        at("traceroute6", "usr/bin/traceroute6.db"),
        program("mausezahn"),
        // Otherwise it becomes the user of its package, whom only an installation makes.
        PrivateProgram { arguments: &["-Z", "root"], ..program("tcpdump") },
        program("ethtool"),
        program("nft"),
        PrivateProgram { variable: XTABLES, ..at("iptables", "usr/sbin/iptables-nft") },
        PrivateProgram { variable: XTABLES, ..at("ip6tables", "usr/sbin/ip6tables-nft") },
        program("ipset"),
        program("conntrack"),
        program("socat"),
        program("ncat"),
        at("nc", "usr/bin/nc.openbsd"),
        program("iperf3"),
        program("smcrouted"),
        program("smcroutectl"),
        program("jq"),
        program("modinfo"),
        program("modprobe"),
        program("lsmod"),
        program("insmod"),
        program("rmmod"),
        program("udevadm"),
    ],
    prune: &[],
    parts: &[ArchivePart {
        archive: "usr/src/linux-source-6.12.tar.xz",
        keep: &["linux-source-6.12/tools/testing/selftests"],
    }],
};

/// What the loader of `lab check` is built with: headers and archives, which are linked with the host's compiler.
pub const ELF: PackageSet = PackageSet {
    name: "elf",
    label: "libelf and zlib for libbpf",
    roots: &["libelf-dev", "zlib1g-dev"],
    assumed: &[("libc6", ""), ("libc6-dev", "libc-dev")],
    release: Release::Own,
    architecture: Architecture::X86_64,
    programs: &[],
    prune: &[],
    parts: &[],
};

/// For the project's own tests: the compiler of the objects that `lab check` is tested with, and headers.
pub const CLANG: PackageSet = PackageSet {
    name: "clang",
    label: "clang for the tests",
    roots: &["clang-19", "libbpf-dev", "linux-libc-dev"],
    assumed: &[
        ("binutils", ""),
        ("libc6-dev", "libc-dev"),
        ("libelf-dev", ""),
        ("libgcc-12-dev", ""),
        ("libgcc-14-dev", ""),
        ("libobjc-12-dev", ""),
        ("libobjc-14-dev", ""),
        ("libstdc++-12-dev", ""),
        ("libstdc++-14-dev", ""),
        ("zlib1g-dev", ""),
    ],
    release: Release::Newest,
    architecture: Architecture::X86_64,
    programs: &[at("clang", "usr/lib/llvm-19/bin/clang")],
    prune: &[],
    parts: &[],
};

/// For the project's own tests: a cluster that `make test-slurm` starts on this machine.
pub const SLURM: PackageSet = PackageSet {
    name: "slurm",
    label: "Slurm for the tests",
    roots: &["slurmctld", "slurmd", "slurm-client", "munge"],
    assumed: &[("lsb-base", ""), ("perl", ""), ("sysvinit-utils", ""), ("ucf", "")],
    release: Release::Own,
    architecture: Architecture::X86_64,
    // Its programs need a directory of libraries more, which the tests name.
    programs: &[],
    prune: &[],
    parts: &[],
};

/// For guests of arm64: the emulator, and the linker of their agent.
pub const ARM64: PackageSet = PackageSet {
    name: "arm64",
    label: "QEMU and linker for arm64",
    roots: &["qemu-system-arm", "binutils-aarch64-linux-gnu"],
    assumed: &[],
    release: Release::Newest,
    architecture: Architecture::X86_64,
    programs: &[
        PrivateProgram { arguments: FIRMWARE, ..program("qemu-system-aarch64") },
        program("aarch64-linux-gnu-ld"),
    ],
    prune: &[],
    parts: &[],
};

/// The libraries of the agent for arm64: the Rust library of the BPF compiler's version, and the C library.
pub const ARM64_LIBRARIES: PackageSet = PackageSet {
    name: "arm64-libraries",
    label: "libraries for arm64",
    roots: &["libstd-rust-web-dev", "libc6-dev", "libgcc-12-dev"],
    // Of these only the archives for static programs are used, or nothing.
    assumed: &[
        ("libasan8", ""),
        ("libatomic1", ""),
        ("libcrypt-dev", ""),
        ("libgomp1", ""),
        ("libhwasan0", ""),
        ("libitm1", ""),
        // Of the compiler itself, whose library is in the same package as the standard library for dynamic programs.
        ("libllvm22", ""),
        ("liblsan0", ""),
        ("libnsl-dev", ""),
        ("libtirpc-dev", ""),
        ("libtsan2", ""),
        ("libubsan1", ""),
        ("linux-libc-dev", ""),
        ("rpcsvc-proto", ""),
    ],
    release: Release::Own,
    architecture: Architecture::Arm64,
    programs: &[],
    prune: &["usr/include"],
    parts: &[],
};

impl PackageSet {
    /// The packages that count as installed, each with what it provides beside its name.
    pub fn assumed(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        SCRIPTS.iter().chain(self.assumed)
    }

    /// Prefix of a directory's name. It contains a hash of this table, so that a directory made with an older table is
    /// not used.
    pub fn prefix(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{FORMAT} {}", self.contents()));
        format!("{}-{}-", self.name, hex(hash, 3))
    }

    /// The table as text. Its words are fixed: a type that gets another name must not make every machine download the
    /// packages again.
    fn contents(&self) -> String {
        // A set without parts, and a program without a variable, are named as before there were any.
        let variable = |it: &PrivateProgram| it.variable.map(|it| format!(", variable: {it:?}")).unwrap_or_default();
        let program = |it: &PrivateProgram| {
            let rest = variable(it);
            format!("Program {{ name: {:?}, path: {:?}, arguments: {:?}{rest} }}", it.name, it.path, it.arguments)
        };
        let programs: Vec<String> = self.programs.iter().map(program).collect();
        let part = |it: &ArchivePart| format!(", Part {{ archive: {:?}, keep: {:?} }}", it.archive, it.keep);
        let parts: String = self.parts.iter().map(part).collect();
        // One of the host's architecture is named as before there were others.
        let foreign = if self.architecture.is_own() {
            String::new()
        } else {
            format!(", architecture: {:?}", self.architecture.name())
        };
        format!(
            "Set {{ name: {:?}, label: {:?}, roots: {:?}, assumed: {:?}, release: {:?}, programs: [{}], prune: {:?}{parts}{foreign} }}",
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

/// Version of the layout on disk; another number makes setup unpack every set again.
const FORMAT: u32 = 1;

/// The first bytes of a sum, hexadecimal.
pub fn hex(hash: Sha256, bytes: usize) -> String {
    lab_base::hex::hex(&hash.finalize()[..bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_directories_of_their_own() {
        let prefixes: std::collections::BTreeSet<_> =
            [QEMU, SHELL, BPF, PASST, SUITES, ELF, CLANG, SLURM, ARM64, ARM64_LIBRARIES]
                .iter()
                .map(PackageSet::prefix)
                .collect();
        assert_eq!(prefixes.len(), 10);
        assert!(QEMU.prefix().starts_with("qemu-"));
    }

    #[test]
    fn a_directory_is_named_by_the_table_and_not_by_names_in_this_program() {
        const PROGRAMS: &[PrivateProgram] = &[PrivateProgram { arguments: &["-a"], ..at("x", "usr/x") }];
        let set = PackageSet {
            name: "set",
            label: "what people read",
            roots: &["x"],
            assumed: &[("y", "z")],
            release: Release::Own,
            architecture: Architecture::X86_64,
            programs: PROGRAMS,
            prune: &["usr/share"],
            parts: &[],
        };
        assert_eq!(set.prefix(), "set-5c9e3a-");
        assert_ne!(PackageSet { architecture: Architecture::Arm64, ..set }.prefix(), "set-5c9e3a-");
        let parts = &[ArchivePart { archive: "x.tar.xz", keep: &["x"] }];
        assert_ne!(PackageSet { parts, ..set }.prefix(), "set-5c9e3a-");
        assert_ne!(PackageSet { roots: &["x", "y"], ..set }.prefix(), "set-5c9e3a-");
    }
}
