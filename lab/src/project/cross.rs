//! Builds the agent for guests of another architecture: with the compiler of the BPF programs, whose standard library Debian has
//! for every architecture, and static, so that neither a C compiler nor a loader of that architecture is needed.

use super::{
    agent_package::AgentPackage,
    artifacts::{ArtifactError, Builder, MESSAGES, executable, read_artifact},
    bpf_toolchain::BpfToolchain,
    commit,
    cross_error::CrossError,
    home::Home,
};
use crate::setup::Tools;
use lab_base::{arch::Architecture, held::HeldFile};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// cargo's and rustc's name of the target.
const TARGET: &str = "aarch64-unknown-linux-gnu";
/// cargo's target directory. It is not the host's agent's: that has another compiler.
const DIRECTORY: &str = "target/guest-arm64";
/// In messages.
const WHAT: &str = "the guest agent for arm64";
/// The package of the standard library.
const LIBRARY: &str = "libstd-rust-web-dev";

/// What makes the static program position-independent, as [`flags`] needs it. rustc has such programs for x86-64
/// (`static_position_independent_executables` of its target), and for this target it names `-static` alone.
const POSITION_INDEPENDENT: [&str; 3] = ["-Clink-arg=-pie", "-Clink-arg=--no-dynamic-linker", "-Clink-arg=-ztext"];

impl Builder<'_> {
    /// The agent for guests of this architecture, which is not the lab's own.
    ///
    /// # Errors
    /// What it is built with is missing, cargo failed, or with `no_build` it was never built.
    pub fn agent_for(&self, architecture: Architecture, no_build: bool) -> Result<HeldFile, ArtifactError> {
        let package = AgentPackage::load(self.project)?;
        if matches!(self.home, Home::Installed { .. }) && package.directory.is_none() {
            return Err(CrossError::OneArchitecture { architecture }.into());
        }
        let target = self.target_dir(DIRECTORY);
        if no_build {
            let _lock = self.beside()?;
            return read_artifact(WHAT, target.join(TARGET).join("release").join(&package.name));
        }
        let _lock = self.alone(&package)?;
        read_artifact(WHAT, self.cross_build(&package, &target, architecture)?)
    }

    fn cross_build(
        &self,
        package: &AgentPackage,
        target: &Path,
        architecture: Architecture,
    ) -> Result<PathBuf, ArtifactError> {
        let tools = Tools::in_cache(self.cache);
        let (programs, libraries) = tools.arm64().ok_or(CrossError::NoTools { architecture })?;
        let BpfToolchain::Packaged { rustc, cargo } = BpfToolchain::detect(&tools) else {
            return Err(CrossError::NoTools { architecture }.into());
        };
        let library = libraries.versions().remove(LIBRARY).unwrap_or_default();
        same_version(&rustc, &library)?;
        let mut args: Vec<OsString> =
            ["rustc", "--release", "--quiet", "--target", TARGET, "--package"].map(Into::into).into();
        args.extend([package.name.clone().into(), "--bin".into(), package.name.clone().into()]);
        args.extend(["--target-dir".into(), target.into(), MESSAGES.into()]);
        if let Some(directory) = &package.directory {
            args.extend(["--manifest-path".into(), directory.join("Cargo.toml").into()]);
        }
        args.push("--".into());
        args.extend(POSITION_INDEPENDENT.map(Into::into));
        let mut command = duct::cmd(cargo.as_os_str(), args).dir(self.root());
        // Variables that a surrounding cargo or rustup sets are for another compiler.
        for name in ["RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
        {
            command = command.env_remove(name);
        }
        let command = command
            .env("CARGO_ENCODED_RUSTFLAGS", flags(&programs.program("aarch64-linux-gnu-ld"), libraries.root()))
            .env("RUSTC", rustc)
            .env(commit::VARIABLE, self.agent_commit(package));
        let messages = self.run(WHAT, &cargo.to_string_lossy(), command)?;
        executable(&messages, &package.name).ok_or(ArtifactError::Unnamed { what: WHAT })
    }
}

/// Flags of rustc, in the encoded form, whose separator can't occur in paths. The linker is called directly, so the C library's
/// start files, and the libraries that a compiler adds, are named here (for `-static-pie`: GCC's `STARTFILE_SPEC`, `ENDFILE_SPEC`
/// and `LIB_SPEC`, gcc/config/gnu-user.h). rustc puts them behind its own, where those of a program at a fixed address must not
/// be: libc.a would define `_dl_relocate_static_pie` before crt1.o.
fn flags(linker: &Path, libraries: &Path) -> OsString {
    let place = |of: &str| libraries.join("usr/lib").join(of);
    let (c, gcc) = (place("aarch64-linux-gnu"), place("gcc/aarch64-linux-gnu/12"));
    let start = [c.join("rcrt1.o"), c.join("crti.o"), gcc.join("crtbeginS.o")];
    let end = [gcc.join("crtendS.o"), c.join("crtn.o")];
    let with = |flag: &str, path: &Path| {
        let mut word = OsString::from(flag);
        word.push(path);
        word
    };
    let mut words: Vec<OsString> = vec![
        with("-Lall=", &place("rustlib").join(TARGET).join("lib")),
        "-Ctarget-feature=+crt-static".into(),
        "-Clinker-flavor=ld".into(),
        with("-Clinker=", linker),
        with("-Clink-arg=-L", &c),
        with("-Clink-arg=-L", &gcc),
    ];
    words.extend(start.iter().map(|path| with("-Clink-arg=", path)));
    let between = ["--start-group", "-lgcc", "-lgcc_eh", "-lc", "--end-group"];
    words.extend(between.map(|word| format!("-Clink-arg={word}").into()));
    words.extend(end.iter().map(|path| with("-Clink-arg=", path)));
    words.join("\u{1f}".as_ref())
}

/// Refuses a standard library of another compiler: rustc would complain about each crate.
fn same_version(rustc: &Path, library: &str) -> Result<(), ArtifactError> {
    let start = |cause| ArtifactError::Start { what: WHAT, program: rustc.display().to_string(), cause };
    let said = duct::cmd!(rustc, "--version").stdin_null().stderr_null().read().map_err(start)?;
    let compiler = said.split_whitespace().nth(1).unwrap_or_default();
    let of_library = library.split(['+', '-']).next().unwrap_or_default();
    if compiler == of_library {
        return Ok(());
    }
    Err(CrossError::OtherLibrary { compiler: compiler.to_owned(), library: library.to_owned() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn start_files_come_before_the_libraries_and_end_files_behind_them() {
        let flags = flags(Path::new("/t/ld"), Path::new("/a b")).into_string().unwrap();
        let words: Vec<&str> = flags.split('\u{1f}').collect();
        let at =
            |end: &str| words.iter().position(|word| word.ends_with(end)).unwrap_or_else(|| panic!("{end}: {words:?}"));
        let order = ["/rcrt1.o", "/crti.o", "/crtbeginS.o", "-lc", "/crtendS.o", "/crtn.o"].map(at);
        assert!(order.is_sorted(), "{words:?}");
        assert!(words.contains(&"-Clink-arg=/a b/usr/lib/aarch64-linux-gnu/rcrt1.o"));
    }

    #[test]
    fn a_library_of_another_compiler_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let rustc = dir.path().join("rustc");
        fs::write(&rustc, "#!/bin/sh\necho 'rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)'\n")
            .unwrap();
        fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755)).unwrap();
        same_version(&rustc, "1.96.0+dfsg1-1~deb13u1+b1").unwrap();
        let error = same_version(&rustc, "1.97.1+dfsg1-1").unwrap_err().to_string();
        assert!(error.contains("1.96.0") && error.contains("1.97.1+dfsg1-1"), "{error}");
    }
}
