//! The `modules/` directory of an unpacked kernel: a `lib/modules/<release>` with a new `modules.dep`.

use super::error::{KernelsError, Result};
use lab_base::process;
use std::{fs, path::Path};

/// Indexes `<stage>/root/lib/modules/<release>` and moves it to `<stage>/modules`.
///
/// Debian's packages contain no `modules.dep`: their maintainer script creates it on the host. The directory must not be
/// named `lib/modules/<release>` beside the image, since vng would then try to build an initramfs of the host.
///
/// # Errors
/// depmod is missing or fails, or a file operation fails.
pub(super) fn index(stage: &Path, release: &str) -> Result<()> {
    let root = stage.join("root");
    let installed = root.join("lib/modules").join(release);
    fs::create_dir_all(&installed).map_err(KernelsError::io(&installed))?;
    // A single image has no such list; the probes in the guest find out what is built in.
    let builtin = installed.join("modules.builtin");
    fs::File::options().create(true).append(true).open(&builtin).map_err(KernelsError::io(&builtin))?;
    let arguments = ["-b".as_ref(), root.as_os_str(), release.as_ref()];
    process::capture("depmod", "kmod", process::command("depmod", arguments))?;
    fs::rename(&installed, stage.join("modules")).map_err(KernelsError::io(&installed))?;
    fs::remove_dir_all(&root).map_err(KernelsError::io(&root))
}

/// Copies a modules directory of this host to the path that [`index`] expects.
///
/// Symbolic links are not followed: `build` and `source` point to whole kernel trees.
///
/// # Errors
/// The directory can't be read, or the copy can't be written.
pub(super) fn copy(from: &Path, stage: &Path, release: &str) -> Result<()> {
    let to = stage.join("root/lib/modules").join(release);
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.map_err(|error| KernelsError::io(from)(error.into()))?;
        let place = match entry.path().strip_prefix(from) {
            Ok(rest) => to.join(rest),
            Err(_) => continue,
        };
        if entry.file_type().is_dir() {
            fs::create_dir_all(&place).map_err(KernelsError::io(&place))?;
        } else if entry.file_type().is_file() {
            copy_file(entry.path(), &place)?;
        }
    }
    Ok(())
}

/// Copies one file. The error names the file at fault, source or copy.
///
/// # Errors
/// The source can't be read, or the copy can't be written.
pub(super) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).map_err(|error| match KernelsError::io(to)(error) {
        KernelsError::Io { error, .. } => KernelsError::io(from)(error),
        full => full,
    })
}
