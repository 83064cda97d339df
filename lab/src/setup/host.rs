//! What there is on this machine, looked up once so that probes are pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use duct::cmd;

use super::{private, test_tools::TestTools};
use lab_vm::qemu_version;

/// The oldest that serves where there is a newer one to be had: 7.2 leaves wrong flags behind cmpxchg16b.
pub(super) const QEMU_SERVES: (u32, u32, u32) = (9, 0, 0);

/// The bpf-linker that is built for the lab, and the oldest one accepted from `PATH`.
pub(super) const BPF_LINKER: (u32, u32, u32) = (0, 13, 0);

/// Debian's compiler for bpfel-unknown-none and the LLVM that bpf-linker is built against.
pub(super) const BPF_RUST: &[&str] =
    &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "rust-web-llvm", "llvm-22-dev", "libpolly-22-dev"];

/// Names the QEMU binary to use in place of the first `qemu-system-x86_64` in `PATH`.
pub const QEMU_VARIABLE: &str = "NETKIT_LAB_QEMU";

/// The QEMU that the user chose through [`QEMU_VARIABLE`].
pub fn chosen_qemu() -> Option<PathBuf> {
    std::env::var_os(QEMU_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A program that was started to learn its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// Major, minor and patch; `None` where it did not start or printed no version.
    pub version: Option<(u32, u32, u32)>,
}

impl Program {
    pub(super) fn ask(path: PathBuf) -> Self {
        let output = cmd(&path, ["--version"]).stdin_null().stderr_to_stdout().unchecked().read();
        Self { version: output.ok().and_then(|text| first_version(&text)), path }
    }

    /// As [`Self::ask`], of what is to be QEMU: another program's version is none.
    pub(super) fn ask_qemu(path: PathBuf) -> Self {
        let version = qemu_version(Some(&path)).ok().and_then(|text| first_version(&text));
        Self { version, path }
    }

    /// The version as `1.2.3`, or a remark that there is none.
    pub fn version_text(&self) -> String {
        self.version.map_or("does not start".into(), |(major, minor, patch)| format!("{major}.{minor}.{patch}"))
    }
}

/// Which compiler turns the BPF programs into an object file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BpfRust {
    /// Debian's rustc-web, which has a prebuilt libcore for bpfel-unknown-none.
    Debian,
    /// The same, unpacked into the cache.
    Private,
    /// A rustup nightly with the rust-src component, and bpf-linker in `PATH`.
    Nightly,
}

/// A snapshot of the machine.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The distribution's name where packages are managed by dpkg and apt, else `None`.
    pub debian: Option<String>,
    /// Installed ones among the packages any check names, with their versions.
    pub packages: BTreeMap<String, String>,
    /// Commands, among those any check names, that are in `PATH`.
    pub commands: Vec<&'static str>,
    /// The compiler for the host's own programs.
    pub rustc: Option<Program>,
    /// The QEMU that will run guests.
    pub qemu: Option<Program>,
    /// The sets of packages in the cache, by name: the versions of their packages.
    pub private: BTreeMap<&'static str, BTreeMap<String, String>>,
    /// Whether [`QEMU_VARIABLE`] chose it.
    pub qemu_chosen: bool,
    /// The pinned virtme-ng, if whole.
    pub virtme_ng: Option<PathBuf>,
    /// The pinned bpf-linker, or else one in `PATH`.
    pub bpf_linker: Option<Program>,
    /// The programs that only the tests start, if whole.
    pub test_tools: Option<TestTools>,
    /// Whether a rustup nightly with rust-src is installed.
    pub nightly_rust_src: bool,
    /// Whether this user may open /dev/kvm: `Err` says why not.
    pub kvm: Option<Result<(), String>>,
}

impl Host {
    /// Which compiler the BPF programs are built with; `None` while there is neither.
    ///
    /// Debian's is preferred where it is complete, since its libcore needs no build of the standard library.
    pub fn bpf_rust(&self) -> Option<BpfRust> {
        if BPF_RUST.iter().all(|name| self.packages.contains_key(*name)) {
            return Some(BpfRust::Debian);
        }
        if self.private.contains_key(private::BPF.name) {
            return Some(BpfRust::Private);
        }
        let linker = self.bpf_linker.as_ref().and_then(|program| program.version);
        (self.nightly_rust_src && linker >= Some(BPF_LINKER)).then_some(BpfRust::Nightly)
    }
}

/// The first dotted number in a program's version line.
fn first_version(text: &str) -> Option<(u32, u32, u32)> {
    let candidates = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    let mut dotted = candidates.filter(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()));
    dotted.find_map(|word| {
        let mut parts = word.split('.').map(str::parse::<u32>);
        let major = parts.next()?.ok()?;
        let minor = parts.next()?.ok()?;
        Some((major, minor, parts.next().and_then(Result::ok).unwrap_or(0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_real_output() {
        let cases = [
            ("rustc 1.95.0 (59807616e 2026-04-14)", Some((1, 95, 0))),
            ("rustc 1.97.0-nightly (e50aa6fba 2026-05-19)", Some((1, 97, 0))),
            ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", Some((7, 2, 22))),
            ("QEMU emulator version 10.0 (custom)", Some((10, 0, 0))),
            ("bpf-linker 0.13.0", Some((0, 13, 0))),
            ("error while loading shared libraries: libLLVM.so.22.1: no such file", None),
            ("...", None),
            ("", None),
        ];
        for (text, version) in cases {
            assert_eq!(first_version(text), version, "{text}");
        }
    }

    #[test]
    fn debian_compiler_is_preferred_when_complete() {
        let linker = Program { path: "/x".into(), version: Some(BPF_LINKER) };
        let mut host = Host { nightly_rust_src: true, bpf_linker: Some(linker), ..Host::default() };
        assert_eq!(host.bpf_rust(), Some(BpfRust::Nightly));
        host.packages = BPF_RUST.iter().map(|name| (name.to_string(), "1".into())).collect();
        assert_eq!(host.bpf_rust(), Some(BpfRust::Debian));
        host.packages.remove("rustc-web");
        host.bpf_linker = None;
        assert_eq!(host.bpf_rust(), None);
    }
}
