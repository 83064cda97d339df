//! The programs that compile a kernel, and what of the environment they read: parts of what a build's result depends on.

use super::files::Identity;
use lab_base::process;
use std::sync::OnceLock;

/// Programs whose output ends up in a kernel, or without which a part of it is left out (pahole: BTF).
const BUILDERS: [&str; 7] = ["gcc", "ld", "clang", "ld.lld", "rustc", "pahole", "make"];

/// Adds the programs to the identity of a build.
pub(super) fn identify(identity: &mut Identity) {
    for version in versions() {
        identity.add(version);
    }
}

/// Adds what of the environment they read, where it reaches them.
pub(super) fn identify_environment(identity: &mut Identity) {
    for (name, value) in std::env::vars_os().filter(|(name, _)| is_kbuilds(&name.to_string_lossy())) {
        identity.add(name.as_encoded_bytes()).add(value.as_encoded_bytes());
    }
}

/// What the builders say of themselves, asked once; nothing where one is not installed.
fn versions() -> &'static [String] {
    static VERSIONS: OnceLock<Vec<String>> = OnceLock::new();
    let version = |program: &str| {
        process::command(program, ["--version"]).stderr_to_stdout().unchecked().read().unwrap_or_default()
    };
    VERSIONS.get_or_init(|| BUILDERS.map(version).to_vec())
}

/// Whether kbuild or Kconfig reads a variable of the environment (Documentation/kbuild/kbuild.rst, kconfig.rst).
fn is_kbuilds(name: &str) -> bool {
    const NAMES: [&str; 29] = [
        "ARCH",
        "SRCARCH",
        "CROSS_COMPILE",
        "LLVM",
        "LLVM_IAS",
        "CC",
        "LD",
        "AR",
        "NM",
        "AS",
        "OBJCOPY",
        "OBJDUMP",
        "READELF",
        "STRIP",
        "PAHOLE",
        "RUSTC",
        "HOSTCC",
        "HOSTCXX",
        "HOSTLD",
        "CPP",
        "KCFLAGS",
        "KAFLAGS",
        "KCPPFLAGS",
        "KRUSTFLAGS",
        "CFLAGS_KERNEL",
        "CFLAGS_MODULE",
        "LDFLAGS_vmlinux",
        "LDFLAGS_MODULE",
        "LOCALVERSION",
    ];
    NAMES.contains(&name) || ["KBUILD_", "KCONFIG_", "INSTALL_MOD_"].iter().any(|prefix| name.starts_with(prefix))
}
