//! Bisects the commits of a git tree, with git's own commands.
//!
//! All work is done in a worktree of the lab's own. `git bisect` keeps its marks per worktree (`refs/bisect`,
//! gitglossary(7)), so that the user's tree, its HEAD and a bisection in it are not affected.

use super::{
    graph::{Graph, OLD_END},
    posterior::Effect,
    trial::{Mark, NoKernel, SearchStop, Walk},
};
use lab_base::{git::git, process::ProcessError};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// Maximum number of commits in a search: a release of Linux has some 15,000.
const MAX_COMMITS: usize = 100_000;
/// Maximum number of changed files in an error.
const NAMED: usize = 3;

fn trouble(error: ProcessError) -> SearchStop {
    SearchStop::Trouble(error.to_string())
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Full hash.
    pub hash: String,
    pub title: String,
}

impl Commit {
    /// The first twelve digits, as in `Fixes:` lines of the kernel.
    pub fn short(&self) -> &str {
        &self.hash[..self.hash.len().min(12)]
    }
}

/// The commits between two revisions.
#[derive(Debug)]
pub struct Commits {
    /// In topological order, both ends included.
    pub commits: Vec<Commit>,
    /// Their parent relation.
    pub graph: Graph,
    /// Whether a break or a fix is searched.
    pub direction: Effect,
}

/// The hash of a revision.
///
/// # Errors
/// [`SearchStop::Question`] if the revision does not exist.
pub fn resolve(tree: &Path, revision: &str) -> Result<String, SearchStop> {
    let wanted = format!("{revision}^{{commit}}");
    git(tree, ["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted])
        .map(|hash| hash.trim().to_owned())
        .map_err(|_| SearchStop::Question(format!("{}: no commit `{revision}` in this git tree", tree.display())))
}

/// Refuses a tree with uncommitted changes, because no step would test them.
///
/// # Errors
/// [`SearchStop::Question`], also if it is not a git tree.
pub fn clean(tree: &Path) -> Result<(), SearchStop> {
    let status = git(tree, ["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"])
        .map_err(|error| SearchStop::Question(format!("{}: {error}", tree.display())))?;
    let changed: Vec<&str> = status.lines().filter_map(|line| line.get(3..)).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let more = if changed.len() > NAMED { format!(" and {} more", changed.len() - NAMED) } else { String::new() };
    let files = changed[..changed.len().min(NAMED)].join(", ");
    Err(SearchStop::Question(format!(
        "{} has uncommitted changes ({files}{more}): commit or stash them, because no step would test them",
        tree.display()
    )))
}

impl Commits {
    /// Reads the history between two revisions.
    ///
    /// # Errors
    /// [`SearchStop::Question`]: a revision is not a commit, both are the same, or neither is an ancestor of the other.
    pub fn between(tree: &Path, good: &str, bad: &str) -> Result<Self, SearchStop> {
        let (good_hash, bad_hash) = (resolve(tree, good)?, resolve(tree, bad)?);
        if good_hash == bad_hash {
            return Err(SearchStop::Question(format!("{good} and {bad} are the same commit")));
        }
        let made_from = |old: &str, new: &str| git(tree, ["merge-base", "--is-ancestor", old, new]).is_ok();
        let (direction, old, new) = if made_from(&good_hash, &bad_hash) {
            (Effect::Break, &good_hash, &bad_hash)
        } else if made_from(&bad_hash, &good_hash) {
            (Effect::Fix, &bad_hash, &good_hash)
        } else {
            let base = git(tree, ["merge-base", &good_hash, &bad_hash]).unwrap_or_default();
            let hint = match base.trim() {
                "" => "they have no common history".to_owned(),
                base => format!("{} is an ancestor of both: use it as one of the ends", &base[..base.len().min(12)]),
            };
            return Err(SearchStop::Question(format!("neither {good} nor {bad} is an ancestor of the other: {hint}")));
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
                "there are {} commits between {good} and {bad}: narrow them down by `lab bisect` over packages first",
                commits.len()
            );
            return Err(SearchStop::Question(why));
        }
        Ok(Self { commits, graph: Graph::new(parents), direction })
    }

    fn place(&self, hash: &str) -> Option<usize> {
        self.commits.iter().position(|commit| commit.hash == hash)
    }
}

/// The lab's worktree for a user's repository; it is reused, so that builds are incremental.
#[derive(Debug, Clone)]
pub struct Worktree {
    pub path: PathBuf,
}

impl Worktree {
    /// Opens the worktree below `place`, or creates it.
    ///
    /// # Errors
    /// git failed.
    pub fn open(tree: &Path, place: &Path, commit: &str) -> Result<Self, SearchStop> {
        let path = place.join("tree");
        if git(&path, ["rev-parse", "--verify", "--quiet", "HEAD"]).is_ok() && path.join(".git").is_file() {
            return Ok(Self { path });
        }
        fs::create_dir_all(place).map_err(|error| SearchStop::Trouble(format!("{}: {error}", place.display())))?;
        // Left by a repository that was moved, or by a process that was killed while it created the worktree.
        let _ = fs::remove_dir_all(&path);
        let _ = git(tree, ["worktree", "prune"]);
        let args = ["worktree", "add", "--force", "--quiet", "--detach"].map(OsStr::new);
        git(tree, args.into_iter().chain([path.as_os_str(), commit.as_ref()])).map_err(trouble)?;
        Ok(Self { path })
    }

    /// Checks a commit out; unchanged files keep their times.
    ///
    /// # Errors
    /// git failed.
    pub fn checkout(&self, commit: &str) -> Result<(), SearchStop> {
        // --force removes an incomplete revert of a killed process.
        git(&self.path, ["checkout", "--quiet", "--force", "--detach", commit]).map(drop).map_err(trouble)
    }

    /// The hash of a commit's tree.
    ///
    /// # Errors
    /// git failed.
    pub fn files(&self, commit: &str) -> Result<String, SearchStop> {
        let hash = git(&self.path, ["rev-parse", "--verify", &format!("{commit}^{{tree}}")]).map_err(trouble)?;
        Ok(hash.trim().to_owned())
    }

    /// Reverts a change on top of a commit; the inner error is the reason if it can't be reverted cleanly.
    ///
    /// # Errors
    /// git failed for another reason.
    pub fn without(&self, commit: &str, change: &str) -> Result<Result<String, NoKernel>, SearchStop> {
        self.checkout(commit)?;
        let who = ["-c", "user.name=lab bisect", "-c", "user.email=lab-bisect@localhost"];
        let is_merge = git(&self.path, ["rev-parse", "--verify", "--quiet", &format!("{change}^2")]).is_ok();
        if is_merge {
            return Ok(Err(NoKernel("it is a merge".to_owned())));
        }
        let revert = git(&self.path, who.into_iter().chain(["revert", "--no-edit", change]));
        let result = match revert {
            Ok(_) => Ok(git(&self.path, ["rev-parse", "HEAD"]).map_err(trouble)?.trim().to_owned()),
            Err(_) => {
                let _ = git(&self.path, ["revert", "--abort"]);
                Err(NoKernel("it does not revert cleanly".to_owned()))
            }
        };
        self.checkout(commit)?;
        Ok(result)
    }
}

/// A `git bisect` session.
pub struct GitBisect<'a> {
    worktree: &'a Worktree,
    commits: &'a Commits,
    terms: (String, String),
    /// The marks that git has received.
    marks: Vec<(usize, Mark)>,
    through: bool,
}

impl<'a> GitBisect<'a> {
    /// Starts a new session.
    ///
    /// # Errors
    /// git failed.
    pub fn start(worktree: &'a Worktree, commits: &'a Commits, terms: (String, String)) -> Result<Self, SearchStop> {
        let mut bisect = Self { worktree, commits, terms, marks: Vec::new(), through: false };
        bisect.restart()?;
        Ok(bisect)
    }

    fn restart(&mut self) -> Result<(), SearchStop> {
        // Fails if no bisection is in progress, which is not an error.
        let _ = git(&self.worktree.path, ["bisect", "reset", "HEAD"]);
        let (old, new) = &self.terms;
        let mut args = vec!["bisect".to_owned(), "start".to_owned()];
        if (&**old, &**new) != ("good", "bad") {
            args.extend([format!("--term-old={old}"), format!("--term-new={new}")]);
        }
        // Without checkouts: the search itself checks out the commits that it builds.
        let ends = [self.commits.graph.new_end(), OLD_END].map(|point| self.commits.commits[point].hash.clone());
        args.push("--no-checkout".to_owned());
        args.extend(ends);
        self.marks.clear();
        self.through = false;
        let said = git(&self.worktree.path, args);
        self.hear(said)
    }

    /// Detects the end of git's search: git prints it, and exits with status 2 if only skipped commits are left.
    fn hear(&mut self, said: Result<String, ProcessError>) -> Result<(), SearchStop> {
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

    /// The output of `git bisect log`, which `git bisect replay` accepts in the user's own tree.
    ///
    /// # Errors
    /// git failed.
    pub fn log(&self) -> Result<String, SearchStop> {
        let log = git(&self.worktree.path, ["bisect", "log"]).map_err(trouble)?;
        Ok(log.replace(" '--no-checkout'", ""))
    }
}

impl Walk for GitBisect<'_> {
    fn next(&mut self) -> Result<Option<usize>, SearchStop> {
        if self.through {
            return Ok(None);
        }
        let hash = git(&self.worktree.path, ["rev-parse", "--verify", "BISECT_HEAD"]).map_err(trouble)?;
        let point = self.commits.place(hash.trim());
        point.map(Some).ok_or_else(|| {
            SearchStop::Trouble(format!("git bisect selected {}, which is not between the ends", hash.trim()))
        })
    }

    fn mark(&mut self, point: usize, mark: Mark) -> Result<(), SearchStop> {
        self.marks.push((point, mark));
        let word = match mark {
            Mark::Old => &*self.terms.0,
            Mark::New => &*self.terms.1,
            Mark::Skip => "skip",
        };
        let said = git(&self.worktree.path, ["bisect", word, &self.commits.commits[point].hash]);
        self.hear(said)
    }

    /// Restarts the session if marks have changed or are missing.
    fn settle(&mut self, marks: &[(usize, Mark)]) -> Result<(), SearchStop> {
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
