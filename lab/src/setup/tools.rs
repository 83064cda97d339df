//! The pinned tools in the cache: virtme-ng and bpf-linker.
//! Each tool is renamed to its final name only after it was built and printed its version, so that an interrupted setup
//! leaves nothing that a later run would use.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use duct::{Expression, cmd};
use lab_base::{facts::Facts, programs};
use lab_guard::private as trusted;
use lab_kernel_store::BpfCompiler;
use lab_vm::{has_sandbox, has_stream_memory};

use super::error::SetupError;
use super::{
    distribution::Distribution,
    private::{self, PackageSet, UnpackedSet},
    program::{self, HostProgram, QEMU_SERVES, chosen_qemu},
    progress::Progress,
};

/// virtme-ng's version.
pub const VIRTME_NG_VERSION: &str = "1.42";
/// Its directory, which has the version in its name.
const VIRTME_NG: &str = "virtme-ng-1.42";
const BPF_LINKER_VERSION: &str = "0.13.0";
const CARGO_DENY_VERSION: &str = "0.20.2";
/// Its directory; scripts/deny uses the same name.
const CARGO_DENY: &str = "cargo-deny-0.20.2";
/// Path of Debian's LLVM, in the root of the host or of a set.
const LLVM: &str = "usr/lib/llvm-22";
/// Debian's name of the compiler for eBPF, where it is installed and not in the cache.
const CLANG: &str = "clang-19";
/// Prefixes of directories in which something is being built; `VENV` ones stay if a link names them.
const VENV: &str = "venv-";
const BUILD: &str = "build-";

/// The directory of the pinned tools.
#[derive(Clone, Debug)]
pub struct Tools {
    dir: PathBuf,
}

impl Tools {
    /// The tools under the given cache directory.
    pub fn in_cache(cache: &Path) -> Self {
        Self { dir: programs::tools(cache) }
    }

    /// The pinned `vng`, if it and its Python interpreter exist.
    pub fn virtme_ng(&self) -> Option<PathBuf> {
        let bin = self.dir.join(VIRTME_NG).join("bin");
        // An upgrade of the distribution may remove the interpreter of a virtual environment.
        (bin.join("python3").exists() && bin.join("vng").exists()).then(|| bin.join("vng"))
    }

    /// The `bpf-linker` built by setup, if there.
    pub fn pinned_bpf_linker(&self) -> Option<PathBuf> {
        Some(self.dir.join("bin/bpf-linker")).filter(|path| path.exists())
    }

    /// The pinned `cargo-deny`, if there.
    pub fn cargo_deny(&self) -> Option<PathBuf> {
        Some(self.dir.join(CARGO_DENY).join("bin/cargo-deny")).filter(|path| path.exists())
    }

    /// The QEMU that runs guests, in this order: the user's choice, the host's if it is new enough, the one in the
    /// cache, any other of the host.
    pub fn qemu(&self) -> Option<HostProgram> {
        self.qemu_by(HostProgram::ask_qemu)
    }

    /// As [`Self::qemu`], with answers that were kept: starting QEMU to ask it takes a tenth of a short run.
    pub fn known_qemu(&self, facts: &Facts) -> Option<HostProgram> {
        self.qemu_by(|path| HostProgram::known_qemu(path, facts, &self.dir))
    }

    /// Whether this QEMU was built with its sandbox. Only that it was is kept: what failed once may not fail again.
    pub fn has_sandbox(&self, qemu: &Path, facts: &Facts) -> bool {
        self.has(qemu, facts, "QEMU's sandbox", has_sandbox)
    }

    /// Whether this QEMU has the device with memory for a program's streams, otherwise as [`Self::has_sandbox`].
    pub fn has_stream_memory(&self, qemu: &Path, facts: &Facts) -> bool {
        self.has(qemu, facts, "QEMU's ivshmem-plain", has_stream_memory)
    }

    fn has(&self, qemu: &Path, facts: &Facts, what: &str, has: fn(&Path) -> bool) -> bool {
        let ask = || if has(qemu) { Ok("yes".to_owned()) } else { Err(()) };
        match program::files_of(qemu, &self.dir) {
            Some(files) => facts.of_files(what, &program::paths(&files), ask).is_ok(),
            None => ask().is_ok(),
        }
    }

    fn qemu_by(&self, ask: impl Fn(PathBuf) -> HostProgram) -> Option<HostProgram> {
        if let Some(chosen) = chosen_qemu() {
            return Some(ask(chosen));
        }
        let host = programs::on_host("qemu-system-x86_64").map(&ask);
        if host.as_ref().is_some_and(|qemu| qemu.version >= Some(QEMU_SERVES)) {
            return host;
        }
        let private = private::QEMU.find(&self.dir).map(|set| ask(set.program("qemu-system-x86_64")));
        private.or(host)
    }

    /// The programs for kernel packages and `lab shell`, if they are in the cache.
    pub fn shell(&self) -> Option<UnpackedSet> {
        private::SHELL.find(&self.dir)
    }

    /// The compiler of the BPF programs, if it is in the cache.
    pub fn bpf(&self) -> Option<UnpackedSet> {
        private::BPF.find(&self.dir)
    }

    /// The program that connects guests to a network: the one in the cache, or the host's.
    pub fn passt(&self) -> Option<PathBuf> {
        private::PASST.find(&self.dir).map(|set| set.program("passt")).or_else(|| programs::on_host("passt"))
    }

    /// The test suites of others, if they are in the cache.
    pub fn suites(&self) -> Option<UnpackedSet> {
        private::SUITES.find(&self.dir)
    }

    /// The headers and archives that libbpf is built with, if they are in the cache.
    pub fn elf_library(&self) -> Option<UnpackedSet> {
        private::ELF.find(&self.dir)
    }

    /// The emulator and the linker for arm64, and the libraries of an agent, if they are in the cache.
    pub fn arm64(&self) -> Option<(UnpackedSet, UnpackedSet)> {
        private::ARM64.find(&self.dir).zip(private::ARM64_LIBRARIES.find(&self.dir))
    }

    /// A QEMU from the cache, with answers that were kept.
    pub fn known_qemu_at(&self, path: PathBuf, facts: &Facts) -> HostProgram {
        HostProgram::known_qemu(path, facts, &self.dir)
    }

    /// The compiler of the objects that the project's own tests check and of selftests' objects: that of the cache, else Debian's on
    /// this host.
    pub fn bpf_compiler(&self) -> BpfCompiler {
        let set = private::CLANG.find(&self.dir);
        let clang = set.as_ref().map_or_else(|| PathBuf::from(CLANG), |set| set.program("clang"));
        let include = set.as_ref().map_or(Path::new("/"), |set| set.root()).join("usr/include");
        BpfCompiler { clang, includes: vec![include.clone(), include.join("x86_64-linux-gnu")] }
    }

    /// The program that dumps types and generates headers of eBPF programs: that of the cache, else the host's.
    pub fn bpftool(&self) -> PathBuf {
        self.shell().map_or_else(|| PathBuf::from("bpftool"), |set| set.program("bpftool"))
    }

    /// The cluster of the project's own tests, if it is in the cache.
    pub fn slurm(&self) -> Option<UnpackedSet> {
        private::SLURM.find(&self.dir)
    }

    /// The unpacked sets by name, with the versions of their packages.
    pub(super) fn private(&self) -> BTreeMap<&'static str, BTreeMap<String, String>> {
        let sets = [
            &private::QEMU,
            &private::SHELL,
            &private::BPF,
            &private::PASST,
            &private::SUITES,
            &private::ELF,
            &private::CLANG,
            &private::SLURM,
            &private::ARM64,
            &private::ARM64_LIBRARIES,
        ];
        sets.into_iter().filter_map(|set| Some((set.name, set.find(&self.dir)?.versions()))).collect()
    }

    /// Unpacks a set of packages into the cache.
    pub(super) fn unpack(&self, set: &PackageSet, progress: &mut Progress<'_>) -> Result<(), SetupError> {
        set.install(&self.dir, self.scratch(BUILD)?, Distribution::of_this_host().codename.as_deref(), progress)
    }

    /// Removes the downloaded files of unpacked sets.
    pub(super) fn clear_downloads(&self) -> Result<(), SetupError> {
        let dir = self.dir.join("apt");
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(SetupError::io(&dir)(error)),
            _ => Ok(()),
        }
    }

    /// The directory itself.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Path of the file with the output of `step`.
    pub(super) fn log(&self, step: &str) -> PathBuf {
        self.dir.join(format!("{step}.log"))
    }

    /// Locks the tools directory until the returned file is dropped, and removes leftovers of interrupted runs.
    pub(super) fn lock(&self) -> Result<File, SetupError> {
        self.make()?;
        let path = self.dir.join("lock");
        let file = File::create(&path).map_err(SetupError::io(&path))?;
        file.lock().map_err(SetupError::io(&path))?;
        self.remove_leftovers()?;
        Ok(file)
    }

    /// Creates the directory, in a cache that only its owner can write to.
    pub(super) fn make(&self) -> Result<(), SetupError> {
        self.dir.parent().map_or(Ok(()), trusted::keep)?;
        fs::create_dir_all(&self.dir).map_err(SetupError::io(&self.dir))
    }

    fn remove_leftovers(&self) -> Result<(), SetupError> {
        let linked = fs::read_link(self.dir.join(VIRTME_NG)).unwrap_or_default();
        for entry in fs::read_dir(&self.dir).map_err(SetupError::io(&self.dir))?.flatten() {
            let name = entry.file_name();
            let text = name.to_string_lossy();
            if text.starts_with(BUILD) || (text.starts_with(VENV) && linked != Path::new(&name)) {
                fs::remove_dir_all(entry.path()).map_err(SetupError::io(entry.path()))?;
            }
        }
        Ok(())
    }

    fn scratch(&self, prefix: &str) -> Result<tempfile::TempDir, SetupError> {
        Ok(trusted::temporary(prefix, &self.dir)?)
    }

    /// Installs the pinned virtme-ng with pip and the user's pip configuration.
    /// The scripts of a virtual environment contain its absolute path, so it cannot be renamed; a symbolic link to it
    /// is renamed instead.
    pub(super) fn install_virtme_ng(&self, log: &Path) -> Result<(), SetupError> {
        let venv = self.scratch(VENV)?;
        self.make_environment(venv.path(), log)?;
        let bin = venv.path().join("bin");
        let package = format!("virtme-ng=={VIRTME_NG_VERSION}");
        let options = ["-m", "pip", "install", "--no-input", "--disable-pip-version-check", &package];
        run_logged(&format!("pip install {package}"), cmd(bin.join("python3"), options), log)?;
        run_logged("vng --version", cmd!(bin.join("vng"), "--version"), log)?;

        // As the other tools: the cache itself is closed to others.
        fs::set_permissions(venv.path(), fs::Permissions::from_mode(0o755)).map_err(SetupError::io(venv.path()))?;
        let link = venv.path().join("link");
        let name = venv.path().file_name().unwrap_or(OsStr::new(VENV));
        symlink(name, &link).map_err(SetupError::io(&link))?;
        let target = self.dir.join(VIRTME_NG);
        fs::rename(&link, &target).map_err(SetupError::io(&target))?;
        let _kept = venv.keep();
        Ok(())
    }

    /// Creates a virtual environment with pip. Debian's Python has the venv module but not its pip, which is in another
    /// package, so the unpacked pip is used.
    pub(super) fn make_environment(&self, place: &Path, log: &Path) -> Result<(), SetupError> {
        let Some(wheel) = self.shell().and_then(|set| pip_wheel(set.root())) else {
            return run_logged("python3 -m venv", cmd!(python(), "-m", "venv", place), log);
        };
        run_logged("python3 -m venv", cmd!(python(), "-m", "venv", "--without-pip", place), log)?;
        let options =
            ["install", "--no-input", "--disable-pip-version-check", "--no-index", "--no-deps"].map(OsStr::new);
        let pip = wheel.join("pip");
        let words = [pip.as_os_str()].into_iter().chain(options).chain([wheel.as_os_str()]);
        run_logged("pip install pip", cmd(place.join("bin/python3"), words), log)
    }

    /// Builds the pinned cargo-deny, without optimisation: it only reads a few files, and the build takes a third of
    /// the time.
    pub(super) fn install_cargo_deny(&self, log: &Path) -> Result<(), SetupError> {
        let root = self.scratch(BUILD)?;
        let package = format!("cargo-deny@{CARGO_DENY_VERSION}");
        let words = ["install", "--debug", "--locked", &package, "--root"].map(OsStr::new);
        let build = cmd("cargo", words.into_iter().chain([root.path().as_os_str()]))
            .env("PATH", programs::search_path())
            .dir(root.path())
            .env("CARGO_TARGET_DIR", root.path().join("target"))
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("CARGO_BUILD_TARGET");
        run_logged("cargo install cargo-deny", build, log)?;
        run_logged("cargo-deny --version", cmd!(root.path().join("bin/cargo-deny"), "--version"), log)?;
        let target = root.path().join("target");
        fs::remove_dir_all(&target).map_err(SetupError::io(&target))?;
        let place = self.dir.join(CARGO_DENY);
        fs::rename(root.keep(), &place).map_err(SetupError::io(&place))
    }

    /// Builds the pinned bpf-linker with Debian's LLVM 22, the version that rustc-web emits bitcode for.
    pub(super) fn install_bpf_linker(&self, log: &Path) -> Result<(), SetupError> {
        let root = self.scratch(BUILD)?;
        let private = self.bpf();
        let llvm = private.as_ref().map_or(Path::new("/"), UnpackedSet::root).join(LLVM);
        let prefix = match &private {
            Some(set) => llvm_prefix(&root.path().join("llvm"), &llvm, &set.program("llvm-config"))?,
            None => llvm.clone(),
        };
        let mut flags = format!("-Lnative={}", llvm.join("lib").display());
        if let Some(set) = &private {
            let libraries = set.libraries();
            libraries.iter().for_each(|dir| flags.push_str(&format!(" -Lnative={}", dir.display())));
        }
        let arguments = ["install", "bpf-linker", "--version", BPF_LINKER_VERSION, "--locked"];
        let features = ["--no-default-features", "--features", "llvm-22", "--root"];
        let words = arguments.iter().chain(&features).map(OsStr::new).chain([root.path().as_os_str()]);
        let build = cmd("cargo", words)
            .env("PATH", programs::search_path())
            .dir(root.path())
            .env("CARGO_TARGET_DIR", root.path().join("target"))
            // Its release profile enables full debugging information, which takes a third of the build time.
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("LLVM_SYS_221_PREFIX", &prefix)
            .env("LLVM_PREFIX", &prefix)
            // llvm-sys passes the names of the libraries that LLVM needs, but not their directory.
            .env("RUSTFLAGS", flags)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("CARGO_BUILD_TARGET");
        run_logged("cargo install bpf-linker", build, log)?;
        let bin = self.dir.join("bin");
        fs::create_dir_all(&bin).map_err(SetupError::io(&bin))?;
        let mut built = root.path().join("bin/bpf-linker");
        if let Some(set) = &private {
            // A program that is linked with a set's libraries is started with the set's loader.
            let real = bin.join("bpf-linker.real");
            fs::rename(&built, &real).map_err(SetupError::io(&real))?;
            built = root.path().join("bpf-linker");
            set.script_for(&built, &real, &[llvm.join("lib")])?;
        }
        run_logged("bpf-linker --version", cmd!(&built, "--version"), log)?;
        let target = bin.join("bpf-linker");
        fs::rename(&built, &target).map_err(SetupError::io(&target))
    }
}

/// Creates an installation prefix for llvm-sys, with an `llvm-config` that starts.
fn llvm_prefix(prefix: &Path, llvm: &Path, config: &Path) -> Result<PathBuf, SetupError> {
    let bin = prefix.join("bin");
    fs::create_dir_all(&bin).map_err(SetupError::io(&bin))?;
    let script = format!("#!/bin/sh\nexec \"{}\" \"$@\"\n", config.display());
    let path = bin.join("llvm-config");
    fs::write(&path, script).map_err(SetupError::io(&path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(SetupError::io(&path))?;
    for name in ["lib", "include"] {
        symlink(llvm.join(name), prefix.join(name)).map_err(SetupError::io(prefix))?;
    }
    Ok(prefix.to_owned())
}

/// Path of pip's wheel file, below the root of unpacked packages.
fn pip_wheel(root: &Path) -> Option<PathBuf> {
    let wheels = fs::read_dir(root.join("usr/share/python-wheels")).ok()?;
    let mut wheels = wheels.flatten().map(|entry| entry.path());
    wheels.find(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"pip-")))
}

/// The interpreter for virtual environments. Debian's is preferred: one from a version manager may lack the venv
/// module.
pub(super) fn python() -> PathBuf {
    let python = Some(PathBuf::from("/usr/bin/python3")).filter(|path| path.exists());
    python.or_else(|| programs::on_host("python3")).unwrap_or_else(|| "python3".into())
}

/// Runs a command and appends its output to `log`; its error has the most informative line.
pub(super) fn run_logged(what: &str, command: Expression, log: &Path) -> Result<(), SetupError> {
    let file = File::options().create(true).append(true).open(log).map_err(SetupError::io(log))?;
    let start = file.metadata().map_err(SetupError::io(log))?.len();
    let result = command.stdin_null().stderr_to_stdout().stdout_file(file).unchecked().run();
    let output = result.map_err(|cause| SetupError::Start { program: what.to_owned(), cause })?;
    if output.status.success() {
        return Ok(());
    }
    let text = fs::read(log).unwrap_or_default();
    let own = usize::try_from(start).ok().and_then(|start| text.get(start..)).unwrap_or_default();
    let last_line = telling_line(&String::from_utf8_lossy(own)).unwrap_or_else(|| output.status.to_string());
    Err(SetupError::Failed { what: what.to_owned(), last_line, log: log.to_owned() })
}

/// The first line that starts as an error (apt's `E:`, pip's `ERROR:`, cargo's `error`), otherwise the last line:
/// errors after the first are usually its consequences.
fn telling_line(output: &str) -> Option<String> {
    let mut lines = output.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_error = |line: &&str| ["E: ", "ERROR: ", "error"].iter().any(|mark| line.starts_with(mark));
    lines.clone().find(is_error).or_else(|| lines.next_back()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_most_informative_line() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("step.log");
        fs::write(&log, "error: of an earlier run\n").unwrap();
        let script = "echo Reading; echo 'E: Unable to locate package x' >&2; echo bye; exit 100";
        let error = run_logged("apt-get install", cmd!("sh", "-c", script), &log).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("apt-get install failed: E: Unable to locate package x (log: {})", log.display())
        );
        let silent = run_logged("step", cmd!("sh", "-c", "exit 7"), &log).unwrap_err();
        assert!(silent.to_string().contains("7"), "{silent}");
    }

    #[test]
    fn incomplete_tools_are_never_used_and_are_removed() {
        let cache = tempfile::tempdir().unwrap();
        let tools = Tools::in_cache(cache.path());
        let dir = cache.path().join("tools");
        for name in ["venv-dead", "build-dead", "venv-live/bin"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        symlink("venv-live", dir.join(VIRTME_NG)).unwrap();
        fs::write(dir.join("venv-live/bin/vng"), "").unwrap();
        assert_eq!(VIRTME_NG, format!("virtme-ng-{VIRTME_NG_VERSION}"));
        assert_eq!(CARGO_DENY, format!("cargo-deny-{CARGO_DENY_VERSION}"));
        drop(tools.lock().unwrap());
        assert!(!dir.join("venv-dead").exists() && !dir.join("build-dead").exists());
        assert_eq!(tools.virtme_ng(), None, "an environment without its interpreter is not usable");
        fs::write(dir.join("venv-live/bin/python3"), "").unwrap();
        assert_eq!(tools.virtme_ng(), Some(dir.join(VIRTME_NG).join("bin/vng")));
        assert_eq!(tools.pinned_bpf_linker(), None);
    }
}
