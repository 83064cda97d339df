//! Extracts only a kernel's files from a package's archive.

use super::names::is_file_name;
use lab_base::interrupt::Interrupt;
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

/// The files found so far in the archives of one kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UnpackedFiles {
    /// `uname -r`, from the file names.
    releases: Vec<String>,
    image: bool,
}

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The archive is damaged or hostile.
    #[error("{0}")]
    Archive(String),
    /// A signal was received.
    #[error("unpacking was stopped")]
    Stopped,
    /// Writing failed; the archive is not at fault.
    #[error("{0}")]
    Disk(io::Error),
}

impl UnpackedFiles {
    /// Extracts `vmlinuz`, `config` and `root/lib/modules/<release>/…` from a tar stream into `stage`.
    ///
    /// Every name is rebuilt from plain components below `stage`, every file is newly created, and no link is created, so
    /// that nothing can be written elsewhere. Modes and owners in the archive are ignored.
    ///
    /// # Errors
    /// An entry has a path outside of the directory, is a link, or occurs twice, or the stream is damaged.
    pub fn add(&mut self, stream: impl Read, stage: &Path) -> Result<(), Refusal> {
        let damaged = |error: io::Error| Refusal::Archive(format!("is damaged ({error})"));
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries().map_err(damaged)? {
            let mut entry = entry.map_err(damaged)?;
            if Interrupt::raised().is_some() {
                return Err(Refusal::Stopped);
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let Some((release, place)) = place(&name)? else { continue };
            let kind = entry.header().entry_type();
            // Headers packages have `build` and `source` links beside the modules, which point outside of the package.
            if kind.is_dir() || (kind.is_symlink() && (name.ends_with("/build") || name.ends_with("/source"))) {
                continue;
            }
            if !kind.is_file() {
                return Err(Refusal::Archive(format!("`{}` is a link or a special file", name.escape_debug())));
            }
            self.image |= place == Path::new("vmlinuz");
            if !self.releases.contains(&release) {
                self.releases.push(release);
            }
            let path = stage.join(&place);
            path.parent().map_or(Ok(()), fs::create_dir_all).map_err(Refusal::Disk)?;
            let mut file = match File::create_new(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(Refusal::Archive(format!("`{}` is there twice", name.escape_debug())));
                }
                Err(error) => return Err(Refusal::Disk(error)),
            };
            copy(&mut entry, &mut file)?;
        }
        // The stream ends after the archive, and only its end has the exit status of dpkg-deb.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
        Ok(())
    }

    /// The release of the kernel in the archives.
    ///
    /// # Errors
    /// There is no kernel, or more than one.
    pub fn release(self) -> Result<String, Refusal> {
        match (<[String; 1]>::try_from(self.releases), self.image) {
            (Ok([release]), true) => Ok(release),
            (Err(releases), true) if !releases.is_empty() => {
                Err(Refusal::Archive(format!("has several kernels: {}", releases.join(", "))))
            }
            _ => Err(Refusal::Archive("has no boot/vmlinuz-*: not a kernel package".into())),
        }
    }
}

/// Copies data; distinguishes read errors (of the archive) from write errors (of the disk).
fn copy(from: &mut impl Read, to: &mut impl io::Write) -> Result<(), Refusal> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read]).map_err(Refusal::Disk)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Refusal::Archive(format!("is damaged ({error})"))),
        }
    }
}

/// Release and target path of a kernel's file; `None` for other entries.
fn place(name: &str) -> Result<Option<(String, PathBuf)>, Refusal> {
    let mut parts = Vec::new();
    for component in Path::new(name).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str().unwrap_or_default()),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(Refusal::Archive(format!("`{}` leaves the directory", name.escape_debug())));
            }
        }
    }
    let parts = parts.strip_prefix(&["usr"]).unwrap_or(&parts);
    let (release, place) = match parts {
        ["boot", file] => match file.split_once('-') {
            Some(("vmlinuz", release)) => (release, PathBuf::from("vmlinuz")),
            Some(("config", release)) => (release, PathBuf::from("config")),
            _ => return Ok(None),
        },
        // Split kernels have these files beside the modules.
        ["lib", "modules", release, file @ ("vmlinuz" | "config")] => (*release, PathBuf::from(file)),
        ["lib", "modules", release, rest @ ..] if !rest.is_empty() => {
            (*release, ["root", "lib", "modules", release].iter().chain(rest).collect())
        }
        _ => return Ok(None),
    };
    if !is_file_name(release) {
        return Err(Refusal::Archive(format!("{release:?} is not a kernel release")));
    }
    Ok(Some((release.to_owned(), place)))
}

#[cfg(test)]
#[path = "untar_tests.rs"]
mod tests;
