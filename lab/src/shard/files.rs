//! What shards leave beside their events: consoles and evidence, gathered into one run's directory.

use crate::error::Error;
use lab_record::{plan::PlannedKernel, shard::Part};
use lab_report::{junit, results::directory};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use walkdir::WalkDir;

/// Copies what a shard left of its kernels below another run's directory. Consoles get the numbers that their guests
/// have there; links are left out, since results come from other machines.
///
/// # Errors
/// A file can't be read or written.
pub(super) fn copy(
    shard: &Path,
    into: &Path,
    part: &Part,
    kernels: &[PlannedKernel],
    shift: &BTreeMap<String, u32>,
) -> Result<(), Error> {
    for kernel in kernels {
        let id = &kernel.facts.id;
        let from = shard.join(id);
        if !from.is_dir() {
            continue;
        }
        let shift = shift.get(id).copied().unwrap_or_default();
        let home = directory::kernel(into, id)?;
        for entry in WalkDir::new(&from).min_depth(1).sort_by_file_name() {
            let entry = entry.map_err(|error| Error::file("read", &from)(error.into()))?;
            let Ok(relative) = entry.path().strip_prefix(&from) else { continue };
            // It is written anew, for all shards together.
            if !entry.file_type().is_file() || relative == Path::new(junit::FILE) {
                continue;
            }
            let path = target(&home, relative, part, shift);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
            }
            fs::copy(entry.path(), &path).map_err(Error::file("write", &path))?;
        }
    }
    Ok(())
}

fn target(home: &Path, relative: &Path, part: &Part, shift: u32) -> PathBuf {
    let name = relative.to_string_lossy();
    if let Some(guest) = guest(&name) {
        return home.join(directory::console(guest + shift));
    }
    let path = home.join(relative);
    if path.exists() { home.join(format!("shard-{}", part.number)).join(relative) } else { path }
}

/// The guest whose console has this name: the inverse of [`directory::console`].
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
    fn only_names_of_consoles_are_numbered() {
        for number in [1, 2, 17] {
            assert_eq!(guest(&directory::console(number)), Some(number));
        }
        for other in ["console-1.log", "console-x.log", "console.txt", "cells/console.log", "consolelog"] {
            assert_eq!(guest(other), None, "{other}");
        }
    }
}
