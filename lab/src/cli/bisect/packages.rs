//! `lab bisect` over published kernels.

use crate::bisect::tester::Supply;
use lab_protocol::KernelVersion;

use crate::{
    bisect::{
        NoKernel, SearchStop, Subject,
        packages::{Ladder, Rung, ladder},
    },
    error::Error,
    project::Project,
};
use lab_base::say::say;
use lab_kernel_store::{BootableKernel, Kernel, KernelsError};

/// The kernels of a ladder, which are fetched on demand.
pub(super) struct Published<'a> {
    project: &'a Project,
    kernels: Vec<&'a Kernel>,
}

/// Creates the ladder: every kernel of kernels.toml that is not built by the lab, or those that match the patterns, and
/// both ends.
pub(super) fn open<'a>(
    project: &'a Project,
    patterns: &[String],
    good: &str,
    bad: &str,
) -> Result<(Ladder, Published<'a>), Error> {
    let chosen: Vec<&Kernel> = if patterns.is_empty() {
        project.config.kernels.iter().filter(|kernel| kernel.is_published()).collect()
    } else {
        let chosen = lab_kernel_store::select(&project.config, patterns, &[])?;
        chosen.into_iter().filter(|kernel| kernel.architecture().is_own()).collect()
    };
    // Two architectures have no order, and one may fail for reasons of its own.
    for end in [good, bad] {
        let kernel = project.config.kernels.iter().find(|kernel| kernel.id == end);
        if let Some(kernel) = kernel.filter(|kernel| !kernel.architecture().is_own()) {
            let of = kernel.architecture();
            return Err(Error::Usage(format!("{end} is for {of}: --good and --bad must be kernels for amd64")));
        }
    }
    let wanted = |kernel: &&Kernel| kernel.id == good || kernel.id == bad || chosen.iter().any(|it| it.id == kernel.id);
    let mut rungs = Vec::new();
    for kernel in project.config.kernels.iter().filter(wanted) {
        match project.store().version(kernel, &project.lock) {
            Ok(version) => rungs.push(Rung { id: kernel.id.to_string(), version }),
            Err(error) if kernel.id == good || kernel.id == bad => return Err(error.into()),
            // Its version is unknown; the other kernels can still be used.
            Err(error) => say(&format!("left out: {error}")),
        }
    }
    let ladder = ladder(&rungs, good, bad).map_err(|stop| Error::Usage(stop.to_string()))?;
    let find = |rung: &Rung| project.config.kernels.iter().find(|kernel| kernel.id == rung.id);
    let kernels = ladder.rungs.iter().filter_map(find).collect();
    Ok((ladder, Published { project, kernels }))
}

impl Published<'_> {
    /// Everything that the rungs' kernels depend on: a kernel of this host may have been rebuilt under the same name.
    pub fn identities(&self) -> Result<String, KernelsError> {
        let identity = |kernel: &&Kernel| self.project.store().identity(kernel, &self.project.lock);
        self.kernels.iter().map(identity).collect::<Result<Vec<_>, _>>().map(|all| all.join(" "))
    }

    /// Description of the locked version of a rung.
    pub fn locked(&self, point: usize) -> String {
        let kernel = self.kernels[point];
        self.project.lock.entry(kernel).map_or_else(|_| kernel.source.to_string(), ToString::to_string)
    }
}

/// Lines of a package's changelog since an earlier version that contain a text, and the number of searched lines.
pub(super) fn changelog(
    project: &Project,
    rung: &Rung,
    before: KernelVersion,
    wanted: &str,
) -> Result<Vec<String>, Error> {
    let kernel = project.config.kernels.iter().find(|kernel| kernel.id == rung.id).ok_or(Error::NothingSelected)?;
    let news = lab_kernel_store::news(&project.store().changelog(kernel, &project.lock, &say)?, before);
    let hits = news.iter().filter(|(_, line)| line.contains(wanted));
    let mut told: Vec<String> = hits.map(|(version, line)| format!("{version}: {line}")).collect();
    let searched = format!("{} of {} changelog lines since {before} contain `{wanted}`", told.len(), news.len());
    told.insert(0, searched);
    Ok(told)
}

impl Supply for Published<'_> {
    fn bring(&mut self, subject: Subject) -> Result<Result<BootableKernel, NoKernel>, SearchStop> {
        let point = match subject {
            Subject::Point(point) => point,
            Subject::Without(_) => return Ok(Err(NoKernel("a package can't be reverted".to_owned()))),
        };
        let kernel = self.kernels[point];
        match self.project.store().fetch(kernel, &self.project.lock, &say) {
            Ok(unpacked) => Ok(Ok(unpacked)),
            Err(KernelsError::Kernel { error, .. })
                if matches!(*error, KernelsError::Vanished { .. } | KernelsError::Incomplete { .. }) =>
            {
                Ok(Err(NoKernel(error.to_string())))
            }
            Err(error) => Err(SearchStop::Trouble(error.to_string())),
        }
    }

    fn name(&self, subject: Subject) -> String {
        match subject {
            Subject::Point(point) | Subject::Without(point) => self.kernels[point].id.to_string(),
        }
    }
}
