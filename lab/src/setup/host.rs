//! Facts about this machine, read once so that probes are pure functions.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{
    distribution::{Distribution, DistributionFamily},
    private,
    program::HostProgram,
    test_tools::TestTools,
};
use lab_vm::Acceleration;

/// The bpf-linker that is built for the lab, and the oldest one accepted from `PATH`.
pub(super) const BPF_LINKER: (u32, u32, u32) = (0, 13, 0);

/// The compiler for the BPF programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BpfRust {
    /// Debian's rustc-web, which has a prebuilt libcore for bpfel-unknown-none.
    Debian,
    /// Debian's rustc-web, unpacked into the cache.
    Private,
    /// A rustup nightly with the rust-src component, and bpf-linker in `PATH`.
    Nightly,
}

/// Facts about the machine.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Which distribution it is.
    pub distribution: Distribution,
    /// The packages of all checks that are installed, with their versions.
    pub packages: BTreeMap<String, String>,
    /// The commands of all checks that are in `PATH`.
    pub commands: Vec<&'static str>,
    /// The compiler for the host's own programs.
    pub rustc: Option<HostProgram>,
    /// The QEMU that will run guests.
    pub qemu: Option<HostProgram>,
    /// The sets of packages in the cache, by name: the versions of their packages.
    pub private: BTreeMap<&'static str, BTreeMap<String, String>>,
    /// Whether [`QEMU_VARIABLE`](super::QEMU_VARIABLE) chose it.
    pub qemu_chosen: bool,
    /// The pinned virtme-ng, if whole.
    pub virtme_ng: Option<PathBuf>,
    /// The pinned bpf-linker, or else one in `PATH`.
    pub bpf_linker: Option<HostProgram>,
    /// The programs that only the tests start, if whole.
    pub test_tools: Option<TestTools>,
    /// The pinned cargo-deny.
    pub cargo_deny: Option<PathBuf>,
    /// Whether a rustup nightly with rust-src is installed.
    pub nightly_rust_src: bool,
    /// State of KVM.
    pub kvm: Kvm,
    /// Whether this lab is installed: it builds nothing.
    pub installed: bool,
}

/// State of KVM on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kvm {
    /// Not checked.
    #[default]
    Unknown,
    /// A variable decides: its name and value.
    Forced(String),
    /// The device cannot be used; the reason.
    Unusable(String),
    /// The device can create virtual machines, but no guest was tested since this boot of the host with this QEMU.
    Untried,
    /// A guest was tested.
    Tried {
        /// The verdict.
        verdict: Acceleration,
        /// The file that keeps the verdict.
        kept: PathBuf,
    },
}

impl Host {
    /// Whether packages are managed by dpkg and apt.
    pub fn on_debian(&self) -> bool {
        self.distribution.family == DistributionFamily::Debian
    }

    /// The command that installs what is missing.
    pub const fn setup(&self) -> &'static str {
        if self.installed { "lab setup" } else { "make setup" }
    }

    /// The compiler that builds the BPF programs; `None` if there is none.
    ///
    /// Debian's is preferred where it is complete, since its libcore needs no build of the standard library.
    pub fn bpf_rust(&self) -> Option<BpfRust> {
        if private::BPF.roots.iter().all(|name| self.packages.contains_key(*name)) {
            return Some(BpfRust::Debian);
        }
        if self.private.contains_key(private::BPF.name) {
            return Some(BpfRust::Private);
        }
        let linker = self.bpf_linker.as_ref().and_then(|program| program.version);
        (self.nightly_rust_src && linker >= Some(BPF_LINKER)).then_some(BpfRust::Nightly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_compiler_is_preferred_when_complete() {
        let linker = HostProgram { path: "/x".into(), version: Some(BPF_LINKER), full: None, objection: None };
        let mut host = Host { nightly_rust_src: true, bpf_linker: Some(linker), ..Host::default() };
        assert_eq!(host.bpf_rust(), Some(BpfRust::Nightly));
        host.packages = private::BPF.roots.iter().map(|name| (name.to_string(), "1".into())).collect();
        assert_eq!(host.bpf_rust(), Some(BpfRust::Debian));
        host.packages.remove("rustc-web");
        host.bpf_linker = None;
        assert_eq!(host.bpf_rust(), None);
    }
}
