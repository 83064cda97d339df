//! Reads the facts about this host.

use super::{
    apt, catalogue,
    distribution::{Distribution, DistributionFamily},
    host::{Host, Kvm},
    program::{HostProgram, chosen_qemu},
    tools::Tools,
};
use crate::project::home::Home;
use lab_base::programs;
use lab_vm::{
    accel::{self, ACCEL_VARIABLE},
    kvm, qemu_version,
};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

impl Host {
    /// Reads the facts about the machine. Changes nothing, and takes as long as the slowest of a few `--version` calls.
    pub fn look(tools: &Tools) -> Self {
        let qemu_chosen = chosen_qemu().is_some();
        let distribution = Distribution::of_this_host();
        let debian = distribution.family == DistributionFamily::Debian;
        thread::scope(|scope| {
            let packages = debian.then(|| scope.spawn(|| apt::installed(&catalogue::packages())));
            let rustc = scope.spawn(|| programs::on_host("rustc").map(HostProgram::ask));
            let cache = tools.dir().parent().unwrap_or(tools.dir());
            let qemu = scope.spawn(|| {
                let qemu = tools.qemu();
                let kvm = kvm(cache, qemu.as_ref().map(|qemu| &*qemu.path));
                (qemu, kvm)
            });
            let linker = scope
                .spawn(|| tools.pinned_bpf_linker().or_else(|| programs::on_host("bpf-linker")).map(HostProgram::ask));
            let (qemu, kvm) = joined(qemu);
            Self {
                commands: catalogue::commands().into_iter().filter(|name| programs::on_host(name).is_some()).collect(),
                qemu_chosen,
                private: tools.private(),
                virtme_ng: tools.virtme_ng(),
                test_tools: tools.test_tools(),
                cargo_deny: tools.cargo_deny(),
                nightly_rust_src: nightly_rust_src(),
                kvm,
                packages: packages.map(|thread| joined(thread)).unwrap_or_default(),
                rustc: joined(rustc),
                qemu,
                bpf_linker: joined(linker),
                distribution: distribution.clone(),
                installed: Home::is_installed(),
            }
        })
    }
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Looks at the directories instead of calling rustup, which might install the toolchain that is asked for.
fn nightly_rust_src() -> bool {
    let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|dir| dir.join(".rustup")));
    let toolchains = home.and_then(|dir| fs::read_dir(dir.join("toolchains")).ok());
    toolchains.into_iter().flatten().flatten().any(|entry| {
        entry.file_name().to_string_lossy().starts_with("nightly-")
            && entry.path().join("lib/rustlib/src/rust/library/core").is_dir()
    })
}

/// The state of KVM for a run with this QEMU, without booting a guest.
fn kvm(cache: &Path, qemu: Option<&Path>) -> Kvm {
    if let Some(value) = std::env::var(ACCEL_VARIABLE).ok().filter(|value| !value.is_empty()) {
        return Kvm::Forced(format!("{ACCEL_VARIABLE}={value}"));
    }
    if let Err(unusable) = kvm::usable() {
        return Kvm::Unusable(unusable.to_string());
    }
    let verdict = qemu_version(qemu).ok().and_then(|version| accel::remembered(cache, &version, qemu));
    verdict.map_or(Kvm::Untried, |verdict| Kvm::Tried { verdict, kept: accel::kept_in(cache) })
}
