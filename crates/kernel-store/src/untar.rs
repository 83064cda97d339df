//! Extracts only a kernel's files from a package's archive.

use super::{error::KernelsError, names::is_file_name};
use lab_base::interrupt::Interrupt;
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

/// Maximum bytes of an archive, unpacked. The largest kernels of Debian have 0.2 GiB.
const MOST_BYTES: u64 = 2 << 30;
/// Maximum entries of an archive. The largest kernels of Debian have 4300 files.
pub(super) const MOST_ENTRIES: usize = 100_000;
/// Maximum bytes of a name, and of a header with records.
pub(super) const MOST_NAME: u64 = 16 << 10;

/// The files found so far in the archives of one kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UnpackedFiles {
    /// `uname -r`, from the file names.
    releases: Vec<String>,
    image: bool,
    /// Bytes of all files.
    written: u64,
}

/// What an entry of an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Directory,
    /// A symbolic link.
    Link,
    /// A file that the archive does not have as a whole.
    Sparse,
    /// A device, a hard link or another entry without content.
    Special,
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
    /// Every name is rebuilt from plain components below `stage`, every file is newly created, and no link is created,
    /// so that nothing can be written elsewhere. Modes and owners in the archive are ignored.
    ///
    /// # Errors
    /// An entry has a path outside of the directory, is a link, or occurs twice, or the stream is damaged.
    pub fn add(&mut self, stream: impl Read, stage: &Path) -> Result<(), Refusal> {
        self.add_renamed(stream, stage, |name| name)
    }

    /// The same for an archive that has the files in another place: `rename` returns the name that a package would have.
    ///
    /// # Errors
    /// As for [`Self::add`].
    pub fn add_renamed(
        &mut self,
        stream: impl Read,
        stage: &Path,
        rename: impl Fn(&str) -> &str,
    ) -> Result<(), Refusal> {
        entries(stream, |name, entry| {
            let kind = match entry.header().entry_type() {
                kind if kind.is_dir() => EntryKind::Directory,
                kind if kind.is_symlink() => EntryKind::Link,
                kind if kind.is_gnu_sparse() => EntryKind::Sparse,
                kind if kind.is_file() => EntryKind::File,
                _ => EntryKind::Special,
            };
            self.take(rename(name), kind, entry, stage)?;
            Ok(true)
        })
    }

    /// Extracts one entry of an archive, if it is a kernel's.
    ///
    /// # Errors
    /// As for [`Self::add`].
    pub fn take(&mut self, name: &str, kind: EntryKind, content: &mut impl Read, stage: &Path) -> Result<(), Refusal> {
        if removes_a_kernel(name) {
            return Err(Refusal::Archive(format!("`{}` removes files of another layer", name.escape_debug())));
        }
        let Some((release, place)) = place(name)? else { return Ok(()) };
        match kind {
            EntryKind::Directory => return Ok(()),
            // Headers packages have `build` and `source` links beside the modules, which point outside of the package.
            EntryKind::Link if name.ends_with("/build") || name.ends_with("/source") => return Ok(()),
            EntryKind::Sparse => return Err(Refusal::Archive(format!("`{}` is a sparse file", name.escape_debug()))),
            EntryKind::Link | EntryKind::Special => {
                return Err(Refusal::Archive(format!("`{}` is a link or a special file", name.escape_debug())));
            }
            EntryKind::File => {}
        }
        self.image |= place == Path::new("vmlinuz");
        if let Some(release) = release
            && !self.releases.contains(&release)
        {
            self.releases.push(release);
        }
        let path = stage.join(&place);
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(Refusal::Disk)?;
        let mut file = match File::create_new(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Refusal::Archive(format!("`{}` occurs twice", name.escape_debug())));
            }
            Err(error) => return Err(Refusal::Disk(error)),
        };
        // Layers of an image are archives of their own.
        self.written = self.written.saturating_add(copy(content, &mut file)?);
        if self.written > MOST_BYTES { Err(damaged(io::ErrorKind::FileTooLarge.into())) } else { Ok(()) }
    }

    /// Whether there is an image and no name of a file tells its release.
    pub fn is_nameless(&self) -> bool {
        self.image && self.releases.is_empty()
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

/// Unpacks the modules of one kernel, `lib/modules/<release>/…` as `make modules_install` makes it, compressed or not, into a new
/// directory. Other files are left out. Returns the modules' directory.
///
/// # Errors
/// The archive is damaged or hostile, or has no modules or those of several kernels.
pub fn unpack_modules(archive: &Path, stage: &Path) -> super::Result<PathBuf> {
    let name = archive.display().to_string();
    fs::create_dir(stage).map_err(KernelsError::io(stage))?;
    let mut found = UnpackedFiles::default();
    let packed = lab_guard::bounded::open(archive).map_err(KernelsError::io(archive))?;
    let unpacked = super::compressed::decompressed(io::BufReader::new(packed)).map_err(KernelsError::io(archive))?;
    found.add(unpacked, stage).map_err(|refusal| refused(refusal, &name, stage))?;
    match &found.releases[..] {
        [release] => Ok(stage.join("root/lib/modules").join(release)),
        [] => Err(KernelsError::Archive { archive: name, reason: "has no lib/modules".to_owned() }),
        several => {
            let reason = format!("has modules of several kernels: {}", several.join(", "));
            Err(KernelsError::Archive { archive: name, reason })
        }
    }
}

/// The error for an archive that was refused while its files were written to `stage`.
pub(super) fn refused(refusal: Refusal, archive: &str, stage: &Path) -> KernelsError {
    match refusal {
        Refusal::Disk(error) => KernelsError::io(stage)(error),
        Refusal::Stopped => KernelsError::Interrupted { what: format!("unpacking {archive}") },
        Refusal::Archive(reason) => KernelsError::Archive { archive: archive.to_owned(), reason },
    }
}

/// An archive with the number of bytes that may still be read from it.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R> Bounded<R> {
    /// A stream of an unpacked archive.
    pub fn new(inner: R) -> Self {
        Self { inner, left: MOST_BYTES }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(read)
    }
}

pub(super) fn damaged(error: io::Error) -> Refusal {
    Refusal::Archive(match error.kind() {
        io::ErrorKind::FileTooLarge => format!("unpacks to more than {} GiB", MOST_BYTES >> 30),
        _ => format!("is damaged ({error})"),
    })
}

/// Passes every file, directory and link of a tar stream with its name to `take`, until that returns false.
///
/// The headers are read here, not by the crate `tar`, which reads a name of any length into memory.
///
/// # Errors
/// The stream is damaged or exceeds a limit, a signal was received, or `take` fails.
pub(super) fn entries<R: Read>(
    stream: R,
    mut take: impl FnMut(&str, &mut tar::Entry<'_, Bounded<R>>) -> Result<bool, Refusal>,
) -> Result<(), Refusal> {
    let mut archive = tar::Archive::new(Bounded::new(stream));
    let mut long = None;
    for (number, entry) in archive.entries().map_err(damaged)?.raw(true).enumerate() {
        let mut entry = entry.map_err(damaged)?;
        if Interrupt::raised().is_some() {
            return Err(Refusal::Stopped);
        }
        if number >= MOST_ENTRIES {
            return Err(Refusal::Archive(format!("has more than {MOST_ENTRIES} entries")));
        }
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() || kind.is_pax_local_extensions() {
            let mut text = Vec::new();
            (&mut entry).take(MOST_NAME + 1).read_to_end(&mut text).map_err(damaged)?;
            if text.len() as u64 > MOST_NAME {
                return Err(Refusal::Archive(format!("has a name of more than {} KiB", MOST_NAME >> 10)));
            }
            long = if kind.is_gnu_longname() { Some(text) } else { path_in(&text)?.or(long) };
        } else if !kind.is_gnu_longlink() && !kind.is_pax_global_extensions() {
            let name = long.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            if !take(&String::from_utf8_lossy(name), &mut entry)? {
                return Ok(());
            }
        }
    }
    // The stream ends after the archive, and only its end has the exit status of dpkg-deb.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
    Ok(())
}

/// The path in the records of a pax header.
fn path_in(records: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    let mut path = None;
    for record in tar::PaxExtensions::new(records) {
        let record = record.map_err(damaged)?;
        match record.key_bytes() {
            b"path" => path = Some(record.value_bytes().to_owned()),
            // The size of the header would not hold.
            b"size" => return Err(Refusal::Archive("has a file of more than 8 GiB".into())),
            key if key.starts_with(b"GNU.sparse") => return Err(Refusal::Archive("has a sparse file".into())),
            _ => {}
        }
    }
    Ok(path)
}

/// Copies data and returns its length; distinguishes read errors (of the archive) from write errors (of the disk).
fn copy(from: &mut impl Read, to: &mut impl io::Write) -> Result<u64, Refusal> {
    let mut buffer = vec![0; 128 * 1024];
    let mut copied = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(read) => {
                to.write_all(&buffer[..read]).map_err(Refusal::Disk)?;
                copied += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(damaged(error)),
        }
    }
}

/// Whether an entry of a layer hides what earlier layers have in the places of a kernel's files (OCI image specification,
/// layer.md, "Whiteouts"). It would have to be carried out; no image with a kernel needs it.
fn removes_a_kernel(name: &str) -> bool {
    const PLACES: [&str; 3] = ["boot", "lib/modules", "usr/lib/modules"];
    let name = Path::new(name.trim_start_matches("./").trim_start_matches('/'));
    let Some(hidden) = name.file_name().and_then(|file| file.to_str()?.strip_prefix(".wh.")) else { return false };
    let hidden = if hidden == ".opq" { name.with_file_name("") } else { name.with_file_name(hidden) };
    PLACES.iter().any(|place| hidden.starts_with(place) || Path::new(place).starts_with(&hidden))
}

/// Release, where the name has it, and target path of a kernel's file; `None` for other entries.
fn place(name: &str) -> Result<Option<(Option<String>, PathBuf)>, Refusal> {
    let mut parts = Vec::new();
    for component in Path::new(name).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str().unwrap_or_default()),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(Refusal::Archive(format!("`{}` is outside of the directory", name.escape_debug())));
            }
        }
    }
    let parts = parts.strip_prefix(&["usr"]).unwrap_or(&parts);
    let (release, place) = match parts {
        // An image of a container, which has one kernel only.
        ["boot", file @ ("vmlinuz" | "config")] => return Ok(Some((None, PathBuf::from(file)))),
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
    Ok(Some((Some(release.to_owned()), place)))
}

#[cfg(test)]
#[path = "untar_tests.rs"]
mod tests;
