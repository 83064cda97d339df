//! Everything the lab needs, in the order in which it has to come about.

use super::{
    check::{Check, Fix, Purpose, State},
    host::{BPF_LINKER, BpfRust, Host, Kvm},
    private::{self, Set},
    program::{Program, QEMU_SERVES, QEMU_VARIABLE},
};
use lab_vm::Accel;
use std::collections::BTreeMap;

/// The oldest compiler that builds the workspace; `rust-version` of the root Cargo.toml.
const RUST: (u32, u32, u32) = (1, 95, 0);

/// The oldest that the lab was tried with; Debian 12's.
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

const KERNEL_BUILD: Fix = Fix::Packages {
    packages: &["make", "flex", "bison", "bc", "libelf-dev"],
    commands: &["make", "flex", "bison", "bc"],
    set: None,
};

const PACKERS: Fix = Fix::Packages { packages: &["zstd"], commands: &["zstd"], set: None };

const CHROMIUM: Fix = Fix::Packages { packages: &["chromium"], commands: &["chromium"], set: None };

/// Checks of what builds the lab and its guests' programs; a lab that is installed needs none of it.
const BUILDS: [&str; 4] = ["Rust", "C compiler", "BPF compiler", "bpf-linker"];

/// The list behind both `lab doctor` and `lab setup`.
pub fn checks(purpose: Purpose, installed: bool) -> Vec<Check> {
    let runs = for_runs().into_iter().filter(|check| !installed || !BUILDS.contains(&check.name));
    match purpose {
        Purpose::Runs => runs.collect(),
        Purpose::Tests => runs.chain(for_tests()).collect(),
        Purpose::Builds => runs.chain([for_builds()]).collect(),
    }
}

/// What building a kernel needs beside; `crates/kernel-store/src/linux_source.rs` looks for the programs themselves.
fn for_builds() -> Check {
    Check {
        name: "kernel build tools",
        why: "compile kernels, for `lab kernels build` and `lab bisect --tree`",
        probe: |host| provided(host, KERNEL_BUILD),
        fix: KERNEL_BUILD,
    }
}

/// What the project's own tests need beside.
fn for_tests() -> [Check; 4] {
    [
        Check {
            name: "zstd",
            why: "packs the archive of `make dist`, which the tests install",
            probe: |host| provided(host, PACKERS),
            fix: PACKERS,
        },
        Check {
            name: "Chromium",
            why: "clicks and filters the HTML report in the tests",
            probe: |host| provided(host, CHROMIUM),
            fix: CHROMIUM,
        },
        Check {
            name: "report readers",
            why: "read JUnit, KTAP and KCIDB files in the tests, as CI systems do",
            probe: |host| match &host.test_tools {
                Some(tools) => State::Ok { found: tools.python().display().to_string() },
                None => State::Missing { absent: vec!["junitparser, kcidb-io, playwright-core and others"] },
            },
            fix: Fix::TestTools,
        },
        Check {
            name: "cargo-deny",
            why: "checks the dependencies in `make check`",
            probe: |host| match &host.cargo_deny {
                Some(path) => State::Ok { found: path.display().to_string() },
                None => State::Missing { absent: vec!["cargo-deny 0.20.2"] },
            },
            fix: Fix::CargoDeny,
        },
    ]
}

fn for_runs() -> Vec<Check> {
    vec![
        Check { name: "Rust", why: "builds the host runner and the guest agent", probe: rust, fix: Fix::ByHand },
        Check {
            name: "C compiler",
            why: "links, and brings the static C library of the guest agent",
            probe: |host| provided(host, COMPILER),
            fix: COMPILER,
        },
        Check { name: "QEMU", why: "runs the guests", probe: qemu, fix: QEMU },
        Check {
            name: "kernel tools",
            why: "verify, unpack and inspect kernel packages",
            probe: |host| provided(host, KERNEL_TOOLS),
            fix: KERNEL_TOOLS,
        },
        Check { name: "Python", why: "runs virtme-ng", probe: |host| provided(host, PYTHON), fix: PYTHON },
        Check { name: "pip", why: "installs virtme-ng", probe: |host| provided(host, PIP), fix: PIP },
        Check {
            name: "busybox",
            why: "the shell of `lab shell`, and how a stock virtme-ng boots for `lab bench`",
            probe: |host| provided(host, BUSYBOX),
            fix: BUSYBOX,
        },
        Check {
            name: "network tools",
            why: "are what a person finds in `lab shell`",
            probe: network_tools,
            fix: NETWORK_TOOLS,
        },
        Check {
            name: "BPF compiler",
            why: "builds the BPF programs for bpfel-unknown-none",
            probe: bpf_compiler,
            fix: BPF_COMPILER,
        },
        Check { name: "virtme-ng", why: "boots the guests", probe: virtme_ng, fix: Fix::VirtmeNg },
        Check { name: "bpf-linker", why: "links the BPF programs", probe: bpf_linker, fix: Fix::BpfLinker },
        Check { name: "KVM", why: "makes guests fast; without it they run under TCG", probe: kvm, fix: Fix::ByHand },
    ]
}

/// Every Debian package that any check names.
pub(super) fn packages() -> Vec<&'static str> {
    named(|fix| if let Fix::Packages { packages, .. } = fix { packages } else { &[] })
}

/// Every command that any check names.
pub(super) fn commands() -> Vec<&'static str> {
    named(|fix| if let Fix::Packages { commands, .. } = fix { commands } else { &[] })
}

fn named(of: fn(Fix) -> &'static [&'static str]) -> Vec<&'static str> {
    let every = checks(Purpose::Tests, false).into_iter().chain([for_builds()]);
    every.flat_map(|check| of(check.fix).iter().copied()).collect()
}

/// On Debian a package is the evidence, since libraries have no command; elsewhere only commands can be.
fn provided(host: &Host, fix: Fix) -> State {
    let Fix::Packages { packages, commands, set } = fix else { return State::Missing { absent: vec![] } };
    let on_debian = host.on_debian();
    let names = if on_debian { packages } else { commands };
    let present = |name| if on_debian { host.packages.contains_key(name) } else { host.commands.contains(&name) };
    let absent: Vec<_> = names.iter().copied().filter(|name| !present(name)).collect();
    if !absent.is_empty() {
        let private = set.and_then(|set: &Set| host.private.get(set.name));
        return private.map_or(State::Missing { absent }, |versions| State::Ok {
            found: format!("{}, in the cache", shown(packages, versions)),
        });
    }
    State::Ok { found: shown(names, &host.packages) }
}

/// The first names, with their versions where they are known.
fn shown(names: &[&str], versions: &BTreeMap<String, String>) -> String {
    let shown = names.iter().map(|name| match versions.get(*name) {
        Some(version) => format!("{name} {version}"),
        None => (*name).to_owned(),
    });
    shown.take(2).collect::<Vec<_>>().join(", ")
}

/// Nothing but a person needs them, so that a distribution that calls their packages otherwise does well without.
fn network_tools(host: &Host) -> State {
    match provided(host, NETWORK_TOOLS) {
        State::Missing { absent } if !host.on_debian() => State::Warn {
            found: format!("{} missing", absent.join(", ")),
            advice: "`lab shell` does without what is not there".into(),
        },
        state => state,
    }
}

fn rust(host: &Host) -> State {
    let advice = || "install Rust 1.95 or newer, with rustup: `rustup update stable`".to_owned();
    match &host.rustc {
        Some(rustc) if rustc.version >= Some(RUST) => State::Ok { found: rustc.version_text() },
        Some(rustc) => State::Unfit { found: rustc.version_text(), advice: advice() },
        None => State::Unfit { found: "no rustc in PATH".into(), advice: advice() },
    }
}

fn qemu(host: &Host) -> State {
    let Some(qemu) = &host.qemu else { return provided(host, QEMU) };
    let found = format!("{} ({})", qemu.version_text(), qemu.path.display());
    match qemu.version {
        Some(version) if version >= QEMU_SERVES => State::Ok { found },
        Some(_) if host.on_debian() && !host.qemu_chosen => {
            State::Missing { absent: vec!["qemu-system-x86 9.0 or newer"] }
        }
        Some(version) if version >= QEMU_TRIED => State::Ok { found },
        Some(_) => State::Warn {
            found,
            advice: format!("older than any that the lab was tried with, 7.2.0; {QEMU_VARIABLE}=PATH chooses another"),
        },
        None if host.qemu_chosen => State::Unfit { found, advice: format!("correct or unset {QEMU_VARIABLE}") },
        None => State::Unfit { found, advice: "reinstall qemu-system-x86".into() },
    }
}

fn bpf_compiler(host: &Host) -> State {
    match (host.bpf_rust(), host.on_debian()) {
        (Some(BpfRust::Nightly), _) => State::Ok { found: "rustup nightly with rust-src".into() },
        (Some(BpfRust::Debian | BpfRust::Private), _) | (None, true) => provided(host, BPF_COMPILER),
        (None, false) => State::Unfit {
            found: "no rustup nightly with rust-src".into(),
            advice: "`rustup toolchain install nightly --component rust-src` and `cargo install bpf-linker`".into(),
        },
    }
}

fn virtme_ng(host: &Host) -> State {
    match &host.virtme_ng {
        Some(path) => State::Ok { found: path.display().to_string() },
        None => State::Missing { absent: vec!["virtme-ng 1.42"] },
    }
}

fn bpf_linker(host: &Host) -> State {
    let shown = |linker: &Program| format!("{} ({})", linker.version_text(), linker.path.display());
    match &host.bpf_linker {
        Some(linker) if linker.version >= Some(BPF_LINKER) => State::Ok { found: shown(linker) },
        Some(linker) if !host.on_debian() => {
            State::Unfit { found: shown(linker), advice: "`cargo install bpf-linker`, 0.13.0 or newer".into() }
        }
        None if !host.on_debian() => {
            State::Unfit { found: "not in PATH".into(), advice: "`cargo install bpf-linker`, 0.13.0 or newer".into() }
        }
        _ => State::Missing { absent: vec!["bpf-linker 0.13.0"] },
    }
}

fn kvm(host: &Host) -> State {
    match &host.kvm {
        Kvm::Unknown | Kvm::Untried => State::Ok {
            found: "/dev/kvm makes virtual machines; the next run tries whether a guest boots in one".into(),
        },
        Kvm::Forced(variable) => State::Ok { found: format!("{variable} decides") },
        Kvm::Unusable(reason) => State::Warn {
            found: reason.clone(),
            advice: "guests run under TCG, several times slower; where the machine has KVM, join the group kvm".into(),
        },
        Kvm::Tried { verdict, .. } if verdict.accel == Accel::Kvm => State::Ok { found: verdict.reason.clone() },
        Kvm::Tried { verdict, kept } => State::Warn {
            found: verdict.reason.clone(),
            advice: format!(
                "guests run under TCG, several times slower; remove {} to have it tried again",
                kept.display()
            ),
        },
    }
}
