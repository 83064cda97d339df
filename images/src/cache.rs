//! The cache of images and of kernels that were unpacked for them.

use crate::error::ImageError;
use lab_base::file;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Maximum number of images kept: enough for a few builds of a full matrix.
const KEPT: usize = 48;
/// Kind of the files with type information, of which as many are kept again: one is small, and each kernel has one.
pub const TYPES: &str = "btf";
/// Kind of the notes of which image was built last ([`crate::base`]), of which as many are kept again.
pub const BASE: &str = "base";
/// Younger images are never removed: a run may be about to boot them.
const YOUNG: Duration = Duration::from_secs(3600);

/// Path of the file with this key and kind.
pub fn path_of(cache: &Path, key: &str, kind: &str) -> PathBuf {
    cache.join("images").join(format!("{key}.{kind}"))
}

/// Whether the image exists; updates its time of use, which need not be exact: who recognises a file by its times reads it again
/// after that.
pub fn touch(path: &Path) -> bool {
    let is_recent = |file: &File| {
        let used = file.metadata().and_then(|found| found.modified());
        used.is_ok_and(|used| used.elapsed().is_ok_and(|age| age < YOUNG / 4))
    };
    let update = |file: File| if is_recent(&file) { Ok(()) } else { file.set_modified(SystemTime::now()) };
    File::options().append(true).open(path).and_then(update).is_ok()
}

/// Writes an image to the cache atomically; concurrent writers are safe.
pub fn store(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(ImageError::io("image cache", dir))?;
    file::replace_durably(path, bytes).map_err(ImageError::io("image", path))?;
    let small = |path: &Path| [TYPES, BASE].into_iter().find(|kind| path.extension() == Some(kind.as_ref()));
    let alike = small(path);
    prune(dir, |other| small(other) == alike);
    Ok(())
}

/// Removes images that were not used for the longest time. Errors are ignored: removal is tried again next time.
fn prune(dir: &Path, is_counted: impl Fn(&Path) -> bool) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut images: Vec<_> =
        entries.flatten().filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    images.retain(|(_, path)| is_counted(path));
    images.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
    let old = |used: &SystemTime| used.elapsed().is_ok_and(|age| age > YOUNG);
    for (_, path) in images.iter().skip(KEPT).filter(|(used, _)| old(used)) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_images_are_removed_and_young_ones_kept() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for index in 0..KEPT + 5 {
            let file = File::create(dir.path().join(format!("{index}.cpio"))).unwrap();
            let age = if index < 3 { Duration::ZERO } else { YOUNG * 2 + Duration::from_secs(index as u64) };
            file.set_modified(now - age).unwrap();
        }
        store(&dir.path().join("kernel.btf"), b"x").unwrap();
        store(&dir.path().join("new.cpio"), b"x").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), KEPT + 1, "type information is counted apart");
        assert!(dir.path().join("new.cpio").exists() && dir.path().join("0.cpio").exists());
        assert!(!dir.path().join(format!("{}.cpio", KEPT + 4)).exists());
    }
}
