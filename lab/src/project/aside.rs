//! Copies of what was built last, for labs that read it while another lab builds.
//!
//! cargo replaces its files one by one. A reader would have to wait until the build ends, which takes minutes, although it needs
//! what was there before. Therefore a lab that is about to build keeps a copy of that first.

use std::{
    fs, io,
    os::unix::fs::symlink,
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

    /// Keeps a copy of these files, each with its name in the copy, unless the newest copy is of them. The copy before is kept too,
    /// because a lab may be reading it. Where a file is missing there is nothing to keep.
    ///
    /// # Errors
    /// A file can't be read, or the directory can't be written to.
    pub fn keep(&self, files: &[(&str, PathBuf)]) -> io::Result<()> {
        if files.iter().any(|(_, file)| !file.exists()) {
            return Ok(());
        }
        let link = self.directory.join(CURRENT);
        let newest = fs::read_link(&link).ok();
        if let Some(name) = &newest {
            if is_of(&self.directory.join(name), files) {
                return Ok(());
            }
            // It is of other files: whoever reads waits from now on.
            fs::remove_file(&link)?;
        }
        fs::create_dir_all(&self.directory)?;
        let copy = tempfile::Builder::new().prefix("copy-").tempdir_in(&self.directory)?;
        for (name, file) in files {
            let to = copy.path().join(name);
            fs::copy(file, &to)?;
            // By it the copy is recognised, and whether a source has changed since.
            fs::File::open(&to)?.set_modified(file.metadata()?.modified()?)?;
        }
        let copy = copy.keep();
        symlink(copy.file_name().unwrap_or_default(), &link)?;
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

/// Whether a copy has these files as they are now.
fn is_of(copy: &Path, files: &[(&str, PathBuf)]) -> bool {
    let stamp = |path: &Path| path.metadata().and_then(|it| Ok((it.len(), it.modified()?))).ok();
    files.iter().all(|(name, file)| stamp(file).is_some_and(|of_file| stamp(&copy.join(name)) == Some(of_file)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_copy_is_whole_and_only_made_of_what_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let aside = Aside::of(dir.path(), "agent");
        let files = [("agent", dir.path().join("built")), ("lab.o", dir.path().join("lab"))];
        let keep = |object: &[u8], second: u64| {
            for ((_, path), bytes) in files.iter().zip([b"one", object]) {
                fs::write(path, bytes).unwrap();
                let file = fs::File::options().write(true).open(path).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
            }
            aside.keep(&files).unwrap();
        };
        let read = || {
            let all = |directory: &Path| -> io::Result<(Vec<u8>, Vec<u8>)> {
                Ok((fs::read(directory.join("agent"))?, fs::read(directory.join("lab.o"))?))
            };
            aside.read(all).unwrap()
        };
        aside.keep(&files).unwrap();
        assert!(aside.newest().is_none(), "nothing was built yet");
        keep(b"o", 1);
        assert_eq!(read(), (b"one".to_vec(), b"o".to_vec()));
        let place = aside.newest();
        keep(b"o", 1);
        assert_eq!(aside.newest(), place, "nothing has changed");
        for (object, second) in [(b"p", 2), (b"q", 3), (b"r", 4)] {
            keep(object, second);
            assert_eq!(read(), (b"one".to_vec(), object.to_vec()));
        }
        // The link, the newest copy and the one before.
        assert_eq!(fs::read_dir(place.unwrap().parent().unwrap()).unwrap().count(), 3);
    }
}
