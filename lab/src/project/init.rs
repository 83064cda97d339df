//! `lab init`: the files of a new project.

use super::{KERNELS_LOCK, KERNELS_TOML, LOCAL_LOCK, LOCAL_TOML, home::Home};
use crate::{
    error::Error,
    lists::{KNOWN_TOML, SPLATS_TOML},
};
use lab_base::{file::replace, strict_toml::Origin};
use lab_kernel_store::KernelsLock;
use lab_report::results::LAB_TOML;
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};
use toml_edit::{DocumentMut, Item};

/// Files that are copied as they are.
const AS_THEY_ARE: [&str; 3] = [LAB_TOML, KNOWN_TOML, SPLATS_TOML];
const GITIGNORE: &str = ".gitignore";
/// Keys of a variant by which it is compiled.
const COMPILED: [&str; 3] = ["fragment", "selftests", "modules"];
/// What the default kernels are followed by.
const OWN: &str = "\n\
# --- kernels of your own, here or in kernels.local.toml, which git ignores -----------------------------------------------\n\
#\n\
# [kernels.mine]\n\
# class = \"mine\"\n\
# source.path = { tree = \"/home/me/linux\" }\n";

/// A project's files as they will be.
struct Files {
    /// Names and contents.
    files: Vec<(&'static str, Vec<u8>)>,
    lock: KernelsLock,
}

/// Writes the files of a new project, and returns their names. Without `force` none of them may exist but `.gitignore`, to
/// which lines are added.
///
/// # Errors
/// A file exists, or can't be read or written.
pub fn init(directory: &Path, force: bool) -> Result<Vec<String>, Error> {
    let Files { files, lock } = files(Home::of(directory).defaults())?;
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).chain([KERNELS_LOCK]).collect();
    let there: Vec<&str> = names.iter().copied().filter(|name| directory.join(name).exists()).collect();
    if !force && !there.is_empty() {
        let there = there.join(", ");
        return Err(Error::Usage(format!(
            "{} has {there} already; `lab init --force` replaces what is there",
            directory.display()
        )));
    }
    let ignored = ignoring(&directory.join(GITIGNORE))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        replace(&path, bytes).map_err(Error::file("write", path))
    };
    for (name, bytes) in &files {
        write(name, bytes)?;
    }
    lock.save(&directory.join(KERNELS_LOCK))?;
    if let Some(text) = &ignored {
        write(GITIGNORE, text.as_bytes())?;
    }
    Ok(names.into_iter().chain(ignored.map(|_| GITIGNORE)).map(str::to_owned).collect())
}

/// The lab's own files, with the default kernels alone: the others are there for its own tests and searches.
fn files(defaults: &Path) -> Result<Files, Error> {
    let read = |name: &str| {
        let path = defaults.join(name);
        fs::read_to_string(&path).map_err(Error::file("read", path))
    };
    let (matrix, ids) = default_kernels(&read(KERNELS_TOML)?, &defaults.join(KERNELS_TOML))?;
    let (lock, _) = KernelsLock::load(&defaults.join(KERNELS_LOCK))?.split(|id| ids.iter().any(|it| it == id));
    let mut files = vec![(KERNELS_TOML, matrix.into_bytes())];
    for name in AS_THEY_ARE {
        files.push((name, read(name)?.into_bytes()));
    }
    Ok(Files { files, lock })
}

/// The text with the kernels that run by default, and their ids.
fn default_kernels(text: &str, path: &Path) -> Result<(String, Vec<String>), Error> {
    let unusable = |why: String| Error::Host(format!("{}: {why}; install the lab again", path.display()));
    let file = path.display().to_string();
    let origin = Origin { file: &file, text };
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        Error::Host(format!("{}; install the lab again", origin.syntax(&error)))
    })?;
    let kernels = document.get_mut("kernels").and_then(|item| item.as_table_mut());
    let kernels = kernels.ok_or_else(|| unusable("it has no kernels".to_owned()))?;
    kernels.retain(|_, kernel| kernel.get("default").and_then(|it| it.as_bool()) == Some(true));
    // Variants that are compiled have files in this directory, and entries of their own in the lock.
    let is_compiled = |variant: &Item| COMPILED.iter().any(|key| variant.get(key).is_some());
    for (_, kernel) in kernels.iter_mut() {
        if let Some(variants) = kernel.get_mut("variants").and_then(|item| item.as_table_mut()) {
            variants.retain(|_, variant| !is_compiled(variant));
        }
    }
    let ids = kernels.iter().map(|(id, _)| id.to_owned()).collect();
    document.set_trailing(OWN);
    Ok((document.to_string(), ids))
}

/// `.gitignore` with the lines that a project needs; `None` if it has them.
fn ignoring(path: &PathBuf) -> Result<Option<String>, Error> {
    let mut text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    let wanted = ["/results/".to_owned(), format!("/{LOCAL_TOML}"), format!("/{LOCAL_LOCK}")];
    let missing: Vec<&String> = wanted.iter().filter(|&line| !text.lines().any(|it| it.trim() == line)).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    missing.iter().for_each(|line| text.extend([line.as_str(), "\n"]));
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_kernel_store::KernelMatrix;

    #[test]
    fn a_new_project_has_the_default_kernels_with_their_comments() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(GITIGNORE), "/target").unwrap();
        let written = init(dir.path(), false).unwrap();
        assert_eq!(written, ["kernels.toml", "lab.toml", "known.toml", "splats.toml", "kernels.lock", ".gitignore"]);
        let config = KernelMatrix::load(&dir.path().join(KERNELS_TOML)).unwrap();
        let lock = KernelsLock::load(&dir.path().join(KERNELS_LOCK)).unwrap();
        let (variants, kernels): (Vec<_>, Vec<_>) = config.kernels.iter().partition(|kernel| kernel.id.contains('+'));
        assert!(kernels.len() >= 3 && kernels.iter().all(|kernel| kernel.default));
        assert!(variants.iter().all(|variant| !variant.default), "they come with their kernels");
        assert!(config.kernels.iter().all(|kernel| lock.entry(kernel).is_ok()), "each is locked");
        let text = fs::read_to_string(dir.path().join(KERNELS_TOML)).unwrap();
        assert!(text.starts_with("# The kernels of the matrix.") && text.ends_with(OWN), "{text}");
        assert!(!text.contains("every version that Debian offers"), "{text}");
        let ignored = fs::read_to_string(dir.path().join(GITIGNORE)).unwrap();
        assert_eq!(ignored, "/target\n/results/\n/kernels.local.toml\n/kernels.local.lock\n");

        fs::write(dir.path().join(KERNELS_TOML), "mine").unwrap();
        let refused = init(dir.path(), false).unwrap_err().to_string();
        assert!(refused.contains("has kernels.toml, lab.toml") && refused.contains("--force"), "{refused}");
        assert_eq!(fs::read_to_string(dir.path().join(KERNELS_TOML)).unwrap(), "mine");
        init(dir.path(), true).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join(KERNELS_TOML)).unwrap(), text);
        assert_eq!(fs::read_to_string(dir.path().join(GITIGNORE)).unwrap(), ignored, "no line is added twice");
    }
}
