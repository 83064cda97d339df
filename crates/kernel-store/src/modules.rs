//! The `modules/` directory of an unpacked kernel: a `lib/modules/<release>` with a new `modules.dep`.

use super::{
    error::{KernelsError, Result},
    files,
};
use lab_base::process;
use lab_image::{ImageError, ModuleList, Profile};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Maximum number of modules in an error.
const NAMED: usize = 3;

/// Indexes `<stage>/root/lib/modules/<release>` and moves it to `<stage>/modules`.
///
/// Debian's packages contain no `modules.dep`: their maintainer script creates it on the host. The directory must not
/// be named `lib/modules/<release>` beside the image, since vng would then try to build an initramfs of the host.
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
    // A depmod that was built without zstd lists such modules, but without what they depend on.
    let packed = modules_in(&installed)?.into_iter().map(|(_, path)| path);
    let packed: Vec<PathBuf> = packed.filter(|path| path.extension() == Some("zst".as_ref())).collect();
    unpack(&installed, &packed)?;
    depmod(&root, release)?;
    let unknown = not_indexed(&installed)?;
    if !unknown.is_empty() {
        // depmod silently ignores files in compression formats that it was built without. Guests get uncompressed
        // modules anyway.
        unpack(&installed, &unknown)?;
        depmod(&root, release)?;
    }
    let lost = not_indexed(&installed)?;
    if !lost.is_empty() {
        let inside = |path: &PathBuf| path.strip_prefix(&installed).unwrap_or(path).display().to_string();
        let names: Vec<String> = lost.iter().take(NAMED).map(inside).collect();
        let reason = format!(
            "depmod does not index {} of its {} modules ({}{}): build or copy them again",
            lost.len(),
            modules_in(&installed)?.len(),
            names.join(", "),
            if lost.len() > NAMED { ", …" } else { "" }
        );
        return Err(KernelsError::BadKernel { path: "modules".into(), reason });
    }
    check_release(&installed, release)?;
    fs::rename(&installed, stage.join("modules")).map_err(KernelsError::io(&installed))?;
    fs::remove_dir_all(&root).map_err(KernelsError::io(&root))
}

fn depmod(root: &Path, release: &str) -> Result<()> {
    let arguments = ["-b".as_ref(), root.as_os_str(), release.as_ref()];
    process::capture("depmod", "kmod", process::command("depmod", arguments))?;
    Ok(())
}

/// The module files of a directory, each with the name of its module.
fn modules_in(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let name = |file: PathBuf| Some((lab_image::name_of(file.file_name()?.to_str()?)?, dir.join(file)));
    Ok(files::of_modules(dir)?.into_iter().filter_map(name).collect())
}

fn index_of(dir: &Path) -> Result<lab_image::Index> {
    let path = dir.join("modules.dep");
    let text = fs::read_to_string(&path).map_err(KernelsError::io(&path))?;
    lab_image::Index::parse_dep(&text)
        .map_err(|error| KernelsError::BadKernel { path, reason: format!("{error}: install the modules again") })
}

/// Module files whose module is not in `modules.dep`. If several files have the same name, depmod uses one of them.
fn not_indexed(dir: &Path) -> Result<Vec<PathBuf>> {
    let index = index_of(dir)?;
    Ok(modules_in(dir)?.into_iter().filter(|(name, _)| !index.lists(name)).map(|(_, path)| path).collect())
}

/// Creates an error about a module with its path in the original modules directory, which is the one that the user
/// knows.
fn bad_module(dir: &Path, error: ImageError) -> KernelsError {
    match error {
        ImageError::Module { path, problem } => KernelsError::BadKernel {
            path: path.strip_prefix(dir).unwrap_or(&path).to_owned(),
            reason: format!("{problem}: build or install the modules again"),
        },
        ImageError::Io { path, cause, .. } => KernelsError::io(path)(cause),
        other => KernelsError::BadKernel { path: dir.to_owned(), reason: other.to_string() },
    }
}

/// Decompresses modules in place.
fn unpack(dir: &Path, files: &[PathBuf]) -> Result<()> {
    for file in files.iter().filter(|file| file.extension().is_some_and(|suffix| suffix != "ko")) {
        let bytes = lab_image::read_module(file).map_err(|error| bad_module(dir, error))?;
        // Without the suffix of the compression.
        let to = file.with_extension("");
        fs::write(&to, bytes).map_err(KernelsError::io(&to))?;
        fs::remove_file(file).map_err(KernelsError::io(file))?;
    }
    Ok(())
}

/// Refuses modules of another kernel than the image: guests could not load them, and the kernel would seem to lack
/// their capabilities. Only modules that guests load are checked.
fn check_release(dir: &Path, release: &str) -> Result<()> {
    let index = index_of(dir)?;
    for path in ModuleList::committed(Profile::Suite).names().filter_map(|name| index.path(name)) {
        let path = dir.join(path);
        let of = lab_image::module_release(&path).map_err(|error| bad_module(dir, error))?;
        if let Some(of) = of.filter(|of| of != release) {
            let reason = format!(
                "is a module of kernel {of}, but the image is {release}: use image and modules of the same build, or build both again"
            );
            return Err(KernelsError::BadKernel { path: path.strip_prefix(dir).unwrap_or(&path).to_owned(), reason });
        }
    }
    Ok(())
}

/// Copies a modules directory of this host to where [`index`] looks for it.
///
/// Symbolic links are not followed: `build` and `source` point to whole kernel trees.
///
/// # Errors
/// The directory can't be read, or the copy can't be written.
pub(super) fn copy(from: &Path, stage: &Path, release: &str) -> Result<()> {
    let to = stage.join("root/lib/modules").join(release);
    let files = files::of_modules(from)?;
    let is_one = |file: &PathBuf| {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name == "modules.builtin" || lab_image::name_of(name).is_some()
    };
    if !files.iter().any(is_one) {
        let reason = "contains neither modules nor modules.builtin: use the kernel's lib/modules/<release>".to_owned();
        return Err(KernelsError::BadKernel { path: from.to_owned(), reason });
    }
    for file in files {
        let place = to.join(&file);
        place.parent().map_or(Ok(()), fs::create_dir_all).map_err(KernelsError::io(&place))?;
        copy_file(&from.join(file), &place)?;
    }
    Ok(())
}

/// Copies one file. The error names the file that failed, source or copy.
///
/// # Errors
/// The source can't be read, or the copy can't be written.
pub(super) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).map_err(|error| match KernelsError::io(to)(error) {
        KernelsError::Io { error, .. } => KernelsError::io(from)(error),
        full => full,
    })
}
