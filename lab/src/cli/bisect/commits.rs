//! Builds commits for `lab bisect --tree`.

use super::{args::BuildArgs, place::exclusive};
use crate::bisect::tester::Supply;
use crate::{
    bisect::{
        NoKernel, SearchStop, Subject,
        commits::{Commit, Commits, Worktree},
    },
    error::Error,
    project::{Project, absolute},
};
use lab_base::{file::touch, git::git, hex::hex, interrupt::Interrupt, process::vng_home, say::say, text};
use lab_kernel_store::{BootableKernel, BuildResult, Checkout, KernelsError, Settings};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    thread::available_parallelism,
    time::Instant,
};

/// Build directory of a repository in the cache, and how it is built.
pub(super) struct Workshop {
    pub worktree: Worktree,
    products: PathBuf,
    settings: Settings,
    _lock: File,
}

impl Workshop {
    /// Opens the build directory of a repository; only one `lab` process works there at a time.
    pub fn open(project: &Project, tree: &Path, commit: &str, args: &BuildArgs) -> Result<Self, Error> {
        let common = git(tree, ["rev-parse", "--path-format=absolute", "--git-common-dir"])?;
        let key = hex(&Sha256::digest(common.trim())[..6]);
        let place = project.cache.root().join("bisect").join(key);
        fs::create_dir_all(&place).map_err(Error::file("create", &place))?;
        let lock = exclusive(&place, "builds commits of the same repository")?;
        let settings = Settings {
            config: args.config.as_deref().map(absolute).transpose()?,
            fragments: args.fragment.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?,
            command: args.build_command.clone(),
            jobs: args.jobs.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from),
            vng: project.vng().to_owned(),
            home: vng_home(project.cache.root())?,
        };
        let worktree = Worktree::open(tree, &place, commit).map_err(|stop| Error::Host(stop.to_string()))?;
        touch(&worktree.path);
        Ok(Self { worktree, products: place.join("products"), settings, _lock: lock })
    }

    /// The kernel of a commit, which is built unless there is a cached result.
    pub fn kernel(
        &self,
        commit: &Commit,
        interrupt: &Interrupt,
    ) -> Result<Result<BootableKernel, NoKernel>, SearchStop> {
        let stop = || interrupt.signal().is_some();
        let checkout = self.checkout(&stop);
        let trouble = |error: KernelsError| match (interrupt.signal(), error) {
            (Some(signal), _) => SearchStop::Interrupted(signal),
            (None, error) => SearchStop::Trouble(error.to_string()),
        };
        let key = checkout.key(&self.worktree.files(&commit.hash)?).map_err(trouble)?;
        let built = match checkout.find(&key) {
            Some(built) => built,
            None => {
                checkout.ready().map_err(trouble)?;
                say(&format!("building {} ({})", commit.short(), text::line(&commit.title, 80)));
                let begin = Instant::now();
                self.worktree.checkout(&commit.hash)?;
                let built = checkout.build(&key).map_err(trouble)?;
                say(&format!("built {} in {:.0} s", commit.short(), begin.elapsed().as_secs_f32()));
                built
            }
        };
        Ok(match built {
            BuildResult::Kernel(kernel) => Ok(*kernel),
            BuildResult::Cannot(why) => Err(NoKernel(format!("does not build: {why}"))),
        })
    }

    /// Everything that a commit's kernel depends on in addition to its sources: configuration, command, programs,
    /// environment.
    pub fn identity(&self) -> Result<String, KernelsError> {
        self.checkout(&|| false).key("")
    }

    /// The configuration of a built commit.
    pub fn config(&self, commit: &Commit) -> Option<PathBuf> {
        let stop = || false;
        let checkout = self.checkout(&stop);
        match checkout.find(&checkout.key(&self.worktree.files(&commit.hash).ok()?).ok()?)? {
            BuildResult::Kernel(kernel) => kernel.config,
            BuildResult::Cannot(_) => None,
        }
    }

    fn checkout<'a>(&self, stop: &'a dyn Fn() -> bool) -> Checkout<'a> {
        Checkout {
            tree: self.worktree.path.clone(),
            products: self.products.clone(),
            settings: self.settings.clone(),
            stop,
        }
    }

    /// Description of the configuration.
    pub fn configuration(&self) -> String {
        let base = self.settings.config.as_ref().map_or("the lab's own".to_owned(), |path| path.display().to_string());
        let fragments = self.settings.fragments.iter().map(|path| format!(" + {}", path.display()));
        format!("{base}{}", fragments.collect::<String>())
    }

    /// The build command.
    pub fn command(&self) -> &str {
        self.settings.command.as_deref().unwrap_or("vng --build")
    }
}

/// The commits between two ends, which are built on demand.
pub(super) struct CommitRange<'a> {
    pub workshop: &'a Workshop,
    pub commits: &'a Commits,
    pub interrupt: Interrupt,
}

impl Supply for CommitRange<'_> {
    fn bring(&mut self, subject: Subject) -> Result<Result<BootableKernel, NoKernel>, SearchStop> {
        match subject {
            Subject::Point(point) => self.workshop.kernel(&self.commits.commits[point], &self.interrupt),
            Subject::Without(point) => {
                let new_end = &self.commits.commits[self.commits.graph.new_end()];
                let change = &self.commits.commits[point];
                match self.workshop.worktree.without(&new_end.hash, &change.hash)? {
                    Err(why) => Ok(Err(why)),
                    Ok(hash) => {
                        let title = format!("{} without {}", new_end.short(), change.short());
                        self.workshop.kernel(&Commit { hash, title }, &self.interrupt)
                    }
                }
            }
        }
    }

    fn name(&self, subject: Subject) -> String {
        match subject {
            Subject::Point(point) => self.commits.commits[point].short().to_owned(),
            Subject::Without(point) => format!("without-{}", self.commits.commits[point].short()),
        }
    }
}
