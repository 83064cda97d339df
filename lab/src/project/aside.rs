//! Copies of what was built last, for labs that read it while another lab builds.
//!
//! cargo replaces its files one by one. A reader would have to wait until the build ends, which takes minutes, although it needs
//! what was there before. Therefore a lab that is about to build keeps a copy of that first.

use super::artifacts::{ArtifactError, Artifacts};
use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// The link to the newest copy.
const CURRENT: &str = "current";

/// The copies of one agent's package.
pub(super) struct Aside {
    directory: PathBuf,
}

impl Aside {
    /// Below the target directory of the agent.
    pub fn of(target: &Path, package: &str) -> Self {
        Self { directory: target.join("aside").join(package) }
    }

    /// Keeps a copy, if it differs from the newest one. The copy before is kept too, because a lab may be reading it.
    ///
    /// # Errors
    /// The directory can't be written to.
    pub fn keep(&self, built: &Artifacts, package: &str) -> io::Result<()> {
        let link = self.directory.join(CURRENT);
        let newest = fs::read_link(&link).ok();
        if newest.as_ref().is_some_and(|name| same(&self.directory.join(name), built, package)) {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        let copy = tempfile::Builder::new().prefix("copy-").tempdir_in(&self.directory)?;
        for (name, bytes) in files(built, package) {
            fs::write(copy.path().join(name), bytes)?;
        }
        let agent = fs::File::open(copy.path().join(package))?;
        agent.set_permissions(fs::Permissions::from_mode(0o755))?;
        // Whether a source has changed since is seen by it.
        agent.set_modified(built.agent.path.metadata()?.modified()?)?;
        let fresh = self.directory.join("fresh");
        let _ = fs::remove_file(&fresh);
        let copy = copy.keep();
        symlink(copy.file_name().unwrap_or_default(), &fresh)?;
        fs::rename(&fresh, &link)?;
        for entry in fs::read_dir(&self.directory)?.flatten() {
            let name = PathBuf::from(entry.file_name());
            let kept = name == Path::new(CURRENT) || newest.as_ref() == Some(&name) || entry.path() == copy;
            if !kept {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// The directory of the newest copy.
    pub fn newest(&self) -> Option<PathBuf> {
        let name = fs::read_link(self.directory.join(CURRENT)).ok()?;
        Some(self.directory.join(name))
    }

    /// Reads the newest copy with `read`; a copy that two builds have replaced meanwhile is read again.
    pub fn read(&self, read: impl Fn(&Path) -> Result<Artifacts, ArtifactError>) -> Option<Artifacts> {
        loop {
            let directory = self.newest()?;
            match read(&directory) {
                Ok(artifacts) => return Some(artifacts),
                Err(_) if self.newest().as_ref() != Some(&directory) => {}
                Err(_) => return None,
            }
        }
    }
}

/// The files of a copy.
fn files<'a>(built: &'a Artifacts, package: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let objects = built.objects.iter().map(|(name, object)| (name.as_str(), &*object.bytes));
    std::iter::once((package, &*built.agent.bytes)).chain(objects)
}

fn same(directory: &Path, built: &Artifacts, package: &str) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|it| it.modified()).ok();
    modified(&directory.join(package)) == modified(&built.agent.path)
        && files(built, package).all(|(name, bytes)| fs::read(directory.join(name)).is_ok_and(|kept| kept == bytes))
}

#[cfg(test)]
mod tests {
    use super::{super::artifacts::Artifact, *};

    #[test]
    fn a_copy_is_whole_and_only_made_of_what_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let aside = Aside::of(dir.path(), "agent");
        let agent = dir.path().join("built");
        let built = |agent_bytes: &[u8], object: &[u8]| {
            fs::write(&agent, agent_bytes).unwrap();
            let object = Artifact { path: dir.path().join("lab"), bytes: object.into() };
            let agent = Artifact { path: agent.clone(), bytes: agent_bytes.into() };
            Artifacts { agent, objects: [("lab.o".to_owned(), object)].into() }
        };
        let read = || {
            let directory = aside.newest().unwrap();
            (fs::read(directory.join("agent")).unwrap(), fs::read(directory.join("lab.o")).unwrap())
        };
        assert!(aside.newest().is_none());
        let first = built(b"one", b"o");
        aside.keep(&first, "agent").unwrap();
        assert_eq!(read(), (b"one".to_vec(), b"o".to_vec()));
        let place = aside.newest();
        aside.keep(&first, "agent").unwrap();
        assert_eq!(aside.newest(), place, "nothing has changed");
        for object in [b"p", b"q", b"r"] {
            aside.keep(&built(b"one", object), "agent").unwrap();
            assert_eq!(read(), (b"one".to_vec(), object.to_vec()));
        }
        // The link, the newest copy and the one before.
        assert_eq!(fs::read_dir(place.unwrap().parent().unwrap()).unwrap().count(), 3);
    }
}
