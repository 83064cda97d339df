//! `lab exec`.

use super::{
    args::KernelArgs,
    exec_words::{Reached, file, name, network, published, sysctl, user},
    suite::SuiteArgs,
    topology,
    witness::WitnessArgs,
};
use crate::{
    error::Error,
    exec::{ExecRequest, end, table},
    foreign,
    guests::{GuestOptions, Guests, Order, Talk, machine::Shape},
    project::{
        Project,
        artifacts::ArtifactError,
        select::{Selected, build},
    },
    run::{
        common::{OnFlaky, Retries},
        program::{Show, Streams, label},
        queue::Isolate,
    },
    setup::Tools,
    shell::terminal::Screen,
    world::{ClosureProgram, Options, PastaOptions, PublishedPort, RootChoice, World},
};
use clap::{Args, Parser};
use lab_base::{
    say::{say, show},
    text,
};
use lab_image::Profile;
use lab_protocol::{
    CellInfo, CellProgram, LinkKind, Raw,
    shell::{ShellStage, Terminal},
    work::Inherit,
    world::WorldSpec,
};
use lab_record::{exit::Exit, plan::Plan};
use std::{
    convert::Infallible,
    env,
    ffi::{OsStr, OsString},
    io::{IsTerminal, stdin, stdout},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    #[command(flatten)]
    kernels: KernelArgs,
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
    /// GuestOptions often a command that does not pass is repeated, each time in a fresh guest. It reads nothing then.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = super::args::within(0, 20))]
    retries: u32,
    /// Whether a command that passes only when repeated fails the run.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    flaky: OnFlaky,
    /// Which commands share a guest: with several topologies there are several commands per kernel.
    #[arg(long, value_enum, default_value = "case", value_name = "HOW")]
    isolate: Isolate,
    /// Replace a deadline, for example silence=30s; see `lab run --help`.
    #[arg(long, value_name = "LAYER=TIME")]
    deadline: Vec<crate::run::deadline::Deadline>,
    #[command(flatten)]
    witness: WitnessArgs,
    /// Never build the agent and the eBPF object. By default, they are built where there are none; `lab run` builds changed ones.
    #[arg(long)]
    no_build: bool,
    /// Directory for results. Default: results/exec/ in the project.
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    #[command(flatten)]
    suite: SuiteArgs,
    /// The command and its arguments, behind `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
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
/// Terminal type if the caller's terminal has none.
const USUAL_TERMINAL: &str = "xterm";

/// The words of this command line that `lab rerun` needs: all behind `exec` but those that name kernels.
fn words() -> Vec<OsString> {
    let mut all = env::args_os().skip_while(|word| word != "exec").skip(1);
    let mut words = Vec::new();
    while let Some(word) = all.next() {
        let text = word.to_string_lossy();
        match &*text {
            "--" => {
                words.push(word);
                words.extend(all);
                return words;
            }
            "-k" | "--kernel" | "--class" => drop(all.next()),
            "--all" | "--newest" => {}
            text if text.starts_with("-k") || text.starts_with("--kernel=") || text.starts_with("--class=") => {}
            _ => words.push(word),
        }
    }
    words
}

pub(super) fn exec(named: Option<PathBuf>, args: &ExecArgs) -> Result<Exit, Error> {
    match run(named, args, words(), |plan| plan) {
        // Of the lab, and not of the command, whose exit code may be anything.
        Err(error) if error.interruption().is_none() => {
            say(&format!("lab exec: error: {error}"));
            Ok(Exit::Program(end::FAILED))
        }
        done => done,
    }
}

/// Runs a command of an earlier run again, on the kernels of `narrow`.
pub(super) fn again(
    named: Option<PathBuf>,
    kernels: &[String],
    words: &[Raw],
    narrow: impl FnOnce(Plan) -> Plan,
) -> Result<Exit, Error> {
    let words: Vec<OsString> = words.iter().map(|word| OsString::from_vec(word.0.clone())).collect();
    let names = kernels.iter().flat_map(|kernel| ["--kernel".into(), OsString::from(kernel)]);
    let line = [OsString::from("lab"), "exec".into()].into_iter().chain(names).chain(words.iter().cloned());
    let parsed = super::Cli::try_parse_from(line).map_err(|error| Error::Usage(error.to_string()))?;
    match parsed.command {
        super::Command::Exec(args) => run(named, &args, words, narrow),
        _ => Err(Error::Usage("the run does not say how its command was started".to_owned())),
    }
}

/// A shell command, for the guest's shell.
fn in_shell(command: &[u8]) -> Vec<Raw> {
    let words: [&[u8]; 3] = [b"sh", b"-c", command];
    words.map(Raw::from).to_vec()
}

/// A shell command for `lab bisect`, and how its guests run.
pub(super) fn question(project: &Project, command: &str) -> Result<(Vec<CellInfo>, GuestOptions), Error> {
    let cwd = env::current_dir().map_err(Error::file("find", "the working directory"))?;
    let world = Arc::new(World::new(Options { cwd, ..Options::default() }, project.cache.root())?);
    let request = ExecRequest {
        argv: in_shell(command.as_bytes()),
        name: None,
        stages: Vec::new(),
        node: None,
        env: Vec::new(),
        inherit: Inherit::All,
        cwd: Raw::from(&world.spec().cwd),
        world: Some(world.spec().clone()),
        user: None,
        timeout_ms: None,
        sysctl: Vec::new(),
        witness: None,
    };
    let streams = Streams::silent().map_err(Error::file("open", "/dev/null"))?;
    let how = GuestOptions {
        streams: Some(Arc::new(streams)),
        world: Some(world),
        shape: Shape::of_programs(),
        isolate: Isolate::Case,
        ..GuestOptions::default()
    };
    Ok((request.cells(false, None), how))
}

/// The agent that was built last, so that a command waits neither for a compiler nor for other labs; a new one only where there
/// is none, or one of another lab.
pub(super) fn built(project: &Project, no_build: bool) -> Result<Selected, Error> {
    match build(project, true, false) {
        Err(Error::Artifact(ArtifactError::Absent { .. } | ArtifactError::Listing { .. })) if !no_build => {
            build(project, false, false)
        }
        other => other,
    }
}

fn run(
    named: Option<PathBuf>,
    args: &ExecArgs,
    words: Vec<OsString>,
    narrow: impl FnOnce(Plan) -> Plan,
) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let kernels = project.kernels(&args.kernels.filter())?;
    let selected = built(&project, args.no_build)?;
    let world = args.world(&project)?;
    let request = args.request(&selected, world.as_deref())?;
    let suite = args.suite.plan(args.cwd.as_deref(), args.name.as_deref(), &request)?;
    let is_one = kernels.len() == 1 && request.stages.len() <= 1 && suite.is_none();
    let reads = is_one && !args.no_input && args.retries == 0;
    let interactive = reads && stdin().is_terminal() && stdout().is_terminal();
    let screen = interactive.then(|| Screen::watch(stdout())).transpose().map_err(Error::file("watch", "terminal"))?;
    let terminal = screen.as_ref().map(|screen| Terminal {
        kind: env::var("TERM").unwrap_or_else(|_| USUAL_TERMINAL.to_owned()),
        size: screen.size(),
    });
    let cells = match &suite {
        Some(plan) => plan.cells.clone(),
        None => request.cells(reads, terminal.as_ref()),
    };
    let labels = || kernels.iter().flat_map(|kernel| cells.iter().map(|info| label(&kernel.id, info).chars().count()));
    let show_as = if is_one { Show::Plain } else { Show::Prefixed { width: labels().max().unwrap_or_default() } };
    let streams = Streams::of_process(show_as, screen).map_err(Error::file("duplicate", "standard streams"))?;
    let is_suite = suite.is_some();
    let streams = match suite {
        // Its output is in files, and what it says in the table.
        Some(plan) => Streams::silent().map_err(Error::file("open", "/dev/null"))?.reading(plan.readers),
        None => streams,
    };
    let streams = Arc::new(streams);
    let words = words.iter().map(|word| Raw::from(word.as_encoded_bytes())).collect();
    let how = GuestOptions { exec: words, ..args.how(&streams, world) };
    let order = Order { how, out: args.results.clone(), talk: Talk::Guests };
    let selected = Selected { cells, every_cell: false, ..selected };
    let done = Guests::execute(&project, &kernels, selected, order, false, narrow);
    // What the command wrote comes before anything that is said of it.
    streams.finish();
    let done = done?;
    if is_one {
        let (exit, said) = end::of_one(&done.record, args.witness.shows());
        said.iter().for_each(|line| say(line));
        return Ok(exit);
    }
    show(if is_suite { foreign::differences(&done.record, &done.name) } else { table(&done.record, &done.name) })?;
    Ok(done.record.finished.map_or(Exit::Infra, |(exit, _)| exit))
}

/// The variables of `--env`.
struct Variables {
    /// Those with a value.
    env: Vec<(Raw, Raw)>,
    /// Names of the caller's that are passed on.
    passed: Vec<String>,
}

impl ExecArgs {
    /// Files of the host for the command.
    fn world(&self, project: &Project) -> Result<Option<Arc<World>>, Error> {
        let Root::World(root) = self.root.clone() else {
            let needs = [
                ("--rw", !self.rw.is_empty()),
                ("--out", self.out.is_some()),
                ("--module", !self.module.is_empty()),
                ("--net", self.net != Reached::Nothing),
                ("--setup", self.setup.is_some()),
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
        let path = match stated {
            Some(path) => Some(OsStr::from_bytes(path).to_owned()),
            None if self.clean_env => None,
            None => env::var_os("PATH"),
        };
        let program = ClosureProgram { name: self.command[0].clone(), path, files: self.file.clone() };
        let (writable, out, modules) = (self.rw.clone(), self.out.clone(), self.module.clone());
        let (services, pasta, overlay_mib) = (self.net.services(), self.pasta(project)?, self.overlay);
        let options = Options { root, program, cwd, writable, out, modules, services, pasta, overlay_mib };
        let no_shell = options.root == RootChoice::None;
        let world = World::new(options, project.cache.root())?;
        let Some(command) = &self.setup else { return Ok(Some(Arc::new(world))) };
        if no_shell {
            return Err(Error::Usage("--setup needs a root with a shell: use another --root than none".to_owned()));
        }
        let command = self.setup_program(command, world.spec())?;
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
    fn setup_program(&self, command: &OsStr, world: &WorldSpec) -> Result<CellProgram, Error> {
        let Variables { mut env, passed } = self.variables()?;
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
            sysctl: self.sysctl.clone(),
            input: false,
            witness: None,
        })
    }

    fn variables(&self) -> Result<Variables, Error> {
        let (mut env, mut passed) = (Vec::new(), Vec::new());
        for word in &self.env {
            let bytes = word.as_encoded_bytes();
            match bytes.iter().position(|byte| *byte == b'=') {
                Some(0) => return Err(Error::Usage(format!("--env {}: a variable without a name", word.display()))),
                Some(at) => env.push((Raw::from(&bytes[..at]), Raw::from(&bytes[at + 1..]))),
                None => passed.push(word.to_string_lossy().into_owned()),
            }
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

    fn request(&self, selected: &Selected, world: Option<&World>) -> Result<ExecRequest, Error> {
        let Variables { env, passed } = self.variables()?;
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
            sysctl: self.sysctl.clone(),
            witness: self.witness.rules()?,
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
