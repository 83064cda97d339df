//! The project's own objects, of which it is known what each does on which kernel: compiled from sources that only a checkout has, with
//! the clang that `make setup-tests` provides.

use crate::{error::Error, setup::Tools};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where the sources are in a checkout.
pub const SOURCES: &str = "lab/tests/check/corpus";

/// Compiles a source.
///
/// # Errors
/// There is no clang, or it does not compile.
pub fn compile(source: &Path, object: &Path, cache: &Path) -> Result<(), Error> {
    let compiler = Tools::in_cache(cache).bpf_compiler();
    let mut clang = Command::new(&compiler.clang);
    clang.args(compiler.arguments()).args(["-mcpu=v3", "-Wall", "-Wno-unused-function"]);
    clang.arg(source).arg("-o").arg(object);
    let done = clang.output().map_err(|error| {
        Error::Host(format!("can't start {}: {error}; `lab setup --tests` provides a clang", compiler.clang.display()))
    })?;
    if done.status.success() {
        return Ok(());
    }
    Err(Error::Host(format!("{} does not compile: {}", source.display(), String::from_utf8_lossy(&done.stderr))))
}

/// Compiles the sources of a directory into another one, and copies what `check.toml` files they have. Returns the objects in the order
/// of their names.
///
/// # Errors
/// As [`compile`]; a directory can't be read or written.
pub fn compile_all(sources: &Path, to: &Path, cache: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut objects = Vec::new();
    for entry in fs::read_dir(sources).map_err(Error::file("read", sources))? {
        let path = entry.map_err(Error::file("read", sources))?.path();
        let place = to.join(path.file_name().unwrap_or_default());
        match path.extension().and_then(|kind| kind.to_str()) {
            Some("c") => {
                let object = place.with_extension("o");
                compile(&path, &object, cache)?;
                objects.push(object);
            }
            _ => drop(fs::copy(&path, &place).map_err(Error::file("copy", &path))?),
        }
    }
    objects.sort();
    Ok(objects)
}
