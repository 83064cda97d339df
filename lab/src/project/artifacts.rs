//! Builds the contents of guests: the agent and the eBPF objects.

use super::{
    agent_package::{AgentPackage, AgentPackageError},
    bpf_toolchain::{BPF_TARGET, BpfToolchain},
    commit,
    cross_error::CrossError,
    home::{self, Home},
    sources,
};

use crate::setup::Tools;
use duct::Expression;
use lab_base::{held::HeldFile, hex::hex, interrupt::Interrupt, process::to_end};
use nix::unistd::{AccessFlags, access};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    io,
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

pub(super) const AGENT_TARGET: &str = "x86_64-unknown-linux-gnu";
/// The eBPF objects: name of the crate's target, and file name in a guest.
pub const BPF_OBJECTS: [(&str, &str); 3] = [("lab", "lab.o"), ("datapath", "datapath.o"), ("witness", "witness.o")];
/// Target directories, relative to the project's target directory.
pub(super) const AGENT_DIR: &str = "target/guest";
const BPF_DIR: &str = "ebpf/target";
/// cargo option: readable diagnostics on stderr, and the paths of built files as JSON on stdout.
pub(super) const MESSAGES: &str = "--message-format=json-render-diagnostics";
/// A build that takes longer is announced on the terminal; an up-to-date build is faster.
const QUIET: Duration = Duration::from_secs(1);
/// Number of compiler lines in an error.
const TAIL_LINES: usize = 25;

/// Errors of building the agent or the eBPF objects.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// A program that builds is missing.
    #[error("can't start {program} to build {what}: {cause}; `lab setup` installs what is missing")]
    Start {
        /// What should be built.
        what: &'static str,
        /// The program.
        program: String,
        /// The system's answer.
        cause: io::Error,
    },
    /// The compiler failed.
    #[error("building {what} failed:\n{tail}")]
    Build {
        what: &'static str,
        /// The last lines of the compiler's output.
        tail: String,
    },
    /// A signal ended the compiler.
    #[error("building {what} was stopped")]
    Interrupted { what: &'static str },
    /// A built file is missing.
    #[error("{what} does not exist at {}; run without --no-build to build it", path.display())]
    Absent {
        what: &'static str,
        /// The expected path.
        path: PathBuf,
    },
    /// cargo succeeded but did not report a file's path.
    #[error("cargo built {what} but did not report its path; run `cargo clean` and build again")]
    Unnamed {
        /// What was built.
        what: &'static str,
    },
    /// A built file can't be read.
    #[error("can't read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// The copy of what was built before can't be written.
    #[error("can't write a copy of what was built below {}: {cause}", path.display())]
    Keep {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// `bpf-linker` is missing.
    #[error("bpf-linker is neither in the lab's cache nor on PATH; `lab setup` builds it")]
    NoBpfLinker,
    /// libbpf needs libelf and zlib.
    #[error(
        "the headers and archives of libelf and zlib, which libbpf is built with, are missing; `lab setup` unpacks them"
    )]
    NoElfLibrary,
    /// The agent for another architecture can't be built.
    #[error(transparent)]
    Cross(#[from] CrossError),
    /// The agent's package is invalid.
    #[error(transparent)]
    Package(#[from] AgentPackageError),
    /// The agent's listing is invalid.
    #[error("{}: {problem}", agent.display())]
    Listing {
        agent: PathBuf,
        /// The reason.
        problem: String,
    },
}

/// The contents of a guest image.
#[derive(Debug, Clone)]
pub struct Artifacts {
    /// The static agent.
    pub agent: HeldFile,
    /// The eBPF objects, by the names that the agent looks for.
    pub objects: BTreeMap<String, HeldFile>,
}

#[cfg(test)]
impl Artifacts {
    /// An agent of these bytes, for tests of what is made of it.
    pub fn of_bytes(agent: &[u8]) -> Self {
        Self { agent: HeldFile::of_bytes(PathBuf::new(), agent), objects: BTreeMap::new() }
    }
}

/// Builds artifacts of a project.
pub struct Builder<'a> {
    /// The project's directory, whose `lab.toml` may name another agent.
    pub project: &'a Path,
    /// Where the lab's own files are.
    pub home: &'a Home,
    /// The lab's cache, which contains the tools that `lab setup` built.
    pub cache: &'a Path,
    /// Receives a line about long builds.
    pub say: &'a (dyn Fn(&str) + Sync),
}

impl Builder<'_> {
    /// Paths of the artifacts, without building them.
    ///
    /// # Errors
    /// [`ArtifactError::Absent`].
    pub fn existing(&self) -> Result<Artifacts, ArtifactError> {
        let package = AgentPackage::load(self.project)?;
        if let Some(installed) = self.installed(&package) {
            return installed;
        }
        if let Some(before) = self.before(&package) {
            return Ok(before);
        }
        let _lock = self.beside()?;
        self.in_place(&package)
    }

    /// What cargo has built, while this lab has the lock.
    fn in_place(&self, package: &AgentPackage) -> Result<Artifacts, ArtifactError> {
        read(self.agent_place(package), |target, _| self.object_place(target))
    }

    pub(super) fn agent_place(&self, package: &AgentPackage) -> PathBuf {
        self.target_dir(AGENT_DIR).join(AGENT_TARGET).join("release").join(&package.name)
    }

    pub(super) fn object_place(&self, target: &str) -> PathBuf {
        match self.home {
            Home::Installed { library, .. } => object_in(library, target),
            Home::Checkout(_) => self.target_dir(BPF_DIR).join(BPF_TARGET).join("release").join(target),
        }
    }

    /// What was built, and where nothing was built yet, a build of it; with a line about sources that have changed since.
    ///
    /// # Errors
    /// As of [`Self::build`].
    pub fn existing_or_build(&self) -> Result<Artifacts, ArtifactError> {
        match self.existing() {
            Err(ArtifactError::Absent { .. }) => self.build(),
            Ok(artifacts) => {
                if let Some(newer) = self.newer_than(artifacts.agent.path()) {
                    let newer = newer.display();
                    (self.say)(&format!(
                        "hint: {newer} has changed since the agent was built; `lab build` builds it again"
                    ));
                }
                Ok(artifacts)
            }
            other => other,
        }
    }

    /// A source of the agent, relative to the checkout, that was written after the agent was built.
    fn newer_than(&self, agent: &Path) -> Option<PathBuf> {
        let Home::Checkout(root) = self.home else { return None };
        let written = |path: &Path| path.metadata().and_then(|it| it.modified()).ok();
        let built = written(agent)?;
        let files = sources::AGENT.iter().flat_map(|name| walkdir::WalkDir::new(root.join(name))).flatten();
        let mut sources = files.filter(|entry| {
            let is_source = |kind: &str| entry.path().extension().is_some_and(|end| end == kind);
            entry.file_type().is_file() && ["rs", "toml", "md"].into_iter().any(is_source)
        });
        let newer = sources.find(|entry| written(entry.path()) > Some(built))?;
        Some(newer.path().strip_prefix(root).unwrap_or(newer.path()).to_owned())
    }

    /// What is installed, unless the project has an agent of its own.
    fn installed(&self, package: &AgentPackage) -> Option<Result<Artifacts, ArtifactError>> {
        match self.home {
            Home::Installed { library, .. } if package.directory.is_none() => {
                Some(read(library.join(home::AGENT), |target, _| object_in(library, target)))
            }
            _ => None,
        }
    }

    /// Builds both in parallel; cargo decides what must be rebuilt.
    ///
    /// # Errors
    /// A toolchain is missing or the compiler failed.
    pub fn build(&self) -> Result<Artifacts, ArtifactError> {
        let package = AgentPackage::load(self.project)?;
        if let Some(installed) = self.installed(&package) {
            return installed;
        }
        // Cargo's own lock ends with cargo: another lab could replace a file while it is read here.
        let lock = self.alone(&package)?;
        let built = self.cargo_all(&package)?;
        if lock.is_some() {
            self.keep(&package)?;
        }
        Ok(built)
    }

    fn cargo_all(&self, package: &AgentPackage) -> Result<Artifacts, ArtifactError> {
        if let Home::Installed { library, .. } = self.home {
            return read(self.cargo_agent(package)?, |target, _| object_in(library, target));
        }
        let (agent, bpf) = thread::scope(|scope| {
            let agent = scope.spawn(|| self.cargo_agent(package));
            let bpf = self.bpf();
            (agent.join().unwrap_or_else(|panic| resume_unwind(panic)), bpf)
        });
        let (agent, bpf) = (agent?, bpf?);
        read(agent, |target, _| bpf[target].clone())
    }

    /// The agent, built where this lab builds.
    ///
    /// # Errors
    /// cargo is missing or failed.
    pub fn agent(&self) -> Result<PathBuf, ArtifactError> {
        let package = AgentPackage::load(self.project)?;
        if let Some(installed) = self.installed(&package) {
            return installed.map(|it| it.agent.path().to_owned());
        }
        let lock = self.alone(&package)?;
        let agent = self.cargo_agent(&package)?;
        if lock.is_some() {
            self.keep(&package)?;
        }
        Ok(agent)
    }

    /// Where cargo runs: in the checkout, or where the lab is installed, in the project with an agent of its own.
    pub(super) fn root(&self) -> &Path {
        match self.home {
            Home::Checkout(root) => root,
            Home::Installed { .. } => self.project,
        }
    }

    fn cargo_agent(&self, package: &AgentPackage) -> Result<PathBuf, ArtifactError> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // A separate target directory: with other flags in a shared one, cargo would rebuild everything each time.
        let mut args: Vec<OsString> = vec![
            "build".into(),
            "--release".into(),
            "--package".into(),
            package.name.clone().into(),
            "--target".into(),
            AGENT_TARGET.into(),
            "--target-dir".into(),
            self.target_dir(AGENT_DIR).into(),
            "--quiet".into(),
            MESSAGES.into(),
        ];
        if let Some(directory) = &package.directory {
            args.extend(["--manifest-path".into(), directory.join("Cargo.toml").into()]);
        }
        let command = duct::cmd(&cargo, args)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
            .env(commit::VARIABLE, self.agent_commit(package))
            .dir(self.root());
        let what = "the guest agent";
        let messages = self.run(what, &cargo.to_string_lossy(), command)?;
        executable(&messages, &package.name).ok_or(ArtifactError::Unnamed { what })
    }

    /// The last commit that changed the agent's sources, so that other commits neither rebuild the agent nor invalidate
    /// snapshots.
    pub(super) fn agent_commit(&self, package: &AgentPackage) -> String {
        match &package.directory {
            Some(directory) => commit::of(directory, &["."]),
            None => commit::of(self.root(), &sources::AGENT),
        }
    }

    /// Builds the eBPF objects; returns their paths by target name.
    fn bpf(&self) -> Result<BTreeMap<&'static str, PathBuf>, ArtifactError> {
        let linker = self.bpf_linker()?;
        let toolchain = BpfToolchain::detect(&Tools::in_cache(self.cache));
        // Otherwise the linker would make LLVM call memset and memcpy even for short lengths, and each called function
        // is verified, compiled and freed separately.
        let inline = "\u{1f}-Clink-arg=--disable-expand-memcpy-in-order";
        // The encoded form, whose separator can't occur in paths.
        let mut flags = OsString::from("-Clinker=");
        flags.push(&linker);
        flags.push("\u{1f}-Clink-arg=--btf");
        flags.push(inline);
        let mut args: Vec<OsString> = toolchain.arguments().iter().map(OsString::from).collect();
        args.extend(["--target-dir".into(), self.target_dir(BPF_DIR).into(), MESSAGES.into()]);
        let mut command = duct::cmd(toolchain.cargo().as_os_str(), args).dir(self.root().join("ebpf"));
        // Variables that a surrounding cargo or rustup sets are for another compiler.
        for name in ["RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTUP_TOOLCHAIN"] {
            command = command.env_remove(name);
        }
        command = command.env("CARGO_ENCODED_RUSTFLAGS", flags);
        if let BpfToolchain::Packaged { rustc, .. } = &toolchain {
            // The packaged compiler is a release: bootstrap mode allows the unstable features that eBPF needs.
            command = command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
        }
        let what = "the eBPF objects";
        let messages = self.run(what, &toolchain.cargo().to_string_lossy(), command)?;
        let place = |(target, _)| executable(&messages, target).map(|path| (target, path));
        BPF_OBJECTS.into_iter().map(|object| place(object).ok_or(ArtifactError::Unnamed { what })).collect()
    }

    fn bpf_linker(&self) -> Result<PathBuf, ArtifactError> {
        let pinned = Tools::in_cache(self.cache).pinned_bpf_linker();
        pinned.or_else(|| lab_base::programs::find("bpf-linker")).ok_or(ArtifactError::NoBpfLinker)
    }

    /// cargo's target directory: in the project, or in the cache if the project is read-only and has no build.
    ///
    /// It is passed on the command line, which has priority over the environment and `config.toml`.
    pub(super) fn target_dir(&self, below: &str) -> PathBuf {
        let place = self.root().join(below);
        let existing = place.ancestors().find(|path| path.exists()).unwrap_or(self.root());
        if access(existing, AccessFlags::W_OK).is_ok() || place.is_dir() {
            return place;
        }
        let key = Sha256::digest(self.root().as_os_str().as_encoded_bytes());
        let key = hex(&key[..6]);
        self.cache.join("build").join(key).join(below)
    }

    /// Runs cargo, and returns its JSON output.
    pub(super) fn run(&self, what: &'static str, program: &str, command: Expression) -> Result<String, ArtifactError> {
        let start = |cause| ArtifactError::Start { what, program: program.to_owned(), cause };
        let begin = Instant::now();
        let command = command.env("CARGO_TERM_COLOR", "never").stdin_null().stderr_capture().stdout_capture();
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
            let text = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            return Err(ArtifactError::Build { what, tail });
        }
        if !fresh {
            (self.say)(&format!("built {what} in {:.0} s", begin.elapsed().as_secs_f32()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// An eBPF object of an installation.
fn object_in(library: &Path, target: &str) -> PathBuf {
    library.join(format!("{target}.o"))
}

/// Reads the built files; `object` says where the object of a target is, which has the name in guests.
pub(super) fn read(agent: PathBuf, object: impl Fn(&str, &str) -> PathBuf) -> Result<Artifacts, ArtifactError> {
    let object =
        |(target, name): (&str, &str)| Ok((name.to_owned(), read_artifact("the eBPF object", object(target, name))?));
    let objects = BPF_OBJECTS.into_iter().map(object).collect::<Result<_, ArtifactError>>()?;
    Ok(Artifacts { agent: read_artifact("the guest agent", agent)?, objects })
}

pub(super) fn read_artifact(what: &'static str, path: PathBuf) -> Result<HeldFile, ArtifactError> {
    match HeldFile::open(&path) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ArtifactError::Absent { what, path }),
        Err(cause) => Err(ArtifactError::Read { path, cause }),
    }
}

/// The path of a program in cargo's JSON output (the Cargo Book, "External tools": `compiler-artifact`), which also
/// contains up-to-date programs.
pub(super) fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        reason: String,
        target: Option<Target>,
        executable: Option<PathBuf>,
        #[serde(default)]
        filenames: Vec<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        kind: Vec<String>,
        name: String,
    }
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let program = |message: Message| {
        let it = message.target.filter(|_| message.reason == "compiler-artifact")?;
        let ours = it.name == target && it.kind.iter().any(|kind| kind == "bin");
        message.executable.or_else(|| message.filenames.into_iter().next()).filter(|_| ours)
    };
    messages.filter_map(program).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn an_error_about_a_failed_build_quotes_the_end_of_the_compilers_output() {
        let said = Mutex::new(Vec::new());
        let say = |line: &str| said.lock().unwrap().push(line.to_owned());
        let home = Home::Checkout("/".into());
        let builder = Builder { project: Path::new("/"), home: &home, cache: Path::new("/nonexistent"), say: &say };
        let command = duct::cmd!("sh", "-c", "seq 1 100 >&2; echo error: no >&2; exit 101");
        let error = builder.run("the guest agent", "sh", command).unwrap_err().to_string();
        assert!(error.starts_with("building the guest agent failed:\n77\n78\n"), "{error}");
        assert!(error.ends_with("\n100\nerror: no"), "{error}");
        assert!(said.lock().unwrap().is_empty(), "a quick command prints nothing");
    }
}
