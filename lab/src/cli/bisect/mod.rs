//! `lab bisect` and `lab bisect-step`.

pub(super) mod args;
mod commits;
mod packages;
mod place;
mod selftest;
mod step;

pub(super) use step::{ABORT, step};

use super::{
    check,
    exec::{self, SelftestsOf},
};
use crate::bisect::tester::{Supply, Tester};
use crate::{
    bisect::{
        Mark, SearchStop, Subject, Walk,
        commits::{Commit, Commits, GitBisect, clean},
        graph::{Graph, OLD_END},
        halving::Halving,
        packages::Rung,
        posterior::Effect,
        predicate::Predicate,
        report::{BisectReport, Name},
        search::{SearchStep, Wish, search},
        state::{Remembering, SearchState},
    },
    cache,
    check::Bundles,
    error::Error,
    guests::GuestOptions,
    project::{
        Project, absolute,
        select::{self, Selected},
    },
};
use args::{BisectArgs, BisectTerms, WhatArgs};
use commits::Workshop;
use lab_base::{git::git, interrupt::Interrupt, say::say, text};
use lab_protocol::{CellId, Raw};
use lab_record::exit::Exit;
use place::SearchDirectory;
use selftest::AskedSelftest;
use std::path::{Path, PathBuf};

/// Searches a ladder of kernels, or the commits of a tree.
pub(super) fn bisect(named: Option<PathBuf>, args: &BisectArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    if args.good == args.bad {
        return Err(Error::Usage(format!("--good and --bad are both {}", args.good)));
    }
    match &args.tree {
        None => in_packages(&project, args),
        Some(tree) => in_commits(&project, args, &absolute(tree)?),
    }
}

fn in_packages(project: &Project, args: &BisectArgs) -> Result<Exit, Error> {
    let (ladder, source) = packages::open(project, &args.kernels, &args.good, &args.bad)?;
    let question = ask(project, &args.what, SelftestsOf::Kernel(&args.bad))?;
    let name = |(point, rung): (usize, &Rung)| Name {
        short: rung.id.clone(),
        long: source.locked(point),
        exact: rung.version.to_string(),
    };
    let names: Vec<Name> = ladder.rungs.iter().enumerate().map(name).collect();
    let (graph, kernels) = (Graph::line(names.len() - 1), source.identities()?);
    let history = History {
        unit: "kernel",
        direction: ladder.direction,
        graph: &graph,
        names,
        kernels,
        notes: ladder.notes.clone(),
    };
    conduct(project, args, &question, history, source, &mut Halving::new(&graph), &|_, culprit, names| {
        let Some(culprit) = culprit else { return Ok(Extra::default()) };
        let (before, since) = (&names[culprit - 1], &names[culprit]);
        let span = format!("v{}..v{}", before.exact, since.exact);
        let changelog = match &args.changelog {
            Some(wanted) => {
                let rungs = &ladder.rungs;
                packages::changelog(project, &rungs[culprit], rungs[culprit - 1].version, wanted)?
            }
            None => Vec::new(),
        };
        let changelog: String = changelog.iter().map(|line| format!("\nchangelog: {line}")).collect();
        Ok(Extra {
            culprit: Some(format!("{}\nbefore it: {}{changelog}", since.long, before.long)),
            regzbot: regzbot(&question.predicate, ladder.direction, &span),
            reproduce: [before, since].map(|name| reproduce(&name.short, &question)).to_vec(),
            ..Extra::default()
        })
    })
}

fn in_commits(project: &Project, args: &BisectArgs, tree: &Path) -> Result<Exit, Error> {
    let usage = |stop: SearchStop| Error::Usage(stop.to_string());
    let kept = |stop: SearchStop| Error::Host(stop.to_string());
    clean(tree).map_err(usage)?;
    let commits = Commits::between(tree, &args.good, &args.bad).map_err(usage)?;
    let question = ask(project, &args.what, SelftestsOf::Tree(tree))?;
    let new_end = &commits.commits[commits.graph.new_end()];
    let workshop = Workshop::open(project, tree, &new_end.hash, &args.build)?;
    let interrupt = Interrupt::install().map_err(Error::file("watch", "signals"))?;
    let source = commits::CommitRange { workshop: &workshop, commits: &commits, interrupt };
    let name = |commit: &Commit| Name {
        short: commit.short().to_owned(),
        long: text::line(&commit.title, 120),
        exact: commit.hash.clone(),
    };
    let history = History {
        unit: "commit",
        direction: commits.direction,
        graph: &commits.graph,
        names: commits.commits.iter().map(name).collect(),
        kernels: workshop.identity()?,
        notes: Vec::new(),
    };
    let BisectTerms(old, new) = terms(args, commits.direction);
    let mut walk = GitBisect::start(&workshop.worktree, &commits, (old, new)).map_err(kept)?;
    conduct(project, args, &question, history, source, &mut walk, &|walk, culprit, names| {
        let mut extra = Extra {
            log: Some(walk.log().map_err(kept)?),
            config: workshop.config(new_end),
            environment: vec![
                ("configuration".to_owned(), workshop.configuration()),
                ("built by".to_owned(), workshop.command().to_owned()),
            ],
            ..Extra::default()
        };
        if let Some(culprit) = culprit {
            let hash = &names[culprit].exact;
            extra.culprit = Some(text::block(&git(tree, ["log", "-1", "--stat", hash])?, 8000));
            extra.regzbot = regzbot(&question.predicate, commits.direction, hash);
            extra.reproduce = vec![format!("git checkout {}", names[culprit].short), step_line(&question)];
        } else {
            extra.regzbot =
                regzbot(&question.predicate, commits.direction, &format!("{}..{}", names[0].exact, new_end.hash));
        }
        Ok(extra)
    })
}

/// Lines for regzbot (Documentation/process/handling-regressions.rst): a commit, or a range of commits.
fn regzbot(predicate: &Predicate, direction: Effect, what: &str) -> Option<String> {
    // Fixes and capabilities are not regressions.
    let regression = direction == Effect::Break && matches!(predicate, Predicate::Cells { .. });
    regression.then(|| format!("#regzbot introduced: {what}"))
}

fn terms(args: &BisectArgs, direction: Effect) -> BisectTerms {
    args.terms.clone().unwrap_or_else(|| match direction {
        Effect::Break => BisectTerms("good".to_owned(), "bad".to_owned()),
        Effect::Fix => BisectTerms("broken".to_owned(), "fixed".to_owned()),
    })
}

/// The predicate, with the cells and artifacts that it needs.
pub(super) struct Question {
    pub selected: Selected,
    pub predicate: Predicate,
    /// The title of the case.
    pub promise: Option<String>,
    /// How guests run.
    pub how: GuestOptions,
    /// The object, where it is one that is checked.
    checked: Option<Checked>,
    /// The selftest, where it is one.
    selftest: Option<AskedSelftest>,
}

/// An object that is searched for.
struct Checked {
    path: PathBuf,
    /// What the object and its check.toml are, for the search's directory.
    digest: Vec<u8>,
    /// The files of its guests.
    _bundles: Bundles,
}

impl Question {
    /// The shell command, where it is one that is searched for.
    fn command(&self) -> Option<String> {
        if self.checked.is_some() || self.selftest.is_some() {
            return None;
        }
        let program = self.selected.cells.first()?.work.program()?;
        program.argv.last().map(Raw::shown)
    }
}

/// The question; `sources` says which selftests, if it is about one.
fn ask(project: &Project, args: &WhatArgs, sources: SelftestsOf<'_>) -> Result<Question, Error> {
    if let Some(question) = selftest::question(project, args, sources)? {
        return Ok(question);
    }
    let named = select::named(project, &args.case, args.no_build)?;
    let (cells, how, checked) = match (&args.exec, &args.check) {
        (Some(command), _) => {
            let (cells, how) = exec::question(project, command)?;
            (cells, how, None)
        }
        (None, Some(object)) => {
            let check::Asked { cells, how, digest, bundles } = check::question(project, object, args.no_build)?;
            (cells, how, Some(Checked { path: object.clone(), digest, _bundles: bundles }))
        }
        (None, None) => (named.cells, GuestOptions::default(), None),
    };
    let how = GuestOptions { deadlines: args.deadline.clone(), ..how };
    let selected = Selected { cells, ..named };
    let predicate = match args.capability {
        Some(capability) => Predicate::Capability(capability),
        None => {
            let cells = selected.cells.iter().map(|info| info.id.clone()).collect();
            Predicate::Cells { cells, rule: args.match_ }
        }
    };
    let promise = args.capability.is_none().then(|| selected.cells.first().map(|info| info.title.clone())).flatten();
    Ok(Question { selected, predicate, promise, how, checked, selftest: None })
}

/// The kind of history that is searched.
struct History<'a> {
    unit: &'static str,
    direction: Effect,
    graph: &'a Graph,
    names: Vec<Name>,
    /// Everything that the points' kernels depend on.
    kernels: String,
    notes: Vec<String>,
}

/// Parts of a report that depend on the kind of history.
#[derive(Default)]
struct Extra {
    culprit: Option<String>,
    regzbot: Option<String>,
    reproduce: Vec<String>,
    log: Option<String>,
    environment: Vec<(String, String)>,
    /// The configuration with which the kernels were built.
    config: Option<PathBuf>,
}

/// Adds the parts of a report that depend on the kind of history.
type Tell<'a, W> = dyn Fn(&W, Option<usize>, &[Name]) -> Result<Extra, Error> + 'a;

fn conduct<S: Supply, W: Walk>(
    project: &Project,
    args: &BisectArgs,
    question: &Question,
    history: History<'_>,
    source: S,
    walk: &mut W,
    tell: &Tell<'_, W>,
) -> Result<Exit, Error> {
    let History { unit, direction, graph, names, kernels, notes } = history;
    let BisectTerms(old, new) = terms(args, direction);
    let place = SearchDirectory::open(project, args, question, &names, &kernels)?;
    let mut state = SearchState::open(&place.directory, &question.predicate.to_string())?;
    say(&format!(
        "{} {unit}s between {} and {}; {}",
        graph.new_end() - 1,
        names[0].short,
        names[graph.new_end()].short,
        place.directory.display()
    ));
    if state.runs() > 0 {
        say(&format!("using {} runs of an earlier search for the same question", state.runs()));
    }
    let failing = if direction == Effect::Break { graph.new_end() } else { OLD_END };
    let mut tester = Tester {
        project,
        selected: &question.selected,
        source,
        predicate: &question.predicate,
        how: question.how.clone(),
        interrupt: Interrupt::install().map_err(Error::file("watch", "signals"))?,
        directory: place.directory.join("runs"),
        failing: Subject::Point(failing),
        guests: None,
        ready: Default::default(),
        lesson: Default::default(),
        begun: Default::default(),
        spoken: Default::default(),
    };
    let wish = Wish { direction, confidence: args.confidence, bayes: args.bayes, max_runs: args.max_runs };
    let mut told = |step: &SearchStep| {
        let mark = match step.mark {
            Mark::Old => &old,
            Mark::New => &new,
            Mark::Skip => "skip",
        };
        let why = step.note.as_deref().map(|note| format!(" ({})", text::line(note, 160))).unwrap_or_default();
        say(&format!("{}: {} runs fail: {mark}{why}", names[step.point].short, step.tally));
    };
    let found = search(graph, walk, &mut Remembering::new(&mut tester, &mut state), wish, &mut told);
    let finding = match found {
        Ok(finding) => finding,
        Err(SearchStop::Question(why)) => return Err(Error::Usage(why)),
        Err(SearchStop::Interrupted(signal)) => {
            say("interrupted: results are kept; run the same command to continue");
            return Ok(Exit::Interrupted(signal));
        }
        Err(SearchStop::Trouble(why)) => {
            return Err(Error::Host(format!("{why}; results are kept; run the same command to continue")));
        }
    };
    let culprit = finding.suspects.first().copied().filter(|_| finding.sure);
    let extra = tell(walk, culprit, &names)?;
    let memory = &state.memory;
    let failure = memory.signatures.iter().map(ToString::to_string).chain(memory.evidence.clone());
    let report = BisectReport {
        question: question.predicate.to_string(),
        failing: matches!(question.predicate, Predicate::Cells { .. }),
        promise: question.promise.clone(),
        unit,
        terms: (old, new),
        direction,
        wanted: args.confidence,
        culprit: extra.culprit,
        failure: failure.map(|it| text::block(&it, 8000)).collect(),
        environment: memory.environment.iter().cloned().chain(extra.environment).collect(),
        reproduce: extra.reproduce,
        regzbot: extra.regzbot,
        log: extra.log,
        notes,
        finding,
        names,
    };
    place.keep(&report, extra.config.as_deref(), args.format)?;
    if let Some(line) = cache::sweep(&project.cache, &project.root) {
        say(&line);
    }
    Ok(if report.finding.sure { Exit::Passed } else { Exit::Failed })
}

/// The command that tests a checked-out commit.
fn step_line(question: &Question) -> String {
    if let Some(command) = question.command() {
        return format!("lab bisect-step --exec {}", text::shell_quote(&command));
    }
    if let Some(checked) = &question.checked {
        return format!("lab bisect-step --check {}", text::shell_quote(&checked.path.to_string_lossy()));
    }
    if let Some(selftest) = &question.selftest {
        return format!("lab bisect-step --case {}", text::shell_quote(&selftest.case));
    }
    match &question.predicate {
        Predicate::Capability(capability) => format!("lab bisect-step --capability {capability}"),
        Predicate::Cells { cells, .. } => format!("lab bisect-step{}", cases(cells)),
    }
}

fn cases(cells: &[CellId]) -> String {
    cells.iter().map(|cell| format!(" --case {}", text::shell_quote(cell.as_str()))).collect()
}

/// The command that tests a published kernel.
fn reproduce(kernel: &str, question: &Question) -> String {
    let kernel = text::shell_quote(kernel);
    if let Some(command) = question.command() {
        return format!("lab exec --kernel {kernel} -- sh -c {}", text::shell_quote(&command));
    }
    if let Some(checked) = &question.checked {
        return format!("lab check --kernel {kernel} {}", text::shell_quote(&checked.path.to_string_lossy()));
    }
    if let Some(selftest) = &question.selftest {
        return format!("lab kselftest --kernel {kernel} {}", selftest.words());
    }
    match &question.predicate {
        Predicate::Capability(_) => format!("lab capabilities --kernel {kernel}"),
        Predicate::Cells { cells, .. } => {
            format!("lab run --kernel {kernel}{}", cases(cells))
        }
    }
}
