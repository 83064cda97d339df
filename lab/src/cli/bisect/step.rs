//! `lab bisect-step`: tests one commit, and exits with the status that `git bisect run` expects.

use super::{args::StepArgs, ask, commits::Workshop};
use crate::{
    bisect::{
        Answer, NoKernel, SearchStop, Subject, Trial,
        commits::{Commit, resolve},
        predicate::Signature,
        search::repeats,
        state::Lesson,
        tester::{Supply, Tester},
    },
    cli::exec::SelftestsOf,
    error::Error,
    project::{Project, absolute},
};
use lab_base::{git::git, interrupt::Interrupt, say::say, text};
use lab_kernel_store::BootableKernel;
use lab_record::exit::Exit;
use lab_report::results::directory;
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

const GOOD: u8 = 0;
const BAD: u8 = 1;
const SKIP: u8 = 125;
/// Ends `git bisect run` without changing its state: git does this for 128 and above.
pub(in crate::cli) const ABORT: u8 = 128;
/// Number of runs without a result after which the commit is skipped.
const MAX_UNTESTABLE: u32 = 3;

/// Tests the checked-out commit of the tree.
pub(in crate::cli) fn step(named: Option<PathBuf>, args: &StepArgs) -> Exit {
    Exit::Step(match answer(named, args) {
        Ok((code, why)) => {
            say(&format!("bisect-step: {why}"));
            code
        }
        // Also for usage errors: git takes status 2 for bad, so a mistyped option would mark a good commit as bad.
        Err(error) => {
            say(&format!("error: {error}"));
            ABORT
        }
    })
}

fn answer(named: Option<PathBuf>, args: &StepArgs) -> Result<(u8, String), Error> {
    let tree = absolute(&args.tree)?;
    let project = Project::open(named)?;
    let question = ask(&project, &args.what, SelftestsOf::Tree(&tree))?;
    let interrupt = Interrupt::install().map_err(Error::file("watch", "signals"))?;
    let usage = |stop: SearchStop| Error::Usage(stop.to_string());
    // Includes uncommitted changes: with `git bisect run`, a fix is often applied in every step.
    let head = resolve(&tree, "HEAD").map_err(usage)?;
    let stash = git(&tree, ["stash", "create"])?;
    let hash = if stash.trim().is_empty() { head } else { stash.trim().to_owned() };
    let title = git(&tree, ["log", "-1", "--format=%s", "HEAD"])?.trim().to_owned();
    let workshop = Workshop::open(&project, &tree, &hash, &args.build)?;
    let (commit, results) = (Commit { hash, title }, args.out.clone().unwrap_or_else(|| project.root.join("results")));
    let place = results.join("bisect").join("steps");
    fs::create_dir_all(&place).map_err(Error::file("create", &place))?;
    let known = args.signature.as_deref().map(signatures).transpose()?.unwrap_or_default();
    let learning = args.signature.is_some() && known.is_empty();
    let mut tester = Tester {
        project: &project,
        selected: &question.selected,
        source: One { workshop: &workshop, commit: &commit, interrupt: interrupt.clone() },
        predicate: &question.predicate,
        how: question.how.clone(),
        interrupt,
        directory: place,
        // The signature of the failure is learned if none is known yet.
        failing: if learning { Subject::Point(0) } else { Subject::Without(0) },
        guests: None,
        ready: Default::default(),
        lesson: Lesson { signatures: known, ..Lesson::default() },
        begun: Default::default(),
        spoken: Default::default(),
    };
    let runs = args.runs.unwrap_or_else(|| repeats(args.rate, 1.0 - args.confidence));
    let said = run(&mut tester, runs);
    match said {
        Ok((code, why)) => {
            if let (true, BAD, Some(path)) = (learning, code, &args.signature) {
                let bytes =
                    serde_json::to_vec_pretty(&tester.lesson.signatures).map_err(|it| Error::Host(it.to_string()))?;
                directory::replace(path, &bytes)?;
            }
            Ok((code, format!("{} {why}", commit.short())))
        }
        Err(SearchStop::Interrupted(signal)) => Ok((ABORT + (signal & 0x7f) as u8, "interrupted".to_owned())),
        Err(stop) => Err(Error::Host(stop.to_string())),
    }
}

/// Bad at the first failure, good after so many passes.
fn run(tester: &mut dyn Trial, runs: u32) -> Result<(u8, String), SearchStop> {
    let subject = Subject::Point(0);
    if let Err(why) = tester.prepare(subject)? {
        return Ok((SKIP, format!("is skipped: {why}")));
    }
    let (mut passes, mut untestable) = (0, 0);
    while passes < runs {
        match tester.run(subject)? {
            Answer::Fails { symptom } => {
                return Ok((
                    BAD,
                    format!("is bad: run {} failed: {}", passes + untestable + 1, text::line(&symptom, 200)),
                ));
            }
            Answer::Passes => passes += 1,
            Answer::Untestable { reason } => {
                untestable += 1;
                if untestable >= MAX_UNTESTABLE {
                    return Ok((SKIP, format!("is skipped: {reason}")));
                }
            }
        }
    }
    Ok((GOOD, format!("is good: {passes} of {runs} runs passed")))
}

/// The signatures in the file; empty if the file does not exist.
fn signatures(path: &Path) -> Result<Vec<Signature>, Error> {
    match lab_guard::bounded::file(path, lab_guard::bounded::SETTINGS) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::file("read", path)(error)),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            let reason = text::reason(&error);
            Error::Usage(format!("{}: not a file of failure signatures: {reason}", path.display()))
        }),
    }
}

/// The checked-out commit.
struct One<'a> {
    workshop: &'a Workshop,
    commit: &'a Commit,
    interrupt: Interrupt,
}

impl Supply for One<'_> {
    fn bring(&mut self, _subject: Subject) -> Result<Result<BootableKernel, NoKernel>, SearchStop> {
        self.workshop.kernel(self.commit, &self.interrupt)
    }

    fn name(&self, _subject: Subject) -> String {
        self.commit.short().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Script(Vec<Result<Answer, SearchStop>>, Result<String, NoKernel>);

    impl Trial for Script {
        fn prepare(&mut self, _subject: Subject) -> Result<Result<String, NoKernel>, SearchStop> {
            Ok(self.1.clone())
        }

        fn run(&mut self, _subject: Subject) -> Result<Answer, SearchStop> {
            self.0.remove(0)
        }
    }

    #[test]
    fn results_become_the_statuses_that_git_bisect_run_expects() {
        let fails = || Ok(Answer::Fails { symptom: "check".to_owned() });
        let passes = || Ok(Answer::Passes);
        let untestable = || Ok(Answer::Untestable { reason: "does not boot".to_owned() });
        let code =
            |answers: Vec<Result<Answer, SearchStop>>| run(&mut Script(answers, Ok("image".to_owned())), 3).unwrap().0;
        assert_eq!(code(vec![passes(), passes(), passes()]), GOOD);
        assert_eq!(code(vec![passes(), untestable(), fails()]), BAD);
        assert_eq!(code(vec![untestable(), untestable(), passes(), untestable()]), SKIP);
        let broken = run(&mut Script(vec![], Err(NoKernel("does not build: x".to_owned()))), 3).unwrap();
        assert_eq!(broken, (SKIP, "is skipped: does not build: x".to_owned()));
        let trouble = || Err(SearchStop::Trouble("no space".to_owned()));
        assert_eq!(
            run(&mut Script(vec![trouble()], Ok(String::new())), 3),
            Err(SearchStop::Trouble("no space".to_owned()))
        );
    }
}
