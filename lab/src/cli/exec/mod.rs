//! `lab exec`.

mod go;
mod needs;
mod planned;
mod suite;
mod values;

pub(super) use go::{ExecOrder, RunTold, SelftestsOf, ShardOrder, again, built, exec, go, question, selftest, words};
pub(super) use planned::{Ahead, ExecPlan};
pub(super) use suite::is_word;
pub(super) use values::name;

use super::{
    args::{HowArgs, KernelArgs},
    topology,
    witness::WitnessArgs,
};
use crate::{
    error::Error,
    exec::ExecRequest,
    foreign::Requirement,
    guests::{GuestOptions, machine::Shape},
    project::{Project, select::Selected},
    run::{
        common::{OnFlaky, Retries},
        program::Streams,
        queue::Isolate,
    },
    setup::Tools,
    world::{ClosureProgram, Options, PastaOptions, PublishedPort, RootChoice, World},
};
use clap::Args;
use lab_base::{programs, say::note, text};
use lab_image::Profile;
use lab_protocol::{CellProgram, LinkKind, Raw, shell::ShellStage, work::Inherit, world::WorldSpec};
use std::{
    convert::Infallible,
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};
use suite::SuiteArgs;
use values::{Reached, file, network, published, sysctl, user};

/// Programs that a command finds in its PATH before those of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ToolSet {
    /// What the kernel's selftests call.
    Kselftest,
}

/// A command, and the guests that run it.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    #[command(flatten)]
    pub(super) kernels: KernelArgs,
    /// Build this topology first; repeatable, or with commas. `lab topology list` shows the names.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    topology: Vec<String>,
    /// Kind of the workloads' link: veth, nk-l2 or nk-l3; repeatable, or with commas.
    #[arg(long, value_name = "KIND", requires = "topology", value_delimiter = ',')]
    kind: Vec<String>,
    /// Run the command in this node of the topology. Default: in the guest's first network namespace.
    #[arg(long, value_name = "NODE", requires = "topology")]
    node: Option<String>,
    /// Name of the command in reports. Default: its file name and a digest of its arguments.
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,
    /// End the command after this time: 90, 500ms, 5m. It is sent SIGTERM, and SIGKILL five seconds later. The exit code is
    /// then 124.
    #[arg(long, value_name = "TIME", value_parser = super::args::time)]
    timeout: Option<Duration>,
    /// Set a variable, NAME=VALUE, or pass on the caller's, NAME; repeatable.
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,
    /// Pass on nothing of the caller's environment but what --env names.
    #[arg(long)]
    clean_env: bool,
    /// What the command sees as /: host, this host's files, read-only; none, the program with its libraries; image, the guest's
    /// own files with busybox; or a directory, a tar archive or an OCI image layout.
    #[arg(long, value_name = "WHAT", default_value = "host")]
    root: Root,
    /// Add a file to --root none, with its libraries if it is a program; repeatable. Default place: the same path.
    #[arg(long, value_name = "FILE[:PLACE]", value_parser = file)]
    file: Vec<(PathBuf, PathBuf)>,
    /// Let the command write this directory of the host; repeatable. All else that it writes stays in the guest's memory.
    #[arg(long, value_name = "DIR")]
    rw: Vec<PathBuf>,
    /// Directory for files that the command writes to $LAB_ARTIFACTS, in a directory for each guest.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What the command reaches of networks: host:PORT[,PORT], these ports of this host's loopback device at its own, over TCP
    /// and UDP; pasta, whatever this host reaches, and the host itself as host.lab.
    #[arg(long, value_name = "WHAT", value_parser = network, default_value = "none")]
    net: Reached,
    /// With --net pasta, lead this port of this host's loopback device to one of the guest's, over TCP and UDP; repeatable.
    #[arg(long, value_name = "PORT[:PORT]", value_parser = published)]
    publish: Vec<PublishedPort>,
    /// Run this shell command once on each kernel, and save the machine: later commands start behind it. It runs again when it,
    /// a file that it has read, or the machine has changed.
    #[arg(long, value_name = "COMMAND", conflicts_with = "cold")]
    setup: Option<OsString>,
    /// Load this kernel module (.ko) first; repeatable.
    #[arg(long, value_name = "FILE")]
    module: Vec<PathBuf>,
    /// Limit of what the command may write to the guest's memory: 256M, 2G. Default: half of it.
    #[arg(long, value_name = "SIZE", value_parser = super::args::memory)]
    overlay: Option<u32>,
    /// Keep core dumps of the command's processes, up to this size each: 64M, 1G; 0 keeps none. Default: the limit of this process
    /// (`ulimit -c`), at most 1G.
    #[arg(long, value_name = "SIZE", value_parser = values::core)]
    core: Option<u32>,
    /// Working directory in the guest. Default: this one with --root host and none, else /.
    #[arg(long, value_name = "DIR")]
    cwd: Option<OsString>,
    /// Run the command as this user: UID or UID:GID. Default: root.
    #[arg(long, value_name = "UID[:GID]", value_parser = user)]
    user: Option<(u32, u32)>,
    /// Processors of the guest. Default: 2.
    #[arg(long, value_name = "N", value_parser = super::args::within(1, 64))]
    cpus: Option<u32>,
    /// Memory of the guest: 512M, 2G. Default: 1G, or what kernels.toml has for the kernel if that is more.
    #[arg(long, value_name = "SIZE", value_parser = super::args::memory)]
    memory: Option<u32>,
    /// Kernel parameters, as on the kernel's command line; repeatable.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    cmdline: Vec<String>,
    /// Set a kernel parameter before the command starts, for example net.ipv4.ip_forward=1; repeatable.
    #[arg(long, value_name = "KEY=VALUE", value_parser = sysctl)]
    sysctl: Vec<(String, String)>,
    /// The command reads nothing, and has pipes even at a terminal.
    #[arg(long)]
    no_input: bool,
    /// Boot every guest. By default, guests are restored from snapshots of booted guests.
    #[arg(long)]
    cold: bool,
    /// Maximum number of parallel guests. Default: one per processor, limited by memory.
    #[arg(short, long, value_name = "N", value_parser = super::args::size)]
    jobs: Option<std::num::NonZeroUsize>,
    /// How often a command that does not pass is repeated, each time in a fresh guest. It reads nothing then.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = super::args::within(0, 20))]
    retries: u32,
    /// Whether a command that passes only when repeated fails the run.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    flaky: OnFlaky,
    /// Which commands share a guest: with several topologies there are several commands per kernel.
    #[arg(long, value_enum, default_value = "case", value_name = "HOW")]
    isolate: Isolate,
    /// What the command needs of a kernel: a capability, or an option of its configuration as CONFIG_NAME or CONFIG_NAME=VALUE;
    /// repeatable. A kernel that lacks it is a skip.
    #[arg(long, value_name = "WHAT")]
    require: Vec<Requirement>,
    /// File with known failures, in the form of known.toml, in addition to it.
    #[arg(long, value_name = "FILE")]
    known: Option<PathBuf>,
    /// Put programs of `lab setup --tests` before those of PATH: kselftest, newer iproute2, ethtool, nft, ping, socat, jq and
    /// mausezahn than the host may have.
    #[arg(long, value_enum, value_name = "SET")]
    tools: Option<ToolSet>,
    /// Replace a deadline, for example silence=30s; see `lab run --help`.
    #[arg(long, value_name = "LAYER=TIME")]
    deadline: Vec<crate::run::deadline::Deadline>,
    #[command(flatten)]
    witness: WitnessArgs,
    /// Never build the agent and the eBPF object. By default, they are built where there are none; `lab run` builds changed ones.
    #[arg(long)]
    pub(super) no_build: bool,
    /// Directory for results. Default: results/exec/ in the project.
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    #[command(flatten)]
    suite: SuiteArgs,
    /// The command and its arguments.
    #[arg(skip)]
    command: Vec<OsString>,
}

/// `lab exec` with its command.
#[derive(Debug, Args)]
pub(super) struct ExecCommand {
    #[command(flatten)]
    args: ExecArgs,
    /// The command and its arguments, behind `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl ExecCommand {
    /// Both in one.
    pub(super) fn whole(self) -> ExecArgs {
        ExecArgs { command: self.command, ..self.args }
    }
}

/// What the command sees as `/`.
#[derive(Debug, Clone)]
enum Root {
    /// The files of the image.
    Image,
    /// Files of the host.
    World(RootChoice),
}

impl FromStr for Root {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        if text == "image" { Ok(Self::Image) } else { text.parse().map(Self::World) }
    }
}

/// Variables of the caller that a set-up has.
const SETUP_VARIABLES: [&str; 6] = ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER"];
/// A shell command, for the guest's shell.
fn in_shell(command: &[u8]) -> Vec<Raw> {
    let words: [&[u8]; 3] = [b"sh", b"-c", command];
    words.map(Raw::from).to_vec()
}

/// The variables of `--env`.
struct Variables {
    /// Those with a value.
    env: Vec<(Raw, Raw)>,
    /// Names of the caller's that are passed on.
    passed: Vec<String>,
}

impl ExecArgs {
    /// Makes the command one of selftests, with the programs that they call if these are there.
    pub(super) fn of_selftests(
        &mut self,
        project: &Project,
        tests: Vec<OsString>,
        sources: PathBuf,
    ) -> Result<(), Error> {
        self.suite.of_kernel(sources)?;
        self.command = tests;
        let states_path = self.env.iter().any(|word| word.as_encoded_bytes().starts_with(b"PATH="));
        if self.tools.is_none() && !states_path {
            match Tools::in_cache(project.cache.root()).suites() {
                Some(_) => self.tools = Some(ToolSet::Kselftest),
                None => note("tests call this host's programs; `lab setup --tests` brings newer ones"),
            }
        }
        Ok(())
    }

    /// Says that these are not all kernels of a workload.
    pub(super) fn narrow(&mut self) {
        self.suite.narrowed = true;
    }

    /// Takes what a command line says of guests, where it says something.
    pub(super) fn follow(&mut self, how: &HowArgs) {
        self.cold |= how.cold;
        self.isolate = how.isolate.unwrap_or(self.isolate);
        self.jobs = how.jobs.or(self.jobs);
        self.retries = how.retries.unwrap_or(self.retries);
        if how.flaky != OnFlaky::default() {
            self.flaky = how.flaky;
        }
        // A later value of a layer replaces an earlier one.
        self.deadline.extend(how.deadline.iter().cloned());
        self.results = how.out.clone().or(self.results.take());
    }

    /// Files of the host for the command.
    fn world(&self, project: &Project) -> Result<Option<Arc<World>>, Error> {
        let Root::World(root) = self.root.clone() else {
            let needs = [
                ("--rw", !self.rw.is_empty()),
                ("--out", self.out.is_some()),
                ("--module", !self.module.is_empty()),
                ("--net", self.net != Reached::Nothing),
                ("--setup", self.setup.is_some()),
                ("--core", self.core.is_some_and(|mib| mib > 0)),
            ];
            return match needs.into_iter().find(|(_, given)| *given) {
                Some((name, _)) => {
                    Err(Error::Usage(format!("{name} shares files of this host: use another --root than image")))
                }
                None => Ok(None),
            };
        };
        let here = || env::current_dir().map_err(Error::file("find", "the working directory"));
        let cwd = match (&self.cwd, &root) {
            (Some(cwd), _) => PathBuf::from(cwd),
            (None, RootChoice::Host | RootChoice::None) => here()?,
            (None, RootChoice::Path(_)) => PathBuf::from("/"),
        };
        let stated = self.env.iter().rev().find_map(|word| word.as_encoded_bytes().strip_prefix(b"PATH="));
        let with_tools = self.search_path(project)?;
        let path = match stated {
            Some(path) => Some(OsStr::from_bytes(path).to_owned()),
            None if with_tools.is_some() => with_tools,
            None if self.clean_env => None,
            None => env::var_os("PATH"),
        };
        let program = ClosureProgram {
            name: self.command[0].clone(),
            path,
            files: self.file.clone(),
            ..ClosureProgram::default()
        };
        let (writable, out, modules) = (self.rw.clone(), self.out.clone(), self.module.clone());
        let (services, pasta, overlay_mib) = (self.net.services(), self.pasta(project)?, self.overlay);
        let core_bytes = self.core.map_or_else(values::core_limit, |mib| u64::from(mib) << 20);
        let options = Options { root, program, cwd, writable, out, modules, services, pasta, overlay_mib, core_bytes };
        let no_shell = options.root == RootChoice::None;
        let world = World::new(options, project.cache.root())?;
        let Some(command) = &self.setup else { return Ok(Some(Arc::new(world))) };
        if no_shell {
            return Err(Error::Usage("--setup needs a root with a shell: use another --root than none".to_owned()));
        }
        let command = self.setup_program(project, command, world.spec())?;
        Ok(Some(Arc::new(world.behind(command)?)))
    }

    /// A network for guests.
    fn pasta(&self, project: &Project) -> Result<Option<PastaOptions>, Error> {
        match self.net {
            Reached::Pasta => {
                let passt = Tools::in_cache(project.cache.root()).passt();
                let passt = passt.ok_or_else(|| Error::Host("passt is not there; `lab setup` brings it".to_owned()))?;
                Ok(Some(PastaOptions { passt, published: self.publish.clone() }))
            }
            _ if self.publish.is_empty() => Ok(None),
            _ => Err(Error::Usage("--publish leads into a guest with a network: add --net pasta".to_owned())),
        }
    }

    /// The set-up's variables are few: a machine that is saved must not depend on the rest of the caller's.
    fn setup_program(&self, project: &Project, command: &OsStr, world: &WorldSpec) -> Result<CellProgram, Error> {
        let Variables { mut env, passed } = self.variables(project)?;
        let usual = SETUP_VARIABLES.iter().filter(|_| !self.clean_env).map(|name| (*name).to_owned());
        for name in usual.chain(passed) {
            if let Some(value) = env::var_os(&name).filter(|_| !env.iter().any(|(known, _)| known.0 == name.as_bytes()))
            {
                env.push((Raw::from(&*name), Raw::from(value.as_encoded_bytes())));
            }
        }
        Ok(CellProgram {
            argv: in_shell(command.as_encoded_bytes()),
            env,
            inherit: Inherit::Named(Vec::new()),
            cwd: Raw::from(&world.cwd),
            world: None,
            stage: ShellStage::Bare,
            node: None,
            user: None,
            terminal: None,
            timeout_ms: None,
            core_bytes: 0,
            sysctl: self.sysctl.clone(),
            input: false,
            witness: None,
        })
    }

    /// `PATH` with the programs of `--tools` first, unless `--env` states it.
    fn search_path(&self, project: &Project) -> Result<Option<OsString>, Error> {
        let Some(ToolSet::Kselftest) = self.tools else { return Ok(None) };
        if self.env.iter().any(|word| word.as_encoded_bytes().starts_with(b"PATH=")) {
            return Err(Error::Usage("--tools and --env PATH=… both say what PATH is: remove one of them".to_owned()));
        }
        let set = Tools::in_cache(project.cache.root()).suites();
        let set = set.ok_or_else(|| {
            Error::Host("the programs of --tools are not there; `lab setup --tests` brings them".to_owned())
        })?;
        let own = if self.clean_env { None } else { env::var_os("PATH") };
        let usual = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
        let others = own.iter().flat_map(env::split_paths).chain(usual);
        let all = std::iter::once(set.root().join(programs::BIN)).chain(others);
        Ok(Some(env::join_paths(all).map_err(|error| Error::Usage(format!("PATH: {error}")))?))
    }

    fn variables(&self, project: &Project) -> Result<Variables, Error> {
        let (mut env, mut passed) = (Vec::new(), Vec::new());
        for word in &self.env {
            let bytes = word.as_encoded_bytes();
            match bytes.iter().position(|byte| *byte == b'=') {
                Some(0) => return Err(Error::Usage(format!("--env {}: a variable without a name", word.display()))),
                Some(at) => env.push((Raw::from(&bytes[..at]), Raw::from(&bytes[at + 1..]))),
                None => passed.push(word.to_string_lossy().into_owned()),
            }
        }
        if let Some(path) = self.search_path(project)? {
            env.push((Raw::from("PATH"), Raw::from(path.as_encoded_bytes())));
        }
        Ok(Variables { env, passed })
    }

    fn how(&self, streams: &Arc<Streams>, world: Option<Arc<World>>) -> GuestOptions {
        let usual = Shape::of_programs();
        let words = self.cmdline.iter().flat_map(|words| words.split_whitespace()).map(str::to_owned);
        GuestOptions {
            jobs: self.jobs,
            cold: self.cold,
            isolate: self.isolate,
            retries: Retries { count: self.retries, on_flaky: self.flaky },
            deadlines: self.deadline.clone(),
            streams: Some(Arc::clone(streams)),
            shape: Shape {
                // The host has all tools: the guest that runs cells will do.
                profile: if world.is_some() { Profile::Suite } else { Profile::Shell },
                cpus: self.cpus.or(usual.cpus),
                memory_mib: self.memory,
                network: self.net == Reached::Pasta,
                cmdline: self.witness.preload().into_iter().chain(words).collect(),
                ..usual
            },
            world,
            ..GuestOptions::default()
        }
    }

    fn request(&self, project: &Project, selected: &Selected, world: Option<&World>) -> Result<ExecRequest, Error> {
        let Variables { env, passed } = self.variables(project)?;
        if let Some(word) = self.command.iter().find(|word| word.as_encoded_bytes().contains(&0)) {
            return Err(Error::Usage(format!(
                "an argument has a zero byte: {}",
                text::line(&word.to_string_lossy(), 100)
            )));
        }
        Ok(ExecRequest {
            argv: self.command.iter().map(|word| Raw::from(word.as_encoded_bytes())).collect(),
            name: self.name.clone(),
            stages: self.stages(selected)?,
            node: self.node.clone(),
            env,
            inherit: if self.clean_env { Inherit::Named(passed) } else { Inherit::All },
            cwd: match (&self.cwd, world) {
                (Some(cwd), _) => Raw::from(cwd.as_encoded_bytes()),
                (None, Some(world)) => Raw::from(&world.spec().cwd),
                (None, None) => Raw::default(),
            },
            world: world.map(|world| world.spec().clone()),
            user: self.user,
            timeout_ms: self.timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
            core_bytes: world.map_or(0, World::core_bytes),
            sysctl: self.sysctl.clone(),
            witness: self.witness.rules()?,
            requires: self
                .require
                .iter()
                .filter_map(|it| if let Requirement::Capability(capability) = it { Some(*capability) } else { None })
                .collect(),
        })
    }

    /// Every topology with every kind.
    fn stages(&self, selected: &Selected) -> Result<Vec<(String, Option<LinkKind>)>, Error> {
        if self.topology.is_empty() {
            return Ok(Vec::new());
        }
        let mut stages = Vec::new();
        for name in &self.topology {
            if self.kind.is_empty() {
                stages.push((name.clone(), topology::find(&selected.topologies, name, None)?.kind));
            }
            for kind in &self.kind {
                stages.push((name.clone(), topology::find(&selected.topologies, name, Some(kind))?.kind));
            }
        }
        Ok(stages)
    }
}
