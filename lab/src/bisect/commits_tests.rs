use super::*;
use crate::bisect::{
    Answer, Subject, Trial,
    search::{Revert, Wish, search},
};

const WHO: [&str; 6] = ["-c", "user.name=k", "-c", "user.email=k@k.example", "-c", "commit.gpgsign=false"];

fn commit(tree: &Path, file: &str, text: &str) -> String {
    fs::write(tree.join(file), text).unwrap();
    git(tree, ["add", "."]).unwrap();
    git(tree, WHO.into_iter().chain(["commit", "--quiet", "-m", &format!("{file}: {text}")])).unwrap();
    git(tree, ["rev-parse", "HEAD"]).unwrap().trim().to_owned()
}

/// Eleven commits; the seventh writes "broken" to `state`, the fourth does not build.
fn repository(dir: &Path) -> (PathBuf, Vec<String>) {
    let tree = dir.join("linux");
    fs::create_dir(&tree).unwrap();
    git(&tree, ["init", "--quiet", "--initial-branch=main"]).unwrap();
    let mut hashes = vec![commit(&tree, "state", "sound")];
    for number in 1..=10 {
        hashes.push(match number {
            7 => commit(&tree, "state", "broken"),
            4 => commit(&tree, "build", "syntax error"),
            5 => commit(&tree, "build", "fine"),
            _ => commit(&tree, "other", &number.to_string()),
        });
    }
    (tree, hashes)
}

/// A bench that reads a commit's files instead of building and running.
struct Reader<'a> {
    worktree: &'a Worktree,
    commits: &'a Commits,
    builds: u32,
}

impl Reader<'_> {
    fn show(&self, subject: Subject, file: &str) -> Option<String> {
        let commit = match subject {
            Subject::Point(point) => self.commits.commits[point].hash.clone(),
            Subject::Without(point) => {
                let new_end = &self.commits.commits[self.commits.graph.new_end()].hash;
                self.worktree.without(new_end, &self.commits.commits[point].hash).unwrap().unwrap()
            }
        };
        git(&self.worktree.path, ["show", &format!("{commit}:{file}")]).ok()
    }
}

impl Trial for Reader<'_> {
    fn prepare(&mut self, subject: Subject) -> Result<Result<String, NoKernel>, SearchStop> {
        self.builds += 1;
        if self.show(subject, "build").is_some_and(|text| text != "fine") {
            return Ok(Err(NoKernel("does not build".to_owned())));
        }
        Ok(Ok(format!("{:?} {:?}", self.show(subject, "state"), self.show(subject, "other"))))
    }

    fn run(&mut self, subject: Subject) -> Result<Answer, SearchStop> {
        let broken = self.show(subject, "state").as_deref() == Some("broken");
        Ok(if broken { Answer::Fails { symptom: "broken".to_owned() } } else { Answer::Passes })
    }
}

fn wish(direction: Effect) -> Wish {
    Wish { direction, confidence: 0.95, bayes: false, max_runs: 30 }
}

/// Everything in the user's tree that could have changed.
fn state(tree: &Path) -> Vec<String> {
    let ask = |args: &[&str]| git(tree, args).unwrap_or_default();
    let config = fs::read_to_string(tree.join(".config")).unwrap();
    vec![
        ask(&["rev-parse", "HEAD"]),
        ask(&["symbolic-ref", "HEAD"]),
        ask(&["status", "--porcelain", "--ignored"]),
        ask(&["for-each-ref"]),
        ask(&["bisect", "log"]),
        config,
    ]
}

#[test]
fn git_finds_the_commit_and_its_log_can_be_replayed_in_the_users_tree() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, hashes) = repository(dir.path());
    fs::write(tree.join(".config"), "CONFIG_MINE=y\n").unwrap();
    let before = state(&tree);
    let commits = Commits::between(&tree, &hashes[0], "main").unwrap();
    let worktree = Worktree::open(&tree, &dir.path().join("cache"), "main").unwrap();
    let mut walk = GitBisect::start(&worktree, &commits, ("good".to_owned(), "bad".to_owned())).unwrap();
    let mut bench = Reader { worktree: &worktree, commits: &commits, builds: 0 };
    let found = search(&commits.graph, &mut walk, &mut bench, wish(Effect::Break), &mut |_| ()).unwrap();
    assert_eq!(commits.commits[found.suspects[0]].hash, hashes[7]);
    assert!(
        found.sure && matches!(found.revert, Some(Revert::Tested { tally, cured: true }) if tally.fails == 0),
        "{found:?}"
    );
    assert_eq!(before, state(&tree), "the user's tree is unchanged");

    let log = walk.log().unwrap();
    assert!(log.contains(&format!("# first bad commit: [{}] state: broken", hashes[7])), "{log}");
    let file = dir.path().join("bisect.log");
    fs::write(&file, &log).unwrap();
    git(&tree, ["bisect".as_ref(), "replay".as_ref(), file.as_os_str()]).unwrap();
    assert!(git(&tree, ["bisect", "log"]).unwrap().contains("# first bad commit: "));
}

#[test]
fn the_worktree_is_reused_and_recreated_if_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, hashes) = repository(dir.path());
    let cache = dir.path().join("cache");
    let worktree = Worktree::open(&tree, &cache, &hashes[2]).unwrap();
    worktree.checkout(&hashes[7]).unwrap();
    fs::write(worktree.path.join("object.o"), "built").unwrap();
    Worktree::open(&tree, &cache, &hashes[2]).unwrap();
    assert!(worktree.path.join("object.o").exists(), "build results stay");
    fs::remove_dir_all(&worktree.path).unwrap();
    Worktree::open(&tree, &cache, &hashes[2]).unwrap();
    assert_eq!(git(&worktree.path, ["rev-parse", "HEAD"]).unwrap().trim(), hashes[2]);
}

#[test]
fn a_change_that_can_not_be_reverted_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, hashes) = repository(dir.path());
    let worktree = Worktree::open(&tree, &dir.path().join("cache"), "main").unwrap();
    assert_eq!(worktree.without("main", &hashes[4]).unwrap(), Err(NoKernel("it does not revert cleanly".to_owned())));
    assert!(worktree.without("main", &hashes[7]).unwrap().is_ok());
    assert_eq!(git(&worktree.path, ["status", "--porcelain"]).unwrap(), "", "no incomplete revert remains");
}

#[test]
fn both_directions_are_detected_and_invalid_ends_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, hashes) = repository(dir.path());
    let between = |good: &str, bad: &str| Commits::between(&tree, good, bad);
    assert_eq!(between(&hashes[10], &hashes[2]).unwrap().direction, Effect::Fix);
    assert_eq!(between(&hashes[2], &hashes[10]).unwrap().commits.len(), 9);
    git(&tree, ["checkout", "--quiet", "-b", "side", &hashes[3]]).unwrap();
    commit(&tree, "side", "1");
    let refused = |good: &str, bad: &str| between(good, bad).unwrap_err().to_string();
    assert_eq!(
        refused("main", "side"),
        format!(
            "neither main nor side is an ancestor of the other: {} is an ancestor of both: use it as one of the ends",
            &hashes[3][..12]
        )
    );
    assert_eq!(refused("main", &hashes[10]), format!("main and {} are the same commit", hashes[10]));
    assert!(refused("main", "v9").ends_with("no commit `v9` in this git tree"));
    assert!(refused("main", "--all").ends_with("no commit `--all` in this git tree"));
    assert_eq!(clean(&tree), Ok(()));
    fs::write(tree.join("state"), "half").unwrap();
    let error = clean(&tree).unwrap_err().to_string();
    assert!(error.ends_with("has uncommitted changes (state): commit or stash them, because no step would test them"));
    assert!(clean(dir.path()).is_err(), "no git tree");
}

#[test]
fn a_merge_contains_the_commits_of_both_branches() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, hashes) = repository(dir.path());
    git(&tree, ["checkout", "--quiet", "-b", "side", &hashes[3]]).unwrap();
    let side = [commit(&tree, "side", "1"), commit(&tree, "side", "2")];
    git(&tree, ["checkout", "--quiet", "main"]).unwrap();
    git(&tree, WHO.into_iter().chain(["merge", "--quiet", "--no-ff", "-m", "merge", "side"])).unwrap();
    let commits = Commits::between(&tree, &hashes[0], "main").unwrap();
    let at = |hash: &str| commits.commits.iter().position(|commit| commit.hash == hash).unwrap();
    let merge = commits.graph.new_end();
    assert_eq!(commits.commits[merge].title, "merge");
    let mut parents = commits.graph.parents(merge).to_vec();
    parents.sort_unstable();
    let mut wanted = [at(&hashes[10]), at(&side[1])];
    wanted.sort_unstable();
    assert_eq!(parents, wanted);
    for hash in hashes[1..].iter().chain(&side) {
        assert!(commits.graph.contained(merge).has(at(hash)), "{hash}");
    }
    assert!(!commits.graph.contained(at(&side[1])).has(at(&hashes[10])), "a branch has nothing of the other");
}
