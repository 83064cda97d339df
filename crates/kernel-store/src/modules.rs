//! The `modules/` directory of an unpacked kernel: what `lib/modules/<release>` is, with a fresh `modules.dep`.

use super::error::{KernelsError, Result};
use lab_base::process;
use std::{fs, path::Path};

/// Indexes `<stage>/root/lib/modules/<release>` and makes it `<stage>/modules`.
///
/// Debian's packages carry no `modules.dep`: their maintainer script makes it on the host. The directory must not end as
/// `lib/modules/<release>` beside the image, since vng takes that for a host whose initramfs it has to build.
///
/// # Errors
/// depmod is absent or fails, or the disk does.
pub(super) fn index(stage: &Path, release: &str) -> Result<()> {
    let root = stage.join("root");
    let installed = root.join("lib/modules").join(release);
    fs::create_dir_all(&installed).map_err(KernelsError::io(&installed))?;
    // An image on its own comes without any list; the probes in the guest say what is built in then.
    let builtin = installed.join("modules.builtin");
    fs::File::options().create(true).append(true).open(&builtin).map_err(KernelsError::io(&builtin))?;
    let depmod = process::administrative("depmod");
    process::capture("depmod", "kmod", process::command(&depmod, ["-b".as_ref(), root.as_os_str(), release.as_ref()]))?;
    fs::rename(&installed, stage.join("modules")).map_err(KernelsError::io(&installed))?;
    fs::remove_dir_all(&root).map_err(KernelsError::io(&root))
}

/// Copies a modules directory of this host to where [`index`] looks for it.
///
/// Links are not followed: `build` and `source` lead to whole kernel trees.
///
/// # Errors
/// The directory cannot be read or the copy not written.
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

/// Copies one file. Which of the two a failure belongs to is told apart, for the person has to mend that one.
///
/// # Errors
/// The source cannot be read, or the disk of the copy is full.
pub(super) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).map_err(|error| match KernelsError::io(to)(error) {
        KernelsError::Io { error, .. } => KernelsError::io(from)(error),
        full => full,
    })
}
