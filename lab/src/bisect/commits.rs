//! Stage two: the commits of a git tree, by git's own commands.
//!
//! Everything happens in a worktree of the lab's own. `git bisect` keeps its marks per worktree
//! (`refs/bisect`, gitglossary(7)), so that the person's tree, its HEAD and a bisection of theirs stay as they are.

use super::{
    bench::{Mark, Stop, Walk},
    graph::{Graph, OLD_END},
    posterior::Direction,
};
use lab_base::{git::git, process::ProcessError};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// Commits that a search takes: a release of Linux has some 15,000.
const MAX_COMMITS: usize = 100_000;
/// Changed files that an error names.
const NAMED: usize = 3;

fn trouble(error: ProcessError) -> Stop {
    Stop::Trouble(error.to_string())
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Full hash.
    pub hash: String,
    /// Its title.
    pub title: String,
}

impl Commit {
    /// Twelve digits, as the kernel's `Fixes:` lines have.
    pub fn short(&self) -> &str {
        &self.hash[..self.hash.len().min(12)]
    }
}

/// The commits between two revisions.
#[derive(Debug)]
pub struct Commits {
    /// In topological order, ends included.
    pub commits: Vec<Commit>,
    /// Which is made from which.
    pub graph: Graph,
    /// What is looked for.
    pub direction: Direction,
}

/// The hash that a revision means.
///
/// # Errors
/// [`Stop::Question`]: it means none.
pub fn resolve(tree: &Path, revision: &str) -> Result<String, Stop> {
    let wanted = format!("{revision}^{{commit}}");
    git(tree, ["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted])
        .map(|hash| hash.trim().to_owned())
        .map_err(|_| Stop::Question(format!("{}: no commit `{revision}` in this git tree", tree.display())))
}

/// Refuses a tree with changes that are in no commit: nobody would test them, and somebody may think so.
///
/// # Errors
/// [`Stop::Question`], also where it is no git tree.
pub fn clean(tree: &Path) -> Result<(), Stop> {
    let status = git(tree, ["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"])
        .map_err(|error| Stop::Question(format!("{}: {error}", tree.display())))?;
    let changed: Vec<&str> = status.lines().filter_map(|line| line.get(3..)).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let more = if changed.len() > NAMED { format!(" and {} more", changed.len() - NAMED) } else { String::new() };
    let files = changed[..changed.len().min(NAMED)].join(", ");
    Err(Stop::Question(format!(
        "{} has changes that are in no commit ({files}{more}): commit or stash them, no step would test them",
        tree.display()
    )))
}

impl Commits {
    /// Reads the history between two revisions.
    ///
    /// # Errors
    /// [`Stop::Question`]: one is no commit, both are the same, or neither is made from the other.
    pub fn between(tree: &Path, good: &str, bad: &str) -> Result<Self, Stop> {
        let (good_hash, bad_hash) = (resolve(tree, good)?, resolve(tree, bad)?);
        if good_hash == bad_hash {
            return Err(Stop::Question(format!("{good} and {bad} are the same commit: nothing lies between them")));
        }
        let made_from = |old: &str, new: &str| git(tree, ["merge-base", "--is-ancestor", old, new]).is_ok();
        let (direction, old, new) = if made_from(&good_hash, &bad_hash) {
            (Direction::Break, &good_hash, &bad_hash)
        } else if made_from(&bad_hash, &good_hash) {
            (Direction::Fix, &bad_hash, &good_hash)
        } else {
            let base = git(tree, ["merge-base", &good_hash, &bad_hash]).unwrap_or_default();
            let hint = match base.trim() {
                "" => "they have no history in common".to_owned(),
                base => format!("both are made from {}: search from there", &base[..base.len().min(12)]),
            };
            return Err(Stop::Question(format!("no path leads from {good} to {bad}: {hint}")));
        };
        let args = ["log", "--topo-order", "--reverse", "--format=%H %P%x00%s", new, &format!("^{old}")];
        let log = git(tree, args).map_err(trouble)?;
        let title = git(tree, ["log", "-1", "--format=%s", old]).map_err(trouble)?.trim().to_owned();
        let mut commits = vec![Commit { hash: old.clone(), title }];
        let mut places = HashMap::from([(old.clone(), OLD_END)]);
        let mut parents = Vec::new();
        for line in log.lines() {
            let (hashes, title) = line.split_once('\0').unwrap_or((line, ""));
            let mut hashes = hashes.split(' ').filter(|hash| !hash.is_empty());
            let Some(hash) = hashes.next() else { continue };
            parents.push(hashes.filter_map(|parent| places.get(parent).copied()).collect());
            places.insert(hash.to_owned(), commits.len());
            commits.push(Commit { hash: hash.to_owned(), title: title.to_owned() });
        }
        if commits.len() > MAX_COMMITS {
            let why = format!(
                "{} commits lie between {good} and {bad}: narrow them by `lab bisect` over packages first",
                commits.len()
            );
            return Err(Stop::Question(why));
        }
        Ok(Self { commits, graph: Graph::new(parents), direction })
    }

    fn place(&self, hash: &str) -> Option<usize> {
        self.commits.iter().position(|commit| commit.hash == hash)
    }
}

/// A worktree of the lab's own for a person's repository; the same one every time, so that builds are incremental.
#[derive(Debug, Clone)]
pub struct Worktree {
    /// Its directory.
    pub path: PathBuf,
}

impl Worktree {
    /// Opens it below `place`, or makes it.
    ///
    /// # Errors
    /// git can't.
    pub fn open(tree: &Path, place: &Path, commit: &str) -> Result<Self, Stop> {
        let path = place.join("tree");
        if git(&path, ["rev-parse", "--verify", "--quiet", "HEAD"]).is_ok() && path.join(".git").is_file() {
            return Ok(Self { path });
        }
        fs::create_dir_all(place).map_err(|error| Stop::Trouble(format!("{}: {error}", place.display())))?;
        // Left by a repository that has moved, or by a lab that was killed while it made one.
        let _ = fs::remove_dir_all(&path);
        let _ = git(tree, ["worktree", "prune"]);
        let args = ["worktree", "add", "--force", "--quiet", "--detach"].map(OsStr::new);
        git(tree, args.into_iter().chain([path.as_os_str(), commit.as_ref()])).map_err(trouble)?;
        Ok(Self { path })
    }

    /// Checks a commit out; files that are the same keep their times.
    ///
    /// # Errors
    /// git can't.
    pub fn checkout(&self, commit: &str) -> Result<(), Stop> {
        // A killed lab's half-made revert must not stay.
        git(&self.path, ["checkout", "--quiet", "--force", "--detach", commit]).map(drop).map_err(trouble)
    }

    /// The hash of a commit's files.
    ///
    /// # Errors
    /// git can't.
    pub fn files(&self, commit: &str) -> Result<String, Stop> {
        let hash = git(&self.path, ["rev-parse", "--verify", &format!("{commit}^{{tree}}")]).map_err(trouble)?;
        Ok(hash.trim().to_owned())
    }

    /// A commit without another one's change; none where it can't be taken back cleanly.
    ///
    /// # Errors
    /// git can't even try.
    pub fn without(&self, commit: &str, change: &str) -> Result<Result<String, String>, Stop> {
        self.checkout(commit)?;
        let who = ["-c", "user.name=lab bisect", "-c", "user.email=lab-bisect@localhost"];
        let is_merge = git(&self.path, ["rev-parse", "--verify", "--quiet", &format!("{change}^2")]).is_ok();
        if is_merge {
            return Ok(Err("it is a merge".to_owned()));
        }
        let revert = git(&self.path, who.into_iter().chain(["revert", "--no-edit", change]));
        let result = match revert {
            Ok(_) => Ok(git(&self.path, ["rev-parse", "HEAD"]).map_err(trouble)?.trim().to_owned()),
            Err(_) => {
                let _ = git(&self.path, ["revert", "--abort"]);
                Err("it does not revert cleanly".to_owned())
            }
        };
        self.checkout(commit)?;
        Ok(result)
    }
}

/// `git bisect`, driven.
pub struct GitBisect<'a> {
    worktree: &'a Worktree,
    commits: &'a Commits,
    terms: (String, String),
    /// What git was told.
    marks: Vec<(usize, Mark)>,
    through: bool,
}

impl<'a> GitBisect<'a> {
    /// Starts anew.
    ///
    /// # Errors
    /// git refuses.
    pub fn start(worktree: &'a Worktree, commits: &'a Commits, terms: (String, String)) -> Result<Self, Stop> {
        let mut bisect = Self { worktree, commits, terms, marks: Vec::new(), through: false };
        bisect.restart()?;
        Ok(bisect)
    }

    fn restart(&mut self) -> Result<(), Stop> {
        // Without one there is nothing to reset, which is as good.
        let _ = git(&self.worktree.path, ["bisect", "reset", "HEAD"]);
        let (old, new) = &self.terms;
        let mut args = vec!["bisect".to_owned(), "start".to_owned()];
        if (&**old, &**new) != ("good", "bad") {
            args.extend([format!("--term-old={old}"), format!("--term-new={new}")]);
        }
        // The search checks out what it builds, and nothing else.
        let ends = [self.commits.graph.new_end(), OLD_END].map(|point| self.commits.commits[point].hash.clone());
        args.push("--no-checkout".to_owned());
        args.extend(ends);
        self.marks.clear();
        self.through = false;
        let said = git(&self.worktree.path, args);
        self.hear(said)
    }

    /// git says that it is through in words, and where only skipped commits are left by its exit status too.
    fn hear(&mut self, said: Result<String, ProcessError>) -> Result<(), Stop> {
        match said {
            Ok(words) => {
                self.through = words.contains(&format!(" is the first {} commit", self.terms.1));
                Ok(())
            }
            Err(ProcessError::Failed { detail, .. })
                if detail.contains("exit status: 2") || detail.contains("skip'ped") =>
            {
                self.through = true;
                Ok(())
            }
            Err(error) => Err(trouble(error)),
        }
    }

    /// `git bisect log`: `git bisect replay` takes it in the person's own tree.
    ///
    /// # Errors
    /// git refuses.
    pub fn log(&self) -> Result<String, Stop> {
        let log = git(&self.worktree.path, ["bisect", "log"]).map_err(trouble)?;
        Ok(log.replace(" '--no-checkout'", ""))
    }
}

impl Walk for GitBisect<'_> {
    fn next(&mut self) -> Result<Option<usize>, Stop> {
        if self.through {
            return Ok(None);
        }
        let hash = git(&self.worktree.path, ["rev-parse", "--verify", "BISECT_HEAD"]).map_err(trouble)?;
        let point = self.commits.place(hash.trim());
        point
            .map(Some)
            .ok_or_else(|| Stop::Trouble(format!("git bisect asks for {}, which is not in between", hash.trim())))
    }

    fn mark(&mut self, point: usize, mark: Mark) -> Result<(), Stop> {
        self.marks.push((point, mark));
        let word = match mark {
            Mark::Old => &*self.terms.0,
            Mark::New => &*self.terms.1,
            Mark::Skip => "skip",
        };
        let said = git(&self.worktree.path, ["bisect", word, &self.commits.commits[point].hash]);
        self.hear(said)
    }

    /// Tells git once more where the marks turned out to be others, or where it was not asked.
    fn settle(&mut self, marks: &[(usize, Mark)]) -> Result<(), Stop> {
        let ends = [OLD_END, self.commits.graph.new_end()];
        let wanted: Vec<(usize, Mark)> = marks.iter().copied().filter(|(point, _)| !ends.contains(point)).collect();
        if self.through && wanted.iter().all(|mark| self.marks.contains(mark)) {
            return Ok(());
        }
        self.restart()?;
        for (point, mark) in wanted {
            if self.through {
                break;
            }
            self.mark(point, mark)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "commits_tests.rs"]
mod tests;
