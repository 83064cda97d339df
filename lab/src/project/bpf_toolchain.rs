//! The compiler for eBPF programs.

use crate::setup::Tools;
use std::path::{Path, PathBuf};

/// cargo's and rustc's name of the target.
pub(super) const BPF_TARGET: &str = "bpfel-unknown-none";
const PACKAGED_RUSTC: &str = "/usr/bin/rustc";
const PACKAGED_CARGO: &str = "/usr/bin/cargo";

/// Toolchain for eBPF programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BpfToolchain {
    /// The distribution's compiler with a prebuilt core library, installed or in the cache.
    Packaged { rustc: PathBuf, cargo: PathBuf },
    /// A nightly toolchain with the library's sources.
    Nightly,
}

impl BpfToolchain {
    /// If there is no nightly toolchain, cargo reports this later; calling rustup here might install it.
    pub fn detect(tools: &Tools) -> Self {
        let libraries = duct::cmd!(PACKAGED_RUSTC, "--print", "target-libdir", "--target", BPF_TARGET);
        let prebuilt = libraries.stdin_null().stderr_null().read().is_ok_and(|path| Path::new(path.trim()).is_dir());
        if prebuilt && Path::new(PACKAGED_CARGO).is_file() {
            return Self::Packaged { rustc: PACKAGED_RUSTC.into(), cargo: PACKAGED_CARGO.into() };
        }
        let private = tools.bpf();
        private.map_or(Self::Nightly, |set| Self::Packaged { rustc: set.program("rustc"), cargo: set.program("cargo") })
    }

    pub fn cargo(&self) -> &Path {
        match self {
            Self::Packaged { cargo, .. } => cargo,
            Self::Nightly => Path::new("cargo"),
        }
    }

    pub const fn arguments(&self) -> &'static [&'static str] {
        match self {
            Self::Packaged { .. } => &["build", "--release", "--locked", "--quiet", "--target", BPF_TARGET],
            Self::Nightly => {
                &["+nightly", "build", "--release", "--locked", "--quiet", "--target", BPF_TARGET, "-Zbuild-std=core"]
            }
        }
    }
}
