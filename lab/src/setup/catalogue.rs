//! The list of everything that the lab needs, in the order of installation.

use super::{
    check::{CheckState, Fix, Purpose, SetupCheck},
    host::{BPF_LINKER, BpfRust, Host, Kvm},
    private::{self, PackageSet},
    program::{HostProgram, QEMU_SERVES, QEMU_VARIABLE},
};
use lab_vm::Accel;
use std::collections::BTreeMap;

/// The oldest compiler that builds the workspace; `rust-version` of the root Cargo.toml.
const RUST: (u32, u32, u32) = (1, 95, 0);

/// The oldest QEMU that the lab was tested with, which is Debian 12's.
const QEMU_TRIED: (u32, u32, u32) = (7, 2, 0);

const COMPILER: Fix = Fix::Packages { packages: &["gcc", "libc6-dev"], commands: &["cc"], set: None };
const QEMU: Fix =
    Fix::Packages { packages: &["qemu-system-x86"], commands: &["qemu-system-x86_64"], set: Some(&private::QEMU) };
const KERNEL_TOOLS: Fix = Fix::Packages {
    packages: &["kmod", "file", "binutils", "xz-utils", "debian-archive-keyring"],
    commands: &["depmod", "file", "strings", "xz", "apt-get", "dpkg-deb"],
    set: Some(&private::SHELL),
};
const PYTHON: Fix = Fix::Packages { packages: &["python3"], commands: &["python3"], set: None };
const PIP: Fix = Fix::Packages { packages: &["python3-venv"], commands: &["python3"], set: Some(&private::SHELL) };
const BUSYBOX: Fix =
    Fix::Packages { packages: &["busybox-static"], commands: &["busybox"], set: Some(&private::SHELL) };
const NETWORK_TOOLS: Fix = Fix::Packages {
    packages: &["iproute2", "bpftool", "tcpdump"],
    commands: &["ip", "tc", "ss", "bpftool", "tcpdump"],
    set: Some(&private::SHELL),
};
const BPF_COMPILER: Fix = Fix::Packages { packages: private::BPF.roots, commands: &[], set: Some(&private::BPF) };

const ELF_LIBRARY: Fix = Fix::Packages { packages: private::ELF.roots, commands: &[], set: Some(&private::ELF) };

const KERNEL_BUILD: Fix = Fix::Packages {
    packages: &["make", "flex", "bison", "bc", "libelf-dev", "patch"],
    commands: &["make", "flex", "bison", "bc", "patch"],
    set: None,
};

const SIGNING: Fix =
    Fix::Packages { packages: &["gpg", "gpg-agent", "gpgconf"], commands: &["gpg", "gpg-agent", "gpgconf"], set: None };
const CPP_COMPILER: Fix = Fix::Packages { packages: &["g++"], commands: &["c++"], set: None };
const TRANSFERS: Fix = Fix::Packages { packages: &["curl"], commands: &["curl"], set: None };
const PACKERS: Fix = Fix::Packages { packages: &["zstd"], commands: &["zstd"], set: None };

const CLANG: Fix =
    Fix::Packages { packages: private::CLANG.roots, commands: &["clang-19"], set: Some(&private::CLANG) };
const CHROMIUM: Fix = Fix::Packages { packages: &["chromium"], commands: &["chromium"], set: None };

/// Checks of what builds the lab and its guests' programs; a lab that is installed needs none of it.
const BUILDS: [&str; 5] = ["Rust", "C compiler", "BPF compiler", "bpf-linker", "libelf"];

/// The list behind both `lab doctor` and `lab setup`.
pub fn checks(purpose: Purpose, installed: bool) -> Vec<SetupCheck> {
    let runs = for_runs().into_iter().filter(|check| !installed || !BUILDS.contains(&check.name));
    match purpose {
        Purpose::Runs => runs.collect(),
        Purpose::Tests => runs.chain(for_tests()).collect(),
        Purpose::Builds => runs.chain([for_builds()]).collect(),
        Purpose::Arm64 => runs.chain(for_arm64()).collect(),
    }
}

/// Additional packages for building a kernel; `crates/kernel-store/src/linux_source.rs` looks for the programs.
fn for_builds() -> SetupCheck {
    SetupCheck {
        name: "kernel build tools",
        why: "compile kernels, for `lab kernels build` and `lab bisect --tree`",
        probe: |host| provided(host, KERNEL_BUILD),
        fix: KERNEL_BUILD,
    }
}

/// Additional packages for guests of arm64.
fn for_arm64() -> [SetupCheck; 2] {
    [
        SetupCheck {
            name: "arm64 guests",
            why: "emulates guests of arm64, and links their agent",
            probe: |host| foreign(host, &private::ARM64),
            fix: Fix::Unpack(&private::ARM64),
        },
        SetupCheck {
            name: "arm64 libraries",
            why: "are what the agent of arm64 guests is built with",
            probe: |host| foreign(host, &private::ARM64_LIBRARIES),
            fix: Fix::Unpack(&private::ARM64_LIBRARIES),
        },
    ]
}

/// Debian's packages, whatever the host has of them.
fn foreign(host: &Host, set: &PackageSet) -> CheckState {
    match host.private.get(set.name) {
        Some(versions) => CheckState::Ok { found: format!("{}, in the cache", shown(set.roots, versions)) },
        None if host.on_debian() => CheckState::Missing { absent: vec![set.roots[0]] },
        None => CheckState::Unfit {
            found: "not in the cache".into(),
            advice: "they come from Debian's packages, by apt-get: run guests of arm64 on Debian".into(),
        },
    }
}

/// Additional packages for the project's own tests.
fn for_tests() -> [SetupCheck; 10] {
    [
        SetupCheck {
            name: "zstd",
            why: "packs the archive of `make dist`, which the tests install",
            probe: |host| provided(host, PACKERS),
            fix: PACKERS,
        },
        SetupCheck {
            name: "clang",
            why: "compiles the objects that `lab check` is tested with",
            probe: |host| provided(host, CLANG),
            fix: CLANG,
        },
        SetupCheck {
            name: "Chromium",
            why: "tests the HTML report in a browser, for the project's tests",
            probe: |host| provided(host, CHROMIUM),
            fix: CHROMIUM,
        },
        SetupCheck {
            name: "GnuPG",
            why: "signs package indexes of made-up mirrors in `make hostile`",
            probe: |host| provided(host, SIGNING),
            fix: SIGNING,
        },
        SetupCheck {
            name: "curl",
            why: "fetches jobs and kernels in the tests of `lab pull`",
            probe: |host| provided(host, TRANSFERS),
            fix: TRANSFERS,
        },
        SetupCheck {
            name: "C++ compiler",
            why: "builds libFuzzer for `make fuzz`",
            probe: |host| provided(host, CPP_COMPILER),
            fix: CPP_COMPILER,
        },
        SetupCheck {
            name: "report readers",
            why: "read JUnit, KTAP and KCIDB files as CI systems do, for the project's tests",
            probe: |host| match &host.test_tools {
                Some(tools) => CheckState::Ok { found: tools.python().display().to_string() },
                None => CheckState::Missing { absent: vec!["junitparser, kcidb-io, playwright-core and others"] },
            },
            fix: Fix::TestTools,
        },
        SetupCheck {
            name: "suites of others",
            why: "are run in guests by `make foreign`: cilium/ebpf, kernel selftests, psutil under pytest",
            probe: |host| of_debian(host, &private::SUITES, "run `make foreign` on Debian"),
            fix: Fix::Unpack(&private::SUITES),
        },
        SetupCheck {
            name: "Slurm",
            why: "runs the jobs of `lab plan --format slurm` on a cluster of four nodes, for `make test-slurm`",
            probe: |host| of_debian(host, &private::SLURM, "run `make test-slurm` on Debian"),
            fix: Fix::Unpack(&private::SLURM),
        },
        SetupCheck {
            name: "cargo-deny",
            why: "checks the dependencies in `make check`",
            probe: |host| match &host.cargo_deny {
                Some(path) => CheckState::Ok { found: path.display().to_string() },
                None => CheckState::Missing { absent: vec!["cargo-deny 0.20.2"] },
            },
            fix: Fix::CargoDeny,
        },
    ]
}

fn for_runs() -> Vec<SetupCheck> {
    vec![
        SetupCheck { name: "Rust", why: "builds the host runner and the guest agent", probe: rust, fix: Fix::ByHand },
        SetupCheck {
            name: "C compiler",
            why: "links programs; has the static C library for the guest agent",
            probe: |host| provided(host, COMPILER),
            fix: COMPILER,
        },
        SetupCheck { name: "QEMU", why: "runs the guests", probe: qemu, fix: QEMU },
        SetupCheck {
            name: "kernel tools",
            why: "verify, unpack and inspect kernel packages",
            probe: |host| provided(host, KERNEL_TOOLS),
            fix: KERNEL_TOOLS,
        },
        SetupCheck { name: "Python", why: "runs virtme-ng", probe: |host| provided(host, PYTHON), fix: PYTHON },
        SetupCheck { name: "pip", why: "installs virtme-ng", probe: |host| provided(host, PIP), fix: PIP },
        SetupCheck {
            name: "busybox",
            why: "the shell of `lab shell`; needed to boot a stock virtme-ng guest for `lab bench`",
            probe: |host| provided(host, BUSYBOX),
            fix: BUSYBOX,
        },
        SetupCheck {
            name: "network tools",
            why: "ip, tc, bpftool and others in `lab shell`",
            probe: network_tools,
            fix: NETWORK_TOOLS,
        },
        SetupCheck {
            name: "BPF compiler",
            why: "builds the BPF programs for bpfel-unknown-none",
            probe: bpf_compiler,
            fix: BPF_COMPILER,
        },
        SetupCheck {
            name: "libelf",
            why: "builds libbpf into the loader of `lab check`",
            probe: elf_library,
            fix: ELF_LIBRARY,
        },
        SetupCheck { name: "virtme-ng", why: "boots the guests", probe: virtme_ng, fix: Fix::VirtmeNg },
        SetupCheck { name: "bpf-linker", why: "links the BPF programs", probe: bpf_linker, fix: Fix::BpfLinker },
        SetupCheck {
            name: "passt",
            why: "connects guests to a network, for `lab exec --net pasta`",
            probe: passt,
            fix: Fix::Unpack(&private::PASST),
        },
        SetupCheck {
            name: "KVM",
            why: "runs guests fast; without it they run under TCG",
            probe: kvm,
            fix: Fix::ByHand,
        },
    ]
}

/// All Debian packages of all checks.
pub(super) fn packages() -> Vec<&'static str> {
    named(|fix| if let Fix::Packages { packages, .. } = fix { packages } else { &[] })
}

/// All commands of all checks.
pub(super) fn commands() -> Vec<&'static str> {
    named(|fix| if let Fix::Packages { commands, .. } = fix { commands } else { &[] })
}

fn named(of: fn(Fix) -> &'static [&'static str]) -> Vec<&'static str> {
    let every = checks(Purpose::Tests, false).into_iter().chain([for_builds()]);
    every.flat_map(|check| of(check.fix).iter().copied()).collect()
}

/// Looks for packages on Debian, since libraries have no command; for commands on other distributions.
fn provided(host: &Host, fix: Fix) -> CheckState {
    let Fix::Packages { packages, commands, set } = fix else { return CheckState::Missing { absent: vec![] } };
    let on_debian = host.on_debian();
    let names = if on_debian { packages } else { commands };
    let present = |name| if on_debian { host.packages.contains_key(name) } else { host.commands.contains(&name) };
    let absent: Vec<_> = names.iter().copied().filter(|name| !present(name)).collect();
    if !absent.is_empty() {
        let private = set.and_then(|set: &PackageSet| host.private.get(set.name));
        return private.map_or(CheckState::Missing { absent }, |versions| CheckState::Ok {
            found: format!("{}, in the cache", shown(packages, versions)),
        });
    }
    CheckState::Ok { found: shown(names, &host.packages) }
}

/// The first names, with their versions where they are known.
fn shown(names: &[&str], versions: &BTreeMap<String, String>) -> String {
    let shown = names.iter().map(|name| match versions.get(*name) {
        Some(version) => format!("{name} {version}"),
        None => (*name).to_owned(),
    });
    shown.take(2).collect::<Vec<_>>().join(", ")
}

/// Debian's packages, whatever the host has of them.
fn of_debian(host: &Host, set: &PackageSet, advice: &str) -> CheckState {
    match host.private.get(set.name) {
        Some(versions) => CheckState::Ok { found: format!("{}, in the cache", shown(&set.roots[1..], versions)) },
        None if host.on_debian() => CheckState::Missing { absent: vec![set.roots[1], "and others"] },
        None => CheckState::Warn {
            found: "not in the cache".into(),
            advice: format!("comes from Debian's packages, by apt-get: {advice}"),
        },
    }
}

/// Debian's own is used from the cache: that of Debian 12 lacks `--map-host-loopback`.
fn passt(host: &Host) -> CheckState {
    let set = &private::PASST;
    match host.private.get(set.name) {
        Some(versions) => CheckState::Ok { found: format!("{}, in the cache", shown(set.roots, versions)) },
        None if host.on_debian() => CheckState::Missing { absent: vec!["passt"] },
        None => CheckState::Warn {
            found: "not in the cache".into(),
            advice: "`lab exec --net pasta` uses the passt in PATH, if there is one of August 2024 or newer".into(),
        },
    }
}

/// Only interactive use needs these tools, so their absence is a warning.
fn network_tools(host: &Host) -> CheckState {
    match provided(host, NETWORK_TOOLS) {
        CheckState::Missing { absent } if !host.on_debian() => CheckState::Warn {
            found: format!("{} missing", absent.join(", ")),
            advice: "`lab shell` works, without these tools".into(),
        },
        state => state,
    }
}

fn rust(host: &Host) -> CheckState {
    let advice = || "install Rust 1.95 or newer, with rustup: `rustup update stable`".to_owned();
    match &host.rustc {
        Some(rustc) if rustc.version >= Some(RUST) => CheckState::Ok { found: rustc.version_text() },
        Some(rustc) => CheckState::Unfit { found: rustc.version_text(), advice: advice() },
        None => CheckState::Unfit { found: "no rustc in PATH".into(), advice: advice() },
    }
}

fn qemu(host: &Host) -> CheckState {
    let Some(qemu) = &host.qemu else { return provided(host, QEMU) };
    let found = format!("{} ({})", qemu.version_text(), qemu.path.display());
    match qemu.version {
        Some(version) if version >= QEMU_SERVES => CheckState::Ok { found },
        Some(_) if host.on_debian() && !host.qemu_chosen => {
            CheckState::Missing { absent: vec!["qemu-system-x86 9.0 or newer"] }
        }
        Some(version) if version >= QEMU_TRIED => CheckState::Ok { found },
        Some(_) => CheckState::Warn {
            found,
            advice: format!(
                "older than 7.2.0, the oldest that the lab was tested with; {QEMU_VARIABLE}=PATH chooses another"
            ),
        },
        None if host.qemu_chosen => CheckState::Unfit {
            found,
            advice: qemu.objection.clone().unwrap_or_else(|| format!("correct or unset {QEMU_VARIABLE}")),
        },
        None => CheckState::Unfit { found, advice: "reinstall qemu-system-x86".into() },
    }
}

fn bpf_compiler(host: &Host) -> CheckState {
    match (host.bpf_rust(), host.on_debian()) {
        (Some(BpfRust::Nightly), _) => CheckState::Ok { found: "rustup nightly with rust-src".into() },
        (Some(BpfRust::Debian | BpfRust::Private), _) | (None, true) => provided(host, BPF_COMPILER),
        (None, false) => CheckState::Unfit {
            found: "no rustup nightly with rust-src".into(),
            advice: "`rustup toolchain install nightly --component rust-src` and `cargo install bpf-linker`".into(),
        },
    }
}

/// Only `lab check` needs it. Other distributions' packages have other names, and some no archives.
fn elf_library(host: &Host) -> CheckState {
    if host.on_debian() {
        return provided(host, ELF_LIBRARY);
    }
    CheckState::Warn {
        found: "not looked for on this distribution".into(),
        advice: "`lab check` in a checkout needs gelf.h, zlib.h, libelf.a and libz.a".into(),
    }
}

fn virtme_ng(host: &Host) -> CheckState {
    match &host.virtme_ng {
        Some(path) => CheckState::Ok { found: path.display().to_string() },
        None => CheckState::Missing { absent: vec!["virtme-ng 1.42"] },
    }
}

fn bpf_linker(host: &Host) -> CheckState {
    let shown = |linker: &HostProgram| format!("{} ({})", linker.version_text(), linker.path.display());
    match &host.bpf_linker {
        Some(linker) if linker.version >= Some(BPF_LINKER) => CheckState::Ok { found: shown(linker) },
        Some(linker) if !host.on_debian() => {
            CheckState::Unfit { found: shown(linker), advice: "`cargo install bpf-linker`, 0.13.0 or newer".into() }
        }
        None if !host.on_debian() => CheckState::Unfit {
            found: "not in PATH".into(),
            advice: "`cargo install bpf-linker`, 0.13.0 or newer".into(),
        },
        _ => CheckState::Missing { absent: vec!["bpf-linker 0.13.0"] },
    }
}

fn kvm(host: &Host) -> CheckState {
    match &host.kvm {
        Kvm::Unknown | Kvm::Untried => CheckState::Ok {
            found: "/dev/kvm can create virtual machines; the next run tests whether a guest boots with KVM".into(),
        },
        Kvm::Forced(variable) => CheckState::Ok { found: format!("{variable} is set and decides whether KVM is used") },
        Kvm::Unusable(reason) => CheckState::Warn {
            found: reason.clone(),
            advice:
                "guests run under TCG, several times slower; if the machine has KVM, add your user to the group kvm"
                    .into(),
        },
        Kvm::Tried { verdict, .. } if verdict.accel == Accel::Kvm => CheckState::Ok { found: verdict.reason.clone() },
        Kvm::Tried { verdict, kept } => CheckState::Warn {
            found: verdict.reason.clone(),
            advice: format!("guests run under TCG, several times slower; remove {} to test KVM again", kept.display()),
        },
    }
}
