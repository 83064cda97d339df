//! Kernels from a git repository, built by `vng --build`.

use super::{Bound, Job, KernelSource, Site, deb::Indexes, path::Local};
use crate::{
    cache::{Errand, Finished, Writing},
    config::Kernel,
    error::{KernelsError, Result},
    lockfile::Locked,
    recipe::{self, BASE},
};
use lab_base::{
    file::touch,
    git::git,
    process::{self, ProcessError},
};
use lab_protocol::KernelVersion;
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// A commit of a repository on this host.
pub(super) struct Git<'a> {
    pub tree: &'a Path,
    pub reference: &'a str,
    pub fragment: Option<&'a Path>,
}

impl Git<'_> {
    fn build<'b>(&'b self, site: &Site<'b>, locked: Option<&'b Locked>) -> Result<Build<'b>> {
        let Some(Locked::Git { commit, kernel, .. }) = locked else { return Err(KernelsError::Unlocked) };
        Ok(Build { tree: self.tree, commit, version: *kernel, fragment: self.fragment, vng: site.vng })
    }
}

impl KernelSource for Git<'_> {
    fn errand(&self) -> Errand {
        Errand::Build
    }

    fn resolve(&self, _: &Site<'_>, _: &mut Indexes, _: &dyn Fn(&str)) -> Result<Option<Locked>> {
        resolve(self.tree, self.reference).map(Some)
    }

    fn identity(&self, site: &Site<'_>, locked: Option<&Locked>) -> Result<Bound> {
        let build = self.build(site, locked)?;
        Ok(Bound { version: build.version, sha256: build.identity()? })
    }

    fn fetch(&self, job: &Job<'_>) -> Result<Finished> {
        self.build(job.site, job.locked)?.fetch(job.writing, job.kernel, &job.bound.sha256, job.progress)
    }
}

/// Finds the current commit of a reference, and its version.
///
/// # Errors
/// The repository or reference does not exist, or is not a kernel.
pub(crate) fn resolve(tree: &Path, reference: &str) -> Result<Locked> {
    let commit = git(tree, ["rev-parse", "--verify", "--quiet", &format!("{reference}^{{commit}}")]).map_err(
        |error| match error {
            ProcessError::Failed { .. } => KernelsError::BadKernel {
                path: tree.to_owned(),
                reason: format!(
                    "is not a git repository with a commit `{reference}`: fix `tree` or `ref` in kernels.toml"
                ),
            },
            other => other.into(),
        },
    )?;
    let commit = commit.trim().to_owned();
    let makefile = git(tree, ["cat-file", "blob", &format!("{commit}:Makefile")])?;
    let kernel = makefile_version(&makefile).ok_or_else(|| KernelsError::BadKernel {
        path: tree.to_owned(),
        reason: format!("commit {commit} has no kernel version in its Makefile: fix `tree` or `ref` in kernels.toml"),
    })?;
    Ok(Locked::Git { reference: reference.to_owned(), commit, kernel })
}

/// `VERSION`, `PATCHLEVEL` and `SUBLEVEL` of the kernel's Makefile.
fn makefile_version(makefile: &str) -> Option<KernelVersion> {
    let number = |name: &str| {
        let line =
            makefile.lines().take(10).find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='))?;
        line.trim().parse().ok()
    };
    Some(KernelVersion::new(number("VERSION")?, number("PATCHLEVEL")?, number("SUBLEVEL")?))
}

/// A build: one commit with one configuration.
pub(crate) struct Build<'a> {
    pub tree: &'a Path,
    pub commit: &'a str,
    pub version: KernelVersion,
    pub fragment: Option<&'a Path>,
    pub vng: &'a Path,
}

impl Build<'_> {
    /// Hash of the commit, the lab's fragment and the user's fragment.
    ///
    /// # Errors
    /// The fragment can't be read.
    pub fn identity(&self) -> Result<String> {
        Ok(recipe::identity(self.commit, &self.configuration()?))
    }

    fn configuration(&self) -> Result<String> {
        Ok(format!("{BASE}{}", recipe::fragment(self.fragment)?))
    }

    /// Checks the commit out, builds it, and copies the result.
    ///
    /// # Errors
    /// git, vng or make fails, or the result has another version than expected.
    pub fn fetch(
        &self,
        writing: &Writing<'_>,
        kernel: &Kernel,
        sha256: &str,
        progress: &dyn Fn(&str),
    ) -> Result<Finished> {
        let worktree = self.checkout(writing.root(), &kernel.id, progress)?;
        let fragment = writing.root().join("trees").join(format!("{}.config", kernel.id));
        fs::write(&fragment, self.configuration()?).map_err(KernelsError::io(&fragment))?;
        progress(&format!("building {} (this takes minutes)", self.commit));
        // --force: the .config of an earlier build must not be reused if the fragment has changed.
        let args = ["--build".as_ref(), "--force".as_ref(), "--config".as_ref(), fragment.as_os_str()];
        let build = process::vng(self.vng, &process::vng_home(writing.root())?, args).dir(&worktree);
        process::capture("vng --build", "virtme-ng", build)?;
        let config = worktree.join(".config");
        let got = fs::read_to_string(&config).map_err(KernelsError::io(&config))?;
        let lost = recipe::without_effect(&recipe::fragment(self.fragment)?, &got);
        if !lost.is_empty() {
            return Err(KernelsError::BadKernel {
                path: self.fragment.map_or(config, Path::to_owned),
                reason: format!("{} has no effect in {}: add the options that it depends on", lost.join(", "), self.version),
            });
        }
        let local = Local::from_tree(&worktree);
        local.take(writing, kernel, &local.banner()?, sha256)
    }

    /// A separate worktree in the cache: the user's checkout is not modified, and the next build of the same kernel id
    /// is incremental.
    fn checkout(&self, cache: &Path, id: &str, progress: &dyn Fn(&str)) -> Result<PathBuf> {
        let trees = cache.join("trees");
        fs::create_dir_all(&trees).map_err(KernelsError::io(&trees))?;
        let worktree = trees.join(id);
        progress(&format!("checking out {} ({})", self.commit, self.version));
        if worktree.join(".git").exists() {
            let switch = git(&worktree, ["checkout", "--quiet", "--force", "--detach", self.commit]);
            if switch.is_ok() {
                touch(&worktree);
                return Ok(worktree);
            }
            // It belongs to another repository, or its repository was moved.
            fs::remove_dir_all(&worktree).map_err(KernelsError::io(&worktree))?;
        }
        let flags = ["worktree", "add", "--force", "--quiet", "--detach"].map(OsStr::new);
        git(self.tree, flags.into_iter().chain([worktree.as_os_str(), self.commit.as_ref()]))?;
        Ok(worktree)
    }
}

#[cfg(test)]
#[path = "git_tests.rs"]
mod tests;
