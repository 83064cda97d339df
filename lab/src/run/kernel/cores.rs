//! Core dumps of a guest's programs. The guest's agent writes them to a directory of the kernel's, from which each cell gets
//! its own.

use crate::run::evidence;
use lab_guard::{Id, Inside};
use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The directory of one guest; dropping it removes it, if it is empty.
#[derive(Debug)]
pub(in crate::run) struct CoreDirectory(PathBuf);

/// Core dumps of one cell.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CellCores {
    /// Their files, from the run's directory on.
    pub files: Vec<Inside>,
    /// A line about each.
    pub told: Vec<String>,
}

impl CoreDirectory {
    /// Makes that of a guest, in its kernel's directory.
    pub fn make(kernel: &Path, guest: u32) -> io::Result<Self> {
        let path = kernel.join(format!("cores-{guest}"));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Moves what was written since the last call to the files of a cell: regular files, under names that the host chooses. A
    /// file of `most` bytes may have been cut off there.
    pub(super) fn take(&self, kernel: &Id, owner: &str, most: u64) -> CellCores {
        let mut taken = CellCores::default();
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        found.sort();
        let home = evidence::home(owner);
        let to = self.0.parent().unwrap_or(Path::new(".")).join(&home);
        for path in found {
            let name = evidence::safe(&path.file_name().unwrap_or_default().to_string_lossy());
            let moved = move_regular(&path, &to, &name);
            let inside = Inside::new(&format!("{kernel}/{home}/{name}"));
            match (moved, inside) {
                (Ok(bytes), Ok(inside)) => {
                    let cut = if bytes >= most { ", and may be cut off there" } else { "" };
                    taken.told.push(format!("core dump of {} KiB{cut}: {}", bytes.div_ceil(1024), &*inside));
                    taken.files.push(inside);
                }
                (Err(error), _) => {
                    taken.told.push(format!("core dump {name} is lost: {error}"));
                    // So that it is not the next cell's.
                    let _ = fs::remove_file(&path);
                }
                (Ok(_), Err(error)) => taken.told.push(format!("core dump {name} is lost: {error}")),
            }
        }
        taken
    }
}

/// Moves a file that a guest has made, and gives its size.
fn move_regular(from: &Path, directory: &Path, name: &str) -> io::Result<u64> {
    let metadata = fs::symlink_metadata(from)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    fs::create_dir_all(directory)?;
    fs::set_permissions(from, Permissions::from_mode(0o600))?;
    fs::rename(from, directory.join(name))?;
    Ok(metadata.len())
}

impl Drop for CoreDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_cell_gets_the_regular_files_of_its_time_under_harmless_names() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("6.12");
        let (id, cores) = (Id::new("6.12").unwrap(), CoreDirectory::make(&kernel, 1).unwrap());
        fs::write(cores.path().join("core.a b.7"), vec![0; 3000]).unwrap();
        symlink("/etc/passwd", cores.path().join("core.link")).unwrap();
        let first = cores.take(&id, "sh-1", 3000);
        assert_eq!(first.files.iter().map(|it| &**it).collect::<Vec<_>>(), ["6.12/cells/sh-1/core.a-b.7"]);
        assert_eq!(
            first.told,
            [
                "core dump of 3 KiB, and may be cut off there: 6.12/cells/sh-1/core.a-b.7",
                "core dump core.link is lost: it is no regular file"
            ]
        );
        let kept = dir.path().join(&*first.files[0]);
        assert_eq!(fs::metadata(kept).unwrap().permissions().mode() & 0o777, 0o600, "memory may hold secrets");
        assert_eq!(cores.take(&id, "sh-2", 3000), CellCores::default(), "nothing is left for the next cell");
        let place = cores.path().to_owned();
        drop(cores);
        assert!(!place.exists());
    }
}
