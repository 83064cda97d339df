//! What goes into a guest and is built here: the agent and the eBPF object.

use super::{
    agent_package::{AgentPackage, AgentPackageError},
    commit, sources,
};
use crate::setup::Tools;
use duct::Expression;
use lab_base::{interrupt::Interrupt, process::to_end};
use lab_protocol::{Listing, PROTOCOL_VERSION, drawing::TopologyInfo};
use std::{
    env,
    ffi::OsString,
    io,
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

const AGENT_TARGET: &str = "x86_64-unknown-linux-gnu";
const BPF_TARGET: &str = "bpfel-unknown-none";
/// The eBPF objects: as the crate's targets are named, and as a guest has them.
const BPF_OBJECTS: [(&str, &str); 2] = [("lab", "lab.o"), ("datapath", "datapath.o")];
/// A build that takes longer is told on the terminal: a fresh one takes a fraction of it.
const QUIET: Duration = Duration::from_secs(1);
/// Lines of the compiler that an error repeats.
const TAIL_LINES: usize = 25;

/// Why there is no agent or no eBPF object.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// A program that builds is missing.
    #[error("can't start {program} to build {what}: {source}; `lab setup` installs what is missing")]
    Start {
        /// What was to be built.
        what: &'static str,
        /// The program.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The compiler failed.
    #[error("building {what} failed:\n{tail}")]
    Build {
        /// What was to be built.
        what: &'static str,
        /// The compiler's last lines.
        tail: String,
    },
    /// A signal ended the compiler.
    #[error("building {what} was stopped")]
    Interrupted {
        /// What was to be built.
        what: &'static str,
    },
    /// The file is not there.
    #[error("{what} is not at {}; run without --no-build to build it", path.display())]
    Absent {
        /// What is missing.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
    },
    /// The object can't be put where images take it from.
    #[error("can't write {}: {source}", path.display())]
    Copy {
        /// The copy.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// `bpf-linker` is missing.
    #[error("bpf-linker is neither in the lab's cache nor on PATH; `lab setup` builds it")]
    NoBpfLinker,
    /// The package of the agent can't be told.
    #[error(transparent)]
    Package(#[from] AgentPackageError),
    /// The agent's listing can't be used.
    #[error("{}: {problem}", agent.display())]
    Listing {
        /// The agent.
        agent: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// The files that a guest image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// The static agent.
    pub agent: PathBuf,
    /// Directory with the eBPF objects under the names that the agent looks for.
    pub bpf: PathBuf,
}

/// Builds in a project.
pub struct Builder<'a> {
    /// The project's directory.
    pub root: &'a Path,
    /// The lab's cache, which holds the tools that `lab setup` built.
    pub cache: &'a Path,
    /// Takes a line where something takes long.
    pub say: &'a (dyn Fn(&str) + Sync),
}

impl Builder<'_> {
    /// Where the artifacts are, without building them.
    ///
    /// # Errors
    /// [`ArtifactError::Absent`].
    pub fn existing(&self) -> Result<Artifacts, ArtifactError> {
        let agent = self.agent_path(&AgentPackage::load(self.root)?);
        let directory = self.agent_target_dir().join("bpf");
        let built = BPF_OBJECTS.map(|(target, object)| (self.bpf_path(target), directory.join(object)));
        let objects = built.iter().map(|(path, _)| ("the eBPF object", path.clone()));
        for (what, path) in [("the guest agent", agent.clone())].into_iter().chain(objects) {
            if !path.is_file() {
                return Err(ArtifactError::Absent { what, path });
            }
        }
        for (path, object) in built {
            let copy = std::fs::create_dir_all(&directory).and_then(|()| std::fs::copy(path, &object));
            copy.map_err(|source| ArtifactError::Copy { path: object, source })?;
        }
        Ok(Artifacts { agent, bpf: directory })
    }

    /// Builds both at once; cargo decides what is fresh, which is most of what a rerun at the desk would wait for.
    ///
    /// # Errors
    /// A toolchain is missing or the compiler failed.
    pub fn build(&self) -> Result<Artifacts, ArtifactError> {
        let (agent, bpf) = thread::scope(|scope| {
            let agent = scope.spawn(|| self.agent());
            let bpf = self.bpf();
            (agent.join().unwrap_or_else(|panic| resume_unwind(panic)), bpf)
        });
        agent.and(bpf)?;
        self.existing()
    }

    /// Builds the agent.
    ///
    /// # Errors
    /// cargo is missing or failed.
    pub fn agent(&self) -> Result<PathBuf, ArtifactError> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let package = AgentPackage::load(self.root)?;
        let target_dir = self.agent_target_dir();
        // An own target directory: other flags in the shared one would rebuild the world at every turn.
        let mut args: Vec<OsString> = vec![
            "build".into(),
            "--release".into(),
            "--package".into(),
            package.name.clone().into(),
            "--target".into(),
            AGENT_TARGET.into(),
            "--target-dir".into(),
            target_dir.into(),
            "--quiet".into(),
        ];
        if let Some(directory) = &package.directory {
            args.extend(["--manifest-path".into(), directory.join("Cargo.toml").into()]);
        }
        let command = duct::cmd(&cargo, args)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
            .env(commit::VARIABLE, self.agent_commit(&package))
            .dir(self.root);
        self.run("the guest agent", &cargo.to_string_lossy(), command)?;
        Ok(self.agent_path(&package))
    }

    /// The commit of the agent's own sources: another one elsewhere rebuilds no agent and leaves the snapshots valid.
    fn agent_commit(&self, package: &AgentPackage) -> String {
        match &package.directory {
            Some(directory) => commit::of(directory, &["."]),
            None => commit::of(self.root, &sources::AGENT),
        }
    }

    fn bpf(&self) -> Result<(), ArtifactError> {
        let linker = self.bpf_linker()?;
        let toolchain = BpfToolchain::detect(&Tools::in_cache(self.cache));
        // The linker would otherwise tell LLVM to call memset and memcpy for short ones too, and each function that a program
        // calls is verified, compiled and freed on its own.
        let inline = "\u{1f}-Clink-arg=--disable-expand-memcpy-in-order";
        // The encoded form, whose separator no path contains.
        let mut flags = OsString::from("-Clinker=");
        flags.push(&linker);
        flags.push("\u{1f}-Clink-arg=--btf");
        flags.push(inline);
        let mut command = duct::cmd(toolchain.cargo().as_os_str(), toolchain.arguments()).dir(self.root.join("ebpf"));
        // What a surrounding cargo or rustup sets is meant for another compiler.
        for name in ["RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "RUSTUP_TOOLCHAIN"] {
            command = command.env_remove(name);
        }
        command = command.env("CARGO_ENCODED_RUSTFLAGS", flags);
        if let BpfToolchain::Packaged { rustc, .. } = &toolchain {
            // The packaged compiler is a release: bootstrap mode admits the unstable features that eBPF needs.
            command = command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
        }
        self.run("the eBPF objects", &toolchain.cargo().to_string_lossy(), command)
    }

    fn bpf_linker(&self) -> Result<PathBuf, ArtifactError> {
        let pinned = Tools::in_cache(self.cache).pinned_bpf_linker();
        pinned.or_else(|| lab_base::programs::find("bpf-linker")).ok_or(ArtifactError::NoBpfLinker)
    }

    fn agent_target_dir(&self) -> PathBuf {
        self.root.join("target/guest")
    }

    fn agent_path(&self, package: &AgentPackage) -> PathBuf {
        self.agent_target_dir().join(AGENT_TARGET).join("release").join(&package.name)
    }

    fn bpf_path(&self, target: &str) -> PathBuf {
        self.root.join("ebpf/target").join(BPF_TARGET).join("release").join(target)
    }

    fn run(&self, what: &'static str, program: &str, command: Expression) -> Result<(), ArtifactError> {
        let start = |source| ArtifactError::Start { what, program: program.to_owned(), source };
        let begin = Instant::now();
        let command = command.stdin_null().stderr_to_stdout().stdout_capture();
        let mut fresh = true;
        let output = to_end(&command, |so_far| {
            if fresh && so_far > QUIET {
                fresh = false;
                (self.say)(&format!("building {what} …"));
            }
            Interrupt::raised().is_some()
        });
        let output = output.map_err(start)?.ok_or(ArtifactError::Interrupted { what })?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            return Err(ArtifactError::Build { what, tail });
        }
        if !fresh {
            (self.say)(&format!("built {what} in {:.0} s", begin.elapsed().as_secs_f32()));
        }
        Ok(())
    }
}

const PACKAGED_RUSTC: &str = "/usr/bin/rustc";
const PACKAGED_CARGO: &str = "/usr/bin/cargo";

/// Who compiles for the kernel's virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
enum BpfToolchain {
    /// The distribution's compiler with a prebuilt core library, installed or in the cache.
    Packaged { rustc: PathBuf, cargo: PathBuf },
    /// A nightly with the library's sources.
    Nightly,
}

impl BpfToolchain {
    /// A nightly that is not there is cargo's to complain about: asking rustup for it might install it.
    fn detect(tools: &Tools) -> Self {
        let libraries = duct::cmd!(PACKAGED_RUSTC, "--print", "target-libdir", "--target", BPF_TARGET);
        let prebuilt = libraries.stdin_null().stderr_null().read().is_ok_and(|path| Path::new(path.trim()).is_dir());
        if prebuilt && Path::new(PACKAGED_CARGO).is_file() {
            return Self::Packaged { rustc: PACKAGED_RUSTC.into(), cargo: PACKAGED_CARGO.into() };
        }
        let private = tools.bpf();
        private.map_or(Self::Nightly, |set| Self::Packaged { rustc: set.program("rustc"), cargo: set.program("cargo") })
    }

    fn cargo(&self) -> &Path {
        match self {
            Self::Packaged { cargo, .. } => cargo,
            Self::Nightly => Path::new("cargo"),
        }
    }

    const fn arguments(&self) -> &'static [&'static str] {
        match self {
            Self::Packaged { .. } => &["build", "--release", "--locked", "--quiet", "--target", BPF_TARGET],
            Self::Nightly => {
                &["+nightly", "build", "--release", "--locked", "--quiet", "--target", BPF_TARGET, "-Zbuild-std=core"]
            }
        }
    }
}

/// Asks the agent what it can run; it answers on the host too.
///
/// # Errors
/// It does not start, answers no listing, or speaks another protocol.
pub fn listing(agent: &Path) -> Result<Listing, ArtifactError> {
    let wrong = |problem: String| ArtifactError::Listing { agent: agent.to_owned(), problem };
    let text = duct::cmd!(agent, "--list").stdin_null().read().map_err(|error| wrong(error.to_string()))?;
    let listing: Listing = serde_json::from_str(&text).map_err(|error| wrong(format!("not a listing: {error}")))?;
    if listing.protocol != PROTOCOL_VERSION {
        return Err(wrong(format!(
            "speaks protocol {}, this lab speaks {PROTOCOL_VERSION}; rebuild it (run without --no-build)",
            listing.protocol
        )));
    }
    Ok(listing)
}

/// Asks the agent for its library of topologies.
///
/// # Errors
/// It does not start, or answers something else.
pub fn topologies(agent: &Path) -> Result<Vec<TopologyInfo>, ArtifactError> {
    let wrong = |problem: String| ArtifactError::Listing { agent: agent.to_owned(), problem };
    let text = duct::cmd!(agent, "--topologies").stdin_null().read().map_err(|error| wrong(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| wrong(format!("no list of topologies: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt, sync::Mutex};

    #[test]
    fn a_failed_build_repeats_the_end_of_what_the_compiler_said() {
        let said = Mutex::new(Vec::new());
        let say = |line: &str| said.lock().unwrap().push(line.to_owned());
        let builder = Builder { root: Path::new("/"), cache: Path::new("/nonexistent"), say: &say };
        let command = duct::cmd!("sh", "-c", "seq 1 100; echo error: no >&2; exit 101");
        let error = builder.run("the guest agent", "sh", command).unwrap_err().to_string();
        assert!(error.starts_with("building the guest agent failed:\n77\n78\n"), "{error}");
        assert!(error.ends_with("\n100\nerror: no"), "{error}");
        assert!(said.lock().unwrap().is_empty(), "nothing is told of a quick command");
    }

    #[test]
    fn a_listing_of_another_protocol_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("agent");
        let write = |answer: &str| {
            fs::write(&agent, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
            fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
            listing(&agent)
        };
        assert!(write("hello").unwrap_err().to_string().contains("not a listing"));
        let error = write(r#"{"protocol":99,"agent":"0","cells":[]}"#).unwrap_err().to_string();
        assert!(error.contains("speaks protocol 99, this lab speaks 4"), "{error}");
    }
}
