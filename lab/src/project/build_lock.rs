//! One lab builds at a time in a project, and keeps a copy of what was there for the others.

use super::{
    agent_package::AgentPackage,
    artifacts::{AGENT_DIR, ArtifactError, Artifacts, BPF_OBJECTS, Builder, read},
    aside::Aside,
};
use lab_base::interrupt::Interrupt;
use std::{
    fs::{File, TryLockError},
    io::{self, ErrorKind},
    thread,
    time::Duration,
};

/// Interval between attempts to take the lock.
const POLL: Duration = Duration::from_millis(50);

impl Builder<'_> {
    /// While another lab builds: what was there before.
    pub(super) fn before(&self, package: &AgentPackage) -> Option<Artifacts> {
        match self.lock_file()?.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {
                let copies = Aside::of(&self.target_dir(AGENT_DIR), &package.name);
                copies.read(|copy| read(copy.join(&package.name), |_, name| copy.join(name)))
            }
            _ => None,
        }
    }

    /// Keeps a copy of what is there, for labs that need it while one builds. This lab has the lock.
    pub(super) fn keep(&self, package: &AgentPackage) -> Result<(), ArtifactError> {
        let objects = BPF_OBJECTS.map(|(target, name)| (name, self.object_place(target)));
        let files: Vec<_> = [(&*package.name, self.agent_place(package))].into_iter().chain(objects).collect();
        let target = self.target_dir(AGENT_DIR);
        match Aside::of(&target, &package.name).keep(&files) {
            // Nobody who may not write here builds here.
            Err(error) if matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) => Ok(()),
            kept => kept.map_err(|cause| ArtifactError::Keep { path: target.join("aside"), cause }),
        }
    }

    /// Takes the lock to build. What is there is kept first: another program may have put it there.
    pub(super) fn alone(&self, package: &AgentPackage) -> Result<Option<File>, ArtifactError> {
        let lock = self.lock(self.lock_file(), File::try_lock)?;
        if lock.is_some() {
            self.keep(package)?;
        }
        Ok(lock)
    }

    /// Waits for a lab that builds, to read what it makes.
    pub(super) fn beside(&self) -> Result<Option<File>, ArtifactError> {
        self.lock(self.lock_file(), File::try_lock_shared)
    }

    /// The file that a lab locks while it builds in this project. Without write access nobody can build, and there is none.
    fn lock_file(&self) -> Option<File> {
        let path = self.target_dir(AGENT_DIR).join(".lab-lock");
        let opened = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
                made.and_then(|()| File::options().create(true).append(true).open(&path))
            }
            other => other,
        };
        opened.ok()
    }

    /// Waits for other labs that build in this project.
    fn lock(
        &self,
        opened: Option<File>,
        take: fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Option<File>, ArtifactError> {
        let Some(file) = opened else { return Ok(None) };
        let mut told = false;
        loop {
            match take(&file) {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) if Interrupt::raised().is_some() => {
                    return Err(ArtifactError::Interrupted { what: "the programs for guests" });
                }
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut told, true) {
                        (self.say)("waiting for another lab that builds in this project");
                    }
                    thread::sleep(POLL);
                }
                // File systems without locks.
                Err(TryLockError::Error(_)) => return Ok(None),
            }
        }
    }
}
