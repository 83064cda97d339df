//! Copies of what was built last, for labs that read it while another lab builds.
//!
//! cargo replaces its files one by one. A reader would have to wait until the build ends, which takes minutes, although it needs
//! what was there before. Therefore a lab that is about to build keeps a copy of that first.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The link to the newest copy.
const CURRENT: &str = "current";

/// The copies of one agent's package.
pub(super) struct Aside {
    directory: PathBuf,
}

/// What is copied.
pub(super) struct AsideFiles<'a> {
    /// Names and contents; the first one is the agent, a program.
    pub files: Vec<(&'a str, &'a [u8])>,
    /// When the agent was built, by which it is seen whether a source has changed since.
    pub built: SystemTime,
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
    pub fn keep(&self, kept: &AsideFiles<'_>) -> io::Result<()> {
        let link = self.directory.join(CURRENT);
        let newest = fs::read_link(&link).ok();
        if newest.as_ref().is_some_and(|name| kept.is_in(&self.directory.join(name))) {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        let copy = tempfile::Builder::new().prefix("copy-").tempdir_in(&self.directory)?;
        for (name, bytes) in &kept.files {
            fs::write(copy.path().join(name), bytes)?;
        }
        if let Some((agent, _)) = kept.files.first() {
            let agent = fs::File::open(copy.path().join(agent))?;
            agent.set_permissions(fs::Permissions::from_mode(0o755))?;
            agent.set_modified(kept.built)?;
        }
        let fresh = self.directory.join("fresh");
        let _ = fs::remove_file(&fresh);
        let copy = copy.keep();
        symlink(copy.file_name().unwrap_or_default(), &fresh)?;
        fs::rename(&fresh, &link)?;
        for entry in fs::read_dir(&self.directory)?.flatten() {
            let name = PathBuf::from(entry.file_name());
            let stays = name == Path::new(CURRENT) || newest.as_ref() == Some(&name) || entry.path() == copy;
            if !stays {
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
    pub fn read<T, E>(&self, read: impl Fn(&Path) -> Result<T, E>) -> Option<T> {
        loop {
            let directory = self.newest()?;
            match read(&directory) {
                Ok(found) => return Some(found),
                Err(_) if self.newest().as_ref() != Some(&directory) => {}
                Err(_) => return None,
            }
        }
    }
}

impl AsideFiles<'_> {
    fn is_in(&self, directory: &Path) -> bool {
        let is_same = |(name, bytes): &(&str, &[u8])| fs::read(directory.join(name)).is_ok_and(|kept| kept == *bytes);
        let agent = self.files.first().map(|(name, _)| directory.join(name));
        let built = agent.and_then(|agent| agent.metadata().and_then(|it| it.modified()).ok());
        built == Some(self.built) && self.files.iter().all(is_same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_copy_is_whole_and_only_made_of_what_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let aside = Aside::of(dir.path(), "agent");
        let keep = |object: &[u8], second: u64| {
            let files = vec![("agent", &b"one"[..]), ("lab.o", object)];
            aside.keep(&AsideFiles { files, built: SystemTime::UNIX_EPOCH + Duration::from_secs(second) }).unwrap();
        };
        let read = || {
            let all = |directory: &Path| -> io::Result<(Vec<u8>, Vec<u8>)> {
                Ok((fs::read(directory.join("agent"))?, fs::read(directory.join("lab.o"))?))
            };
            aside.read(all).unwrap()
        };
        assert!(aside.newest().is_none());
        keep(b"o", 1);
        assert_eq!(read(), (b"one".to_vec(), b"o".to_vec()));
        let place = aside.newest();
        keep(b"o", 1);
        assert_eq!(aside.newest(), place, "nothing has changed");
        keep(b"o", 2);
        assert_ne!(aside.newest(), place, "it was built again");
        for object in [b"p", b"q", b"r"] {
            keep(object, 2);
            assert_eq!(read(), (b"one".to_vec(), object.to_vec()));
        }
        // The link, the newest copy and the one before.
        assert_eq!(fs::read_dir(place.unwrap().parent().unwrap()).unwrap().count(), 3);
    }
}
