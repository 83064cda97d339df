//! Uses programs of the distribution without installing them: a set of packages with all dependencies, including the C
//! library, is unpacked into the cache.
//! This does not change the host, needs no root and cannot conflict with installed packages. A small script starts each
//! program of a set with the set's own loader and libraries, independent of the host's C library. A directory's name
//! contains a hash of its content; it is put in place by one rename and found through a link.

mod archive;
mod assumed;
mod sets;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use archive::{Archive, File};
pub use sets::{ARM64, ARM64_LIBRARIES, BPF, CLANG, ELF, PASST, PackageSet, QEMU, SHELL, SLURM, SUITES};

use super::error::SetupError;
use super::progress::Progress;
use lab_base::interrupt::Interrupt;
use lab_base::process;
use lab_base::programs::BIN;
use lab_kernel_store::KernelsError;
use sets::{ArchivePart, PrivateProgram, hex};

/// File with the list of packages; written last, so that a directory without it is incomplete.
const MANIFEST: &str = "packages.json";
/// Directories in packages that contain programs.
const PROGRAMS: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];
/// Directories in packages that contain libraries. udevadm names systemd's own by their directory on an installed system.
const LIBRARIES: [&str; 3] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/systemd"];
const LOADER: &str = "ld-linux-x86-64.so.2";
/// Number of bytes at the start of a program that contain the loader's name.
const HEADERS: usize = 4096;
/// Paths to remove: documentation, and files that only an installed package needs.
const PRUNED: [&str; 6] =
    ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "var"];
/// Number of packages that are unpacked in parallel.
const WORKERS: usize = 2;

/// A package of an unpacked set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    sha256: String,
}

/// An unpacked set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnpackedSet {
    root: PathBuf,
}

impl UnpackedSet {
    /// The directory with the packages' files.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the start scripts, for `PATH`.
    pub fn bin(&self) -> PathBuf {
        self.root.join(BIN)
    }

    /// Path of a program's start script.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin().join(name)
    }

    /// The directories of its libraries.
    pub fn libraries(&self) -> Vec<PathBuf> {
        LIBRARIES.iter().map(|dir| self.root.join(dir)).filter(|dir| dir.is_dir()).collect()
    }

    /// Writes a script that starts a program from outside the set with this set's loader and libraries.
    ///
    /// # Errors
    /// The set has no loader, or the disk is full.
    pub fn script_for(&self, script: &Path, program: &Path, more: &[PathBuf]) -> Result<(), SetupError> {
        let libraries = self.libraries();
        let loader = libraries.iter().map(|dir| dir.join(LOADER)).find(|path| path.is_file());
        let loader = loader.ok_or_else(|| SetupError::NotInPackages {
            what: LOADER.to_owned(),
            packages: self.root.display().to_string(),
        })?;
        let libraries: Vec<_> = libraries.iter().chain(more).map(|dir| dir.display().to_string()).collect();
        let text = format!(
            "#!/bin/sh\nexec \"{}\" --library-path \"{}\" \"{}\" \"$@\"\n",
            loader.display(),
            libraries.join(":"),
            program.display()
        );
        executable(script, &text)
    }

    /// Its packages with their versions.
    pub fn versions(&self) -> BTreeMap<String, String> {
        let text = fs::read(self.root.join(MANIFEST)).unwrap_or_default();
        let packages: Vec<Package> = serde_json::from_slice(&text).unwrap_or_default();
        packages.into_iter().map(|package| (package.name, package.version)).collect()
    }
}

impl PackageSet {
    /// The set below the directory of tools, if it is there.
    pub fn find(&self, tools: &Path) -> Option<UnpackedSet> {
        let link = tools.join(self.name);
        let target = fs::read_link(&link).ok()?;
        let current = target.to_str().is_some_and(|name| name.starts_with(&self.prefix()));
        (current && link.join(MANIFEST).is_file()).then_some(UnpackedSet { root: link })
    }

    /// Downloads and unpacks the set into `stage`, a directory beside its place, and puts it in place.
    ///
    /// # Errors
    /// The download or a write failed, or a package does not match the archive's signed index.
    pub fn install(
        &self,
        tools: &Path,
        stage: tempfile::TempDir,
        host: Option<&str>,
        progress: &mut Progress<'_>,
    ) -> Result<(), SetupError> {
        let mut archive = Archive::open(&tools.join("apt"), self, host)?;
        let files = archive.resolve(self)?;
        let debs = archive.download(self, &files, progress)?;
        unpack(&debs, stage.path(), progress)?;
        self.parts.iter().try_for_each(|part| part.unpack(stage.path()))?;
        self.finish(&files, stage.path())?;
        let name = self.prefix() + &content(&files);
        put_in_place(tools, self.name, &name, stage)
    }

    /// Removes unneeded files, writes the start scripts and the list of packages.
    fn finish(&self, files: &[File], root: &Path) -> Result<(), SetupError> {
        for path in PRUNED.iter().chain(self.prune).map(|path| root.join(path)).filter(|path| path.exists()) {
            fs::remove_dir_all(&path).map_err(SetupError::io(&path))?;
        }
        drop_privileges(root)?;
        let bin = root.join(BIN);
        fs::create_dir_all(&bin).map_err(SetupError::io(&bin))?;
        for program in self.programs {
            program.script(self, root)?;
        }
        let packages = files.iter().map(|file| {
            let (name, version) = file.package();
            Package { name: name.to_owned(), version, sha256: file.sha256.clone() }
        });
        let packages: Vec<Package> = packages.collect();
        let manifest = root.join(MANIFEST);
        let text = serde_json::to_string_pretty(&packages).unwrap_or_default();
        fs::write(&manifest, text).map_err(SetupError::io(&manifest))
    }
}

impl ArchivePart {
    /// Replaces the archive by the files that are kept.
    fn unpack(&self, root: &Path) -> Result<(), SetupError> {
        let archive = root.join(self.archive);
        let place = archive.parent().unwrap_or(root);
        let fixed = ["--no-same-owner".as_ref(), "-C".as_ref(), place.as_os_str(), "-xf".as_ref(), archive.as_os_str()];
        let words = fixed.into_iter().chain(self.keep.iter().map(AsRef::as_ref));
        process::capture(&format!("tar -xf {}", self.archive), "tar", process::command("tar", words))?;
        fs::remove_file(&archive).map_err(SetupError::io(&archive))
    }
}

impl PrivateProgram {
    /// Writes the script that starts the program with the set's own loader and libraries.
    /// The loader is started through a second name in the program's directory: programs find their files relative to
    /// `/proc/self/exe`, and the lab recognises QEMU by the name of its process.
    fn script(&self, set: &PackageSet, root: &Path) -> Result<(), SetupError> {
        let missing = |what: &str| SetupError::NotInPackages { what: what.to_owned(), packages: set.roots.join(", ") };
        let mut places = self.path.map(str::to_owned).into_iter();
        let mut usual = PROGRAMS.iter().map(|dir| format!("{dir}/{}", self.name));
        let place = places.next().or_else(|| usual.find(|place| root.join(place).exists()));
        let place = place.filter(|place| root.join(place).exists()).ok_or_else(|| missing(self.name))?;
        let link = root.join(BIN).join(self.name);
        let program = root.join(&place);
        if is_static(&program)? {
            return symlink(format!("../{place}"), &link).map_err(SetupError::io(&link));
        }
        let loader = LIBRARIES.iter().map(|dir| root.join(dir).join(LOADER)).find(|path| path.is_file());
        let loader = loader.ok_or_else(|| missing(LOADER))?;
        let named = root.join(format!("{place}.loader"));
        // Two programs may be one file with other arguments.
        if !named.exists() {
            fs::hard_link(&loader, &named).map_err(SetupError::io(&named))?;
        }
        let of_root = |word: &str| word.replace("{root}", "$root");
        let variable = self.variable.map(|(name, value)| format!("export {name}=\"{}\"\n", of_root(value)));
        let arguments: String = self.arguments.iter().map(|word| format!(" \"{}\"", of_root(word))).collect();
        let libraries = LIBRARIES.map(|dir| format!("$root/{dir}")).join(":");
        let text = format!(
            "#!/bin/sh\nroot=${{0%/*}}/..\n{variable}exec \"$root/{place}.loader\" --argv0 {name} --library-path \"{libraries}\" \\\n  \
             \"$root/{place}\"{arguments} \"$@\"\n",
            name = self.name,
            variable = variable.unwrap_or_default(),
        );
        executable(&link, &text)
    }
}

fn executable(path: &Path, text: &str) -> Result<(), SetupError> {
    fs::write(path, text).map_err(SetupError::io(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(SetupError::io(path))
}

/// Whether a program needs no loader (is statically linked).
fn is_static(program: &Path) -> Result<bool, SetupError> {
    let bytes = fs::read(program).map_err(SetupError::io(program))?;
    Ok(!bytes[..bytes.len().min(HEADERS)].windows(LOADER.len()).any(|window| window == LOADER.as_bytes()))
}

/// A directory name that depends on the packages.
fn content(files: &[File]) -> String {
    let mut sums: Vec<&str> = files.iter().map(|file| &*file.sha256).collect();
    sums.sort_unstable();
    let mut hash = Sha256::new();
    sums.iter().for_each(|sum| hash.update(sum));
    hex(hash, 6)
}

fn unpack(debs: &[PathBuf], root: &Path, progress: &mut Progress<'_>) -> Result<(), SetupError> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<(), SetupError> {
        while let Some(deb) = debs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let args = ["-x".as_ref(), deb.as_os_str(), root.as_os_str()];
            process::capture("dpkg-deb -x", "dpkg", process::command("dpkg-deb", args))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            progress.count("unpacking package", next.load(Ordering::Relaxed).min(debs.len()), debs.len());
            thread::sleep(process::POLL);
        }
        for worker in workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        match Interrupt::raised() {
            Some(_) => Err(KernelsError::Interrupted { what: "unpacking packages".into() }.into()),
            None => Ok(()),
        }
    })
}

/// Clears set-user-ID bits, and makes all files removable by their owner.
fn drop_privileges(root: &Path) -> Result<(), SetupError> {
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.map_err(|error| SetupError::Io { path: root.to_owned(), cause: error.into() })?;
        let kind = entry.file_type();
        if kind.is_symlink() {
            continue;
        }
        let path = entry.path();
        let mode = entry.metadata().map_err(|error| SetupError::Io { path: path.to_owned(), cause: error.into() })?;
        let mode = mode.permissions().mode() & 0o7777;
        let wanted = mode & 0o777 | if kind.is_dir() { 0o700 } else { 0o600 };
        if mode != wanted {
            fs::set_permissions(path, fs::Permissions::from_mode(wanted)).map_err(SetupError::io(path))?;
        }
    }
    Ok(())
}

/// Renames the stage to its final name, points the link at it, and removes older directories.
fn put_in_place(tools: &Path, link: &str, name: &str, stage: tempfile::TempDir) -> Result<(), SetupError> {
    let place = tools.join(name);
    if place.exists() {
        fs::remove_dir_all(&place).map_err(SetupError::io(&place))?;
    }
    fs::set_permissions(stage.path(), fs::Permissions::from_mode(0o755)).map_err(SetupError::io(stage.path()))?;
    fs::rename(stage.keep(), &place).map_err(SetupError::io(&place))?;
    let new = tools.join(format!("build-{link}"));
    let _ = fs::remove_file(&new);
    symlink(name, &new).map_err(SetupError::io(&new))?;
    let link_path = tools.join(link);
    fs::rename(&new, &link_path).map_err(SetupError::io(&link_path))?;
    for entry in fs::read_dir(tools).map_err(SetupError::io(tools))?.flatten() {
        let other = entry.file_name().to_string_lossy().into_owned();
        let predecessor = other.strip_prefix(link).is_some_and(|rest| rest.starts_with('-')) && other != name;
        if predecessor && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir_all(entry.path()).map_err(SetupError::io(entry.path()))?;
        }
    }
    Ok(())
}
