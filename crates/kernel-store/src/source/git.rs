//! Kernels from a git repository, built by `vng --build`.

use super::{Bound, ConfiguredSource, Indexes, Job, KernelSource, LockEntry, Locked, Site, SourceTable, path::Local};
use crate::{
    cache::{CachedKernel, Target, WritePurpose, Writing},
    error::{KernelsError, Result},
    recipe::{self, BASE},
};
use lab_base::{
    file::touch,
    git::git,
    process::{self, ProcessError},
    strict_toml::ConfigError,
};
use lab_protocol::KernelVersion;
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsStr,
    fmt, fs,
    path::{Path, PathBuf},
};

/// `source.git`: a commit of a repository on this host, built by `vng --build`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitCommit {
    pub tree: PathBuf,
    /// Branch, tag or commit.
    pub reference: String,
    /// Configuration fragments in addition to the lab's own.
    pub fragments: Vec<PathBuf>,
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedCommit {
    /// The branch, tag or commit that was resolved.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Full commit id.
    pub commit: String,
    /// Version in the commit's Makefile.
    pub kernel: KernelVersion,
}

impl ConfiguredSource for GitCommit {
    const KEYS: &'static [&'static str] = &["tree", "ref", "fragment"];

    fn read(table: &SourceTable<'_>) -> std::result::Result<Self, ConfigError> {
        let reference = table.table.required("ref")?;
        if reference.starts_with('-') {
            let message = format!("{reference:?} in {} is not a git revision", table.kernel);
            return Err(table.table.error_at("ref", message));
        }
        let tree = table.path("tree")?.ok_or_else(|| table.table.missing("tree"))?;
        Ok(Self { tree, reference: reference.to_owned(), fragments: table.path("fragment")?.into_iter().collect() })
    }
}

impl fmt::Display for GitCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "git {} ({})", self.reference, self.tree.display())
    }
}

impl fmt::Display for LockedCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "git {} at {}", self.reference, self.commit)
    }
}

impl LockEntry for LockedCommit {
    fn kernel(&self) -> KernelVersion {
        self.kernel
    }
}

impl GitCommit {
    /// The same commit with more fragments.
    pub(super) fn with(&self, more: &[PathBuf]) -> Self {
        Self { fragments: [&*self.fragments, more].concat(), ..self.clone() }
    }

    fn build<'b>(&'b self, site: &Site<'b>, locked: Option<&'b Locked>) -> Result<CommitBuild<'b>> {
        let Some(Locked::Git(LockedCommit { commit, kernel, .. })) = locked else { return Err(KernelsError::Unlocked) };
        let fragments = &self.fragments;
        Ok(CommitBuild { tree: &self.tree, commit, version: *kernel, fragments, vng: site.vng })
    }
}

impl KernelSource for GitCommit {
    fn promised(&self) -> Option<KernelVersion> {
        self.reference.strip_prefix('v')?.parse().ok()
    }

    fn purpose(&self) -> WritePurpose {
        WritePurpose::Build
    }

    fn is_resolved_by(&self, locked: &Locked) -> bool {
        matches!(locked, Locked::Git(it) if it.reference == self.reference)
    }

    fn resolve(&self, _: &Site<'_>, _: &mut Indexes, _: &dyn Fn(&str)) -> Result<Option<Locked>> {
        resolve(&self.tree, &self.reference).map(|locked| Some(Locked::Git(locked)))
    }

    fn version(&self, site: &Site<'_>, locked: Option<&Locked>) -> Result<KernelVersion> {
        Ok(self.build(site, locked)?.version)
    }

    fn identity(&self, site: &Site<'_>, locked: Option<&Locked>) -> Result<Bound> {
        let build = self.build(site, locked)?;
        Ok(Bound { version: build.version, sha256: build.identity()? })
    }

    fn fetch(&self, job: &Job<'_>) -> Result<CachedKernel> {
        self.build(job.site, job.locked)?.fetch(job.writing, job.target, &job.bound.sha256, job.progress)
    }
}

/// Finds the current commit of a reference, and its version.
///
/// # Errors
/// The repository or reference does not exist, or is not a kernel.
pub(crate) fn resolve(tree: &Path, reference: &str) -> Result<LockedCommit> {
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
    Ok(LockedCommit { reference: reference.to_owned(), commit, kernel })
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
pub(crate) struct CommitBuild<'a> {
    pub tree: &'a Path,
    pub commit: &'a str,
    pub version: KernelVersion,
    pub fragments: &'a [PathBuf],
    pub vng: &'a Path,
}

impl CommitBuild<'_> {
    /// Hash of the commit, the lab's fragment and the user's fragments.
    ///
    /// # Errors
    /// A fragment can't be read.
    pub fn identity(&self) -> Result<String> {
        Ok(recipe::identity(self.commit, &self.configuration()?))
    }

    fn configuration(&self) -> Result<String> {
        Ok(format!("{BASE}{}", recipe::fragments(self.fragments)?))
    }

    /// Checks the commit out, builds it, and copies the result.
    ///
    /// # Errors
    /// git, vng or make fails, or the result has another version than expected.
    pub fn fetch(
        &self,
        writing: &Writing<'_>,
        target: &Target,
        sha256: &str,
        progress: &dyn Fn(&str),
    ) -> Result<CachedKernel> {
        let worktree = self.checkout(writing.root(), &target.id, progress)?;
        let fragment = writing.root().join("trees").join(format!("{}.config", target.id));
        fs::write(&fragment, self.configuration()?).map_err(KernelsError::io(&fragment))?;
        progress(&format!("building {} (this takes minutes)", self.commit));
        // --force: the .config of an earlier build must not be reused if the fragment has changed.
        let args = ["--build".as_ref(), "--force".as_ref(), "--config".as_ref(), fragment.as_os_str()];
        let build = process::vng(self.vng, &process::vng_home(writing.root())?, args).dir(&worktree);
        process::capture("vng --build", "virtme-ng", build)?;
        let config = worktree.join(".config");
        let got = fs::read_to_string(&config).map_err(KernelsError::io(&config))?;
        let lost = recipe::without_effect(&recipe::fragments(self.fragments)?, &got);
        if !lost.is_empty() {
            return Err(KernelsError::BadKernel {
                path: self.fragments.last().cloned().unwrap_or(config),
                reason: format!(
                    "{} has no effect in {}: add the options that it depends on",
                    lost.join(", "),
                    self.version
                ),
            });
        }
        let local = Local::from_tree(&worktree);
        local.take(writing, target, &local.banner()?, sha256)
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
