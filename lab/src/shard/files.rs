//! Copies consoles and evidence of shards into the directory of the merged run.

use crate::error::Error;
use lab_guard::{Id, foreign};
use lab_record::shard::Part;
use lab_report::{junit, results::directory};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use walkdir::WalkDir;

/// Maximum size of a shard's file, bytes: consoles and evidence are far smaller.
const FILE_LIMIT: u64 = 128 << 20;
/// Maximum number of a shard's files, and their maximum total size, bytes.
const MOST_FILES: u64 = 200_000;
const MOST_BYTES: u64 = 8 << 30;

/// Copies the files of a shard's kernels into the directory of another run. Consoles get the numbers that their guests
/// have there. Results come from other machines: anything but a regular file, for example a symbolic link, is refused.
///
/// # Errors
/// A file can't be read or written or is not a regular file, or there are more files than a run writes.
pub(super) fn copy<'a>(
    shard: &Path,
    into: &Path,
    part: &Part,
    kernels: impl Iterator<Item = &'a Id>,
    shift: &BTreeMap<Id, u32>,
) -> Result<(), Error> {
    let mut room = Room::default();
    for id in kernels {
        let from = shard.join(id);
        if !foreign::is_directory(&from).map_err(Error::file("read", &from))? {
            continue;
        }
        let shift = shift.get(id).copied().unwrap_or_default();
        let home = directory::kernel(into, id)?;
        for entry in WalkDir::new(&from).min_depth(1).sort_by_file_name() {
            let entry = entry.map_err(|error| Error::file("read", &from)(error.into()))?;
            let Ok(relative) = entry.path().strip_prefix(&from) else { continue };
            // JUnit reports are written again for the merged run.
            if entry.file_type().is_dir() || relative == Path::new(junit::FILE) {
                continue;
            }
            let path = target(&home, relative, part, shift);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
            }
            room.take(entry.path())?;
            foreign::copy(entry.path(), &path, FILE_LIMIT).map_err(Error::file("copy", entry.path()))?;
        }
    }
    Ok(())
}

/// The remaining number and size of files that may be copied of a shard.
#[derive(Default)]
struct Room {
    files: u64,
    bytes: u64,
}

impl Room {
    fn take(&mut self, file: &Path) -> Result<(), Error> {
        let size = fs::symlink_metadata(file).map_err(Error::file("read", file))?.len();
        (self.files, self.bytes) = (self.files + 1, self.bytes.saturating_add(size));
        if self.files <= MOST_FILES && self.bytes <= MOST_BYTES {
            return Ok(());
        }
        let why = format!("a shard has at most {MOST_FILES} files of {} GiB in all", MOST_BYTES >> 30);
        Err(Error::file("copy", file)(std::io::Error::new(std::io::ErrorKind::QuotaExceeded, why)))
    }
}

fn target(home: &Path, relative: &Path, part: &Part, shift: u32) -> PathBuf {
    let name = relative.to_string_lossy();
    if let Some(number) = guest(&name).and_then(|guest| guest.checked_add(shift)) {
        return home.join(directory::console(number));
    }
    let path = home.join(relative);
    if path.exists() { home.join(format!("shard-{}", part.number)).join(relative) } else { path }
}

/// The guest number in a console's file name: the inverse of [`directory::console`].
fn guest(name: &str) -> Option<u32> {
    let guest = match name.strip_prefix("console")?.strip_suffix(".log")? {
        "" => 1,
        number => number.strip_prefix('-')?.parse().ok()?,
    };
    (directory::console(guest) == name).then_some(guest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_console_names_have_a_guest_number() {
        for number in [1, 2, 17] {
            assert_eq!(guest(&directory::console(number)), Some(number));
        }
        for other in ["console-1.log", "console-x.log", "console.txt", "cells/console.log", "consolelog"] {
            assert_eq!(guest(other), None, "{other}");
        }
    }
}
