//! Runs what a command line of `lab exec` says, for all commands that run programs of others.

use super::{Ahead, ExecArgs, ExecCommand, ExecPlan, in_shell};
use crate::{
    cli::{Cli, Command, args::FormatArgs},
    error::Error,
    exec::{ExecRequest, end, table},
    foreign,
    guests::{Conducted, GuestOptions, Guests, Order, Talk, machine::Shape},
    project::{
        Project,
        artifacts::ArtifactError,
        filter::{CellFilter, KernelFilter},
        select::{Selected, build, select_cells},
    },
    run::{
        program::{Show, Streams, label},
        queue::Isolate,
    },
    shard::part,
    shell::terminal::Screen,
    world::{Options, World},
};
use clap::Parser;
use lab_base::say::{say, show};
use lab_kernel_store::Kernel;
use lab_protocol::{CellInfo, Raw, shell::Terminal, work::Inherit};
use lab_record::{exit::Exit, plan::Plan, shard::Part};
use std::{
    env,
    ffi::OsString,
    io::{IsTerminal, stdin, stdout},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Terminal type if the caller's terminal has none.
const USUAL_TERMINAL: &str = "xterm";

/// The words of this command line that `lab rerun` needs: all behind the command's name but those that name kernels.
pub(in crate::cli) fn words(command: &str) -> Vec<OsString> {
    let mut all = env::args_os().skip_while(|word| word != command).skip(1);
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

pub(in crate::cli) fn exec(named: Option<PathBuf>, command: ExecCommand) -> Result<Exit, Error> {
    let mut words = words("exec");
    // A command without options before it is not taken for one of the lab's.
    if words.first().is_some_and(|word| !word.as_encoded_bytes().starts_with(b"-")) {
        words.insert(0, "--".into());
    }
    match run(named, &command.whole(), words, |plan| plan) {
        // Of the lab, and not of the command, whose exit code may be anything.
        Err(error) if error.interruption().is_none() => {
            say(&format!("lab exec: error: {error}"));
            Ok(Exit::Program(end::FAILED))
        }
        done => done,
    }
}

/// Runs a command of an earlier run again, on the kernels of `narrow`.
pub(in crate::cli) fn again(
    named: Option<PathBuf>,
    kernels: &[String],
    words: &[Raw],
    narrow: impl FnOnce(Plan) -> Plan,
) -> Result<Exit, Error> {
    let words: Vec<OsString> = words.iter().map(|word| OsString::from_vec(word.0.clone())).collect();
    let mut args = ExecArgs::parsed(&words).map_err(|error| Error::Usage(error.to_string()))?;
    args.kernels.kernel.extend(kernels.iter().cloned());
    run(named, &args, words, narrow)
}

impl ExecArgs {
    /// What these words behind `lab exec` say.
    pub(in crate::cli) fn parsed(words: &[OsString]) -> Result<Self, clap::Error> {
        let line = [OsString::from("lab"), "exec".into()].into_iter().chain(words.iter().cloned());
        match Cli::try_parse_from(line)?.command {
            Command::Exec(command) => Ok(command.whole()),
            _ => Err(clap::Error::raw(clap::error::ErrorKind::InvalidSubcommand, "no words of lab exec")),
        }
    }
}

/// A shell command for `lab bisect`, and how its guests run.
pub(in crate::cli) fn question(project: &Project, command: &str) -> Result<(Vec<CellInfo>, GuestOptions), Error> {
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
        core_bytes: 0,
        sysctl: Vec::new(),
        witness: None,
        requires: Vec::new(),
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

/// Where the selftest of a search comes from.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) enum SelftestsOf<'a> {
    /// The sources of a kernel of kernels.toml.
    Kernel(&'a str),
    /// A kernel tree, as it is checked out.
    Tree(&'a Path),
}

/// A selftest of the kernel's for `lab bisect`, and how its guests run. What it needs is built, in the sources of a kernel.
pub(in crate::cli) fn selftest(
    project: &Project,
    selected: &Selected,
    sources: SelftestsOf<'_>,
    test: &str,
) -> Result<(Vec<CellInfo>, GuestOptions), Error> {
    let mut words: Vec<OsString> =
        ["--suite", "kselftest", "--no-input", "--witness", "off"].map(OsString::from).into();
    let kernels = match sources {
        SelftestsOf::Kernel(id) => {
            words.extend(["--sources".into(), format!("kernel={id}").into()]);
            project.kernels_for_programs(&KernelFilter { kernel: vec![id.to_owned()], ..KernelFilter::default() })?
        }
        SelftestsOf::Tree(tree) => {
            words.extend(["--cwd".into(), foreign::below(tree)?.into()]);
            Vec::new()
        }
    };
    words.extend(["--".into(), test.into()]);
    let args = ExecArgs::parsed(&words).map_err(|error| Error::Usage(error.to_string()))?;
    let planned = ExecPlan::new(project, &kernels, &args, selected, Ahead::Prepare)?;
    let cells = planned.cells(false, None);
    let streams = Streams::silent().map_err(Error::file("open", "/dev/null"))?;
    let streams = match planned.suite {
        Some(plan) => streams.reading(plan.readers),
        None => streams,
    };
    let how = args.how(&Arc::new(streams), planned.world);
    Ok((cells, GuestOptions { isolate: Isolate::Case, ..how }))
}

/// The agent that was built last, so that a command waits neither for a compiler nor for other labs; a new one only where there
/// is none, or one of another lab.
pub(in crate::cli) fn built(project: &Project, no_build: bool) -> Result<Selected, Error> {
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
    let order = ExecOrder {
        args,
        words,
        kernels: args.kernels.filter(),
        cells: CellFilter::default(),
        suite: None,
        shard: None,
    };
    go(&project, order, narrow)
}

/// A command that is to run.
pub(in crate::cli) struct ExecOrder<'a> {
    pub args: &'a ExecArgs,
    /// What `lab rerun` needs.
    pub words: Vec<OsString>,
    pub kernels: KernelFilter,
    /// Those of its cells that run.
    pub cells: CellFilter,
    /// How it is told, of a command that is run as a suite is: with the exit code of a run.
    pub suite: Option<RunTold<'a>>,
    /// The part of it that runs; all of it by default.
    pub shard: Option<ShardOrder<'a>>,
}

/// One shard of a workload.
pub(in crate::cli) struct ShardOrder<'a> {
    pub part: Part,
    /// File with the durations by which it is split.
    pub durations: Option<&'a Path>,
}

/// How a run of a workload is told.
pub(in crate::cli) struct RunTold<'a> {
    pub talk: Talk,
    /// The format that is asked for.
    pub format: Option<&'a FormatArgs>,
    /// Whether the first failure ends it.
    pub fail_fast: bool,
}

pub(in crate::cli) fn go(
    project: &Project,
    order: ExecOrder<'_>,
    narrow: impl FnOnce(Plan) -> Plan,
) -> Result<Exit, Error> {
    let ExecOrder { args, words, kernels, cells: filter, suite: told, shard } = order;
    let kernels = project.kernels_for_programs(&kernels)?;
    let lists = args.known.as_deref().map(|path| project.lists.clone().with_known(path)).transpose();
    let own_lists = lists.map_err(lab_kernel_store::KernelsError::from)?;
    let selected = built(project, args.no_build)?;
    let planned = ExecPlan::new(project, &kernels, args, &selected, Ahead::Prepare)?;
    let is_suite = planned.suite.is_some();
    let is_one = kernels.len() == 1 && planned.request.stages.len() <= 1 && !is_suite && told.is_none();
    let reads = is_one && !args.no_input && args.retries == 0;
    let interactive = reads && stdin().is_terminal() && stdout().is_terminal();
    let screen = interactive.then(|| Screen::watch(stdout())).transpose().map_err(Error::file("watch", "terminal"))?;
    let terminal = screen.as_ref().map(|screen| Terminal {
        kind: env::var("TERM").unwrap_or_else(|_| USUAL_TERMINAL.to_owned()),
        size: screen.size(),
    });
    let cells = select_cells(&planned.cells(reads, terminal.as_ref()), &filter)?;
    let labels = || kernels.iter().flat_map(|kernel| cells.iter().map(|info| label(&kernel.id, info).chars().count()));
    let show_as = if is_one { Show::Plain } else { Show::Prefixed { width: labels().max().unwrap_or_default() } };
    let ExecPlan { world, suite, skips, .. } = planned;
    let streams = match suite {
        // Its output is in files, and what it says in the table.
        Some(plan) => Streams::silent().map_err(Error::file("open", "/dev/null"))?.reading(plan.readers),
        None => Streams::of_process(show_as, screen).map_err(Error::file("duplicate", "standard streams"))?,
    };
    let streams = Arc::new(streams);
    let words = words.iter().map(|word| Raw::from(word.as_encoded_bytes())).collect();
    let fail_fast = told.as_ref().is_some_and(|told| told.fail_fast);
    let may_be_held = !is_suite && told.is_none();
    let how = GuestOptions { exec: words, fail_fast, own_lists, may_be_held, ..args.how(&streams, world) };
    let talk = told.as_ref().map_or(Talk::Guests, |told| told.talk);
    let order = Order { how, out: args.results.clone(), talk };
    let selected = Selected { cells, every_cell: false, ..selected };
    let adapt = |plan| narrow(skips.apply(plan));
    let done = match shard {
        None => Guests::execute(project, &kernels, selected, order, false, adapt),
        Some(ShardOrder { part, durations }) => {
            let (plan, shard) = part::whole(project, &kernels, &selected, false, durations, adapt)?.part(part)?;
            let own = |kernel: &&&Kernel| plan.kernels.iter().any(|planned| planned.facts.id == kernel.id);
            let kernels: Vec<&Kernel> = kernels.iter().filter(own).copied().collect();
            let guests = Guests::open(project, &kernels, &selected)?;
            guests.conduct(project, plan, Some(shard), false, order)
        }
    };
    // What the command wrote comes before anything that is said of it.
    streams.finish();
    let done = done?;
    if is_one {
        let (exit, said) = end::of_one(&done.record, args.witness.shows());
        said.iter().for_each(|line| say(line));
        return Ok(exit);
    }
    tell(&done, is_suite, told.as_ref())?;
    Ok(done.record.finished.map_or(Exit::Infra, |(exit, _)| exit))
}

/// Prints a finished run.
fn tell(done: &Conducted, is_suite: bool, told: Option<&RunTold<'_>>) -> Result<(), Error> {
    if let Some(RunTold { format: Some(FormatArgs { format: Some(chosen), origin }), .. }) = told {
        return Ok(chosen.show(&done.record, origin)?);
    }
    if told.is_some_and(|told| matches!(told.talk, Talk::Nothing)) {
        return Ok(());
    }
    Ok(show(if is_suite { foreign::differences(&done.record, &done.name) } else { table(&done.record, &done.name) })?)
}
