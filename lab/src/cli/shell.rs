//! `lab shell`.

use super::topology;
use crate::{
    error::Error,
    guests::{Guests, VisitLog, machine::Shape},
    project::{
        Project,
        filter::KernelFilter,
        select::{Selected, build, names},
    },
    run::visit::Visited,
    shell::{
        Ended, ShellEnd, ShellSession,
        terminal::{Keyboard, Screen},
    },
    world::{Options, World},
};
use clap::Args;
use lab_base::{say::say, selection, text};
use lab_image::{PROGRAMS, Profile, Toolbox};
use lab_protocol::{
    Capability, CellReport, LinkKind, Outcome,
    shell::{ShellRequest, ShellStage, Terminal},
    witness::PRELOAD,
};
use lab_record::{
    exit::Exit,
    plan::{Expectation, KernelFacts, Plan},
};
use lab_report::attached;
use std::{
    env,
    fmt::Write as _,
    io::{IsTerminal, stderr, stdin, stdout},
    os::fd::AsFd,
    path::PathBuf,
    sync::Arc,
};

/// Files in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum ProfileArg {
    /// A shell and network tools.
    #[default]
    Shell,
    /// This host's root, read-only; changes are written to the guest's memory.
    Host,
}

/// The value of --witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum WitnessArg {
    /// An interactive shell is watched.
    #[default]
    Auto,
    /// The session is watched, and its account is on standard error.
    Show,
    /// Nothing watches.
    Off,
}

#[derive(Debug, Args)]
pub(super) struct ShellArgs {
    /// The kernel, by id.
    #[arg(value_name = "KERNEL")]
    kernel: String,
    /// Build this topology; `lab topology list` shows the names.
    #[arg(long, value_name = "NAME", conflicts_with = "case")]
    topology: Option<String>,
    /// Kind of the workloads' link: veth, nk-l2 or nk-l3.
    #[arg(long, value_name = "KIND", requires = "topology")]
    kind: Option<String>,
    /// Run this cell up to its first packet; it continues when the shell ends.
    #[arg(short, long, value_name = "ID")]
    case: Option<String>,
    /// Files in the guest. With `host`, the guest can read every file of this host that you may read, but can't write
    /// any.
    #[arg(long, value_enum, default_value_t, value_name = "PROFILE")]
    profile: ProfileArg,
    /// Boot the guest. By default it is restored from a snapshot of a booted guest.
    #[arg(long)]
    cold: bool,
    /// Use the existing builds of the agent and the eBPF object.
    #[arg(long)]
    no_build: bool,
    /// Whether the end of the session tells what was attached in it, and what is left. auto: of an interactive shell in which
    /// something was.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    witness: WitnessArg,
    /// Run this command instead of a shell, and exit with its exit code.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Terminal type if the user's terminal has none.
const USUAL_TERMINAL: &str = "xterm";

pub(super) fn shell(named: Option<PathBuf>, args: &ShellArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let kernels = project.kernels_for_programs(&KernelFilter::of(&args.kernel))?;
    let [kernel] = kernels[..] else {
        let names: Vec<&str> = kernels.iter().map(|kernel| &*kernel.id).collect();
        return Err(Error::Usage(format!(
            "`{}` matches several kernels ({}); select one",
            args.kernel,
            names.join(", ")
        )));
    };
    let selected = build(&project, args.no_build, false)?;
    // A wrong name is told before anything is downloaded.
    let stage = stage(args, &selected, &project.facts(kernel)?)?;
    let guests = Guests::open(&project, &[kernel], &selected)?;

    let interactive = stdin().is_terminal() && stdout().is_terminal();
    let screen = interactive.then(|| Screen::watch(stdout())).transpose().map_err(Error::file("watch", "terminal"))?;
    let terminal = screen.as_ref().map(|screen| Terminal {
        kind: env::var("TERM").unwrap_or_else(|_| USUAL_TERMINAL.to_owned()),
        size: screen.size(),
    });
    let host = args.profile == ProfileArg::Host;
    let options = || -> Result<Options, Error> {
        let cwd = env::current_dir().map_err(Error::file("find", "the working directory"))?;
        Ok(Options { cwd, ..Options::default() })
    };
    let world = host.then(|| Ok::<_, Error>(Arc::new(World::new(options()?, project.cache.root())?))).transpose()?;
    // The host has all tools: the guest that runs cells will do.
    let profile = if host { Profile::Suite } else { Profile::Shell };
    let is_watched = match args.witness {
        WitnessArg::Auto => interactive && args.command.is_empty(),
        WitnessArg::Show => true,
        WitnessArg::Off => false,
    };
    let cmdline = is_watched.then(|| PRELOAD.to_owned()).into_iter().collect();
    let shape = Shape { profile, cmdline, ..Shape::default() };
    let request = ShellRequest {
        world: world.as_ref().map(|world| world.spec().clone()),
        stage,
        command: args.command.clone(),
        terminal,
        is_watched,
        time_scale: 1.0,
        now_unix_ns: 0,
    };
    let told = VisitLog::default();
    let greet = |welcome: &str| {
        if args.command.is_empty() && interactive {
            say(&greeting(&kernel.id, &told.release(), host, welcome));
        }
    };
    let (input, mut output, mut errors) = (stdin(), stdout().lock(), stderr());
    let keyboard = Keyboard::new(input.as_fd());
    let shell = ShellSession::new(request, screen, Some(keyboard), (&mut output, &mut errors), &greet);
    let visited = guests.visit(&kernel.id, &shape, args.cold, world, &shell, &told);
    // The terminal must be restored before anything is printed.
    let ShellEnd { ended, report, account } = shell.end();
    if let Some(account) = account {
        let is_idle = account.rows.is_empty() && account.left.is_empty() && account.devices.is_empty();
        if args.witness == WitnessArg::Show || !is_idle || !account.is_whole() {
            attached::lines(&account).iter().for_each(|line| say(&format!("{}: {line}", kernel.id)));
        }
    }
    if let Some(report) = report {
        say(&verdict(&report));
    }
    match (visited?, ended) {
        (Visited::Interrupted, _) => Ok(guests.interrupted()),
        (Visited::Lost, _) | (_, Ended::Unknown) => Ok(Exit::Infra),
        (_, Ended::Left) => Ok(Exit::Passed),
        (_, Ended::Program(code)) => Ok(Exit::Program(code)),
        (_, Ended::Refused(message)) => Err(Error::Host(format!("{}: {}", kernel.id, text::line(&message, 1000)))),
    }
}

/// Determines what the guest must build, and checks that this kernel supports it.
fn stage(args: &ShellArgs, selected: &Selected, kernel: &KernelFacts) -> Result<ShellStage, Error> {
    if let Some(pattern) = &args.case {
        let found = selection::select("case", &selected.cells, std::slice::from_ref(pattern), names)?;
        let [info] = found[..] else {
            let cells: Vec<&str> = found.iter().map(|info| info.id.as_str()).collect();
            return Err(Error::Usage(format!(
                "`{pattern}` matches {} cells; select one: {}",
                cells.len(),
                cells.join(" ")
            )));
        };
        let plan = Plan::new(vec![kernel.clone()], vec![info.clone()], false);
        if let Some(Expectation::Skip { capability, why }) = plan.kernels[0].cell(&info.id).map(|it| &it.expectation) {
            return Err(Error::Usage(format!(
                "{} is skipped on {}, which does not support {capability}: {why}",
                info.id, kernel.id
            )));
        }
        return Ok(ShellStage::Case { cell: info.id.clone() });
    }
    let Some(name) = &args.topology else { return Ok(ShellStage::Bare) };
    let device = topology::find(&selected.topologies, name, args.kind.as_deref())?.kind;
    if device.is_some_and(LinkKind::is_netkit) && !kernel.must_have(Capability::Netkit) {
        let why = kernel.unsupported(Capability::Netkit).map_or_else(
            || format!("needs kernel {}", Capability::Netkit.since().lifted_by(kernel.version)),
            |it| it.reason.clone(),
        );
        return Err(Error::Usage(format!(
            "{} does not support netkit: {why}; build `{name}` with --kind veth",
            kernel.id
        )));
    }
    Ok(ShellStage::Topology { name: name.clone(), device })
}

/// The greeting of the shell.
fn greeting(kernel: &str, release: &str, host: bool, welcome: &str) -> String {
    let mut out = format!("\n{kernel} ({release})\n\n");
    for line in text::block(welcome, 64 << 10).trim_end().lines() {
        let _ = writeln!(out, "{line}");
    }
    if !welcome.trim().is_empty() {
        out.push_str("\nenter NODE [COMMAND]   a shell or a command in a node; also `ip netns exec NODE COMMAND`\n");
    }
    if host {
        out.push_str("The host's files are readable; changes stay in this guest.\n");
    } else {
        out.push_str(&tools());
    }
    out.push_str("`exit` ends the shell, Ctrl-] ends it immediately.\n");
    out
}

fn tools() -> String {
    let absent = Toolbox::collect().map(|toolbox| toolbox.absent).unwrap_or_default();
    let is_there = |(name, _): &(&str, &str)| !absent.contains(name);
    let there: Vec<&str> = PROGRAMS.iter().filter(|it| is_there(it)).map(|(name, _)| *name).collect();
    let missing: Vec<&str> = PROGRAMS.iter().filter(|it| !is_there(it)).map(|(_, package)| *package).collect();
    let missing = if missing.is_empty() {
        String::new()
    } else {
        format!("; not available: {} (`lab setup` installs them)", missing.join(" "))
    };
    format!("Tools: {} and busybox's{missing}.\n", there.join(" "))
}

/// The result of the case after the shell has ended.
fn verdict(report: &CellReport) -> String {
    let mut out = format!("{}: {}", report.cell, report.outcome.word());
    let message = report.outcome.message();
    if !matches!(report.outcome, Outcome::Passed) && !message.is_empty() {
        let _ = write!(out, ": {}", text::line(&message, 1000));
    }
    for check in &report.checks {
        let sign = if check.ok { "ok    " } else { "FAILED" };
        let _ = write!(out, "\n  {sign} {}: {}", text::line(&check.name, 200), text::line(&check.seen, 300));
    }
    out
}
