//! A shell and network tools, with the libraries that they are linked against: those of the host or, if the host lacks
//! one of them, those that `lab setup` has unpacked into the cache. They are never mixed, because a guest has one C
//! library.

use crate::{archive::CpioArchive, error::ImageError};
use lab_base::programs;
use lddtree::DependencyAnalyzer;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// Provides the basic tools; required.
const BUSYBOX: &str = "busybox";
/// The preferred shell if the host has it: busybox's shell prefers its own `ip` and `tc` applets to the programs.
const BASH: &str = "bash";
/// Optional programs, and their Debian packages. Programs that the host does not have are left out.
pub const PROGRAMS: [(&str, &str); 6] = [
    (BASH, "bash"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("ss", "iproute2"),
    ("bpftool", "bpftool"),
    ("tcpdump", "tcpdump"),
];
/// Directories with terminal descriptions (Debian's `ncurses-base`), relative to a root.
const TERMINALS: [&str; 2] = ["lib/terminfo", "usr/share/terminfo"];
/// Directories with programs in unpacked packages.
const PROGRAM_DIRECTORIES: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];
/// Directories with libraries in unpacked packages.
const LIBRARY_DIRECTORIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
/// Users of the guest: tcpdump drops root for the user `tcpdump`, which is also root in a guest.
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\ntcpdump:x:0:0:tcpdump:/:/bin/sh\n";
const GROUP: &str = "root:x:0:\n";

/// The tools for a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolbox {
    /// Programs and libraries by their path in the image.
    files: BTreeMap<String, Vec<u8>>,
    /// Names of busybox's applets.
    applets: Vec<String>,
    /// Programs of [`PROGRAMS`] that were not found.
    pub absent: Vec<&'static str>,
}

/// Source of the tools.
#[derive(Debug)]
enum Source {
    /// Installed on this host.
    Host,
    /// Packages unpacked below a root directory.
    Unpacked(PathBuf),
}

impl Source {
    /// The host's tools if the host has all of them, otherwise the unpacked ones.
    fn choose() -> Self {
        let complete =
            PROGRAMS.iter().map(|(name, _)| *name).chain([BUSYBOX]).all(|name| Self::Host.find(name).is_some());
        match programs::unpacked() {
            Some(root) if !complete => Self::Unpacked(root),
            _ => Self::Host,
        }
    }

    fn root(&self) -> &Path {
        match self {
            Self::Host => Path::new("/"),
            Self::Unpacked(root) => root,
        }
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        match self {
            Self::Host => programs::binary_on_host(program),
            Self::Unpacked(root) => {
                let places = PROGRAM_DIRECTORIES.iter().map(|dir| root.join(dir).join(program));
                places.into_iter().find(|path| path.is_file())
            }
        }
    }

    /// Path in the image of a file below the root.
    fn place(&self, path: &Path) -> String {
        path.strip_prefix(self.root()).unwrap_or(path).to_string_lossy().trim_start_matches('/').to_owned()
    }

    /// The libraries and the loader of a program: their paths in the image, and on the host.
    fn libraries(&self, program: &Path) -> Result<Vec<(String, PathBuf)>, ImageError> {
        let broken = |problem: &dyn std::fmt::Display| ImageError::Tool {
            path: program.to_owned(),
            problem: problem.to_string(),
        };
        let mut analyzer = DependencyAnalyzer::new(self.root().to_owned());
        if let Self::Unpacked(root) = self {
            analyzer = analyzer.library_paths(LIBRARY_DIRECTORIES.map(|dir| root.join(dir)).to_vec());
        }
        let tree = analyzer.analyze(program).map_err(|error| broken(&error))?;
        let mut found = Vec::new();
        for library in tree.libraries.into_values() {
            let real = library.realpath.ok_or_else(|| broken(&format!("{} is not installed", library.name)))?;
            found.push((self.place(&library.path), real));
        }
        if let Some(loader) = tree.interpreter {
            found.push((
                self.place(Path::new(&loader)),
                self.loader(&loader).ok_or_else(|| broken(&format!("no {loader}")))?,
            ));
        }
        Ok(found)
    }

    /// The loader named in programs: in unpacked packages `/lib64` may be `/usr/lib64`.
    fn loader(&self, named: &str) -> Option<PathBuf> {
        let named = named.trim_start_matches('/');
        let places = ["", "usr"].map(|dir| self.root().join(dir).join(named));
        places.into_iter().find(|path| path.is_file())
    }
}

/// A program of [`PROGRAMS`] and what it is linked against, each by the name that it is looked for by: the program first, then its
/// libraries and its loader. `None` if there is none. The host's comes before the unpacked one.
///
/// # Errors
/// [`ImageError::Tool`]: a library is missing.
pub fn tool_files(name: &str) -> Result<Option<Vec<(String, PathBuf)>>, ImageError> {
    let sources = [Some(Source::Host), programs::unpacked().map(Source::Unpacked)];
    for source in sources.into_iter().flatten() {
        if let Some(program) = source.find(name) {
            // A library's file may have another name than the one that programs have of it.
            let named =
                |(place, path): (String, PathBuf)| (place.rsplit('/').next().unwrap_or_default().to_owned(), path);
            let libraries = source.libraries(&program)?.into_iter().map(named);
            return Ok(Some([(name.to_owned(), program.clone())].into_iter().chain(libraries).collect()));
        }
    }
    Ok(None)
}

impl Toolbox {
    /// Collects the tools.
    ///
    /// # Errors
    /// [`ImageError::NoShell`] without a static busybox; [`ImageError::Io`] and [`ImageError::Tool`] for a program that
    /// can't be read.
    pub fn collect() -> Result<Self, ImageError> {
        Self::collect_from(&Source::choose())
    }

    fn collect_from(source: &Source) -> Result<Self, ImageError> {
        let busybox = source.find(BUSYBOX).ok_or(ImageError::NoShell { problem: "not found".to_owned() })?;
        let listed = std::process::Command::new(&busybox).arg("--list").output();
        let listed = listed.map_err(ImageError::io("busybox", &busybox))?;
        let applets = String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect();
        let mut toolbox = Self { files: BTreeMap::new(), applets, absent: Vec::new() };
        if !source.libraries(&busybox)?.is_empty() {
            return Err(ImageError::NoShell { problem: format!("{} is linked dynamically", busybox.display()) });
        }
        toolbox.add("bin/busybox", &busybox)?;
        for (name, _) in PROGRAMS {
            let Some(path) = source.find(name) else {
                toolbox.absent.push(name);
                continue;
            };
            toolbox.add(&format!("bin/{name}"), &path)?;
            for (place, library) in source.libraries(&path)? {
                if !toolbox.files.contains_key(&place) {
                    toolbox.add(&place, &library)?;
                }
            }
        }
        let terminals = TERMINALS.map(|dir| source.root().join(dir)).into_iter().find(|dir| dir.is_dir());
        let entries = terminals.map(walkdir::WalkDir::new).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| !entry.file_type().is_dir()) {
            toolbox.add(&source.place(entry.path()), entry.path())?;
        }
        Ok(toolbox)
    }

    /// Adds everything that affects an image to its key.
    pub(crate) fn digest(&self, mut add: impl FnMut(&[u8])) {
        for (path, bytes) in &self.files {
            add(path.as_bytes());
            add(bytes);
        }
        self.applets.iter().for_each(|applet| add(applet.as_bytes()));
        [PASSWD, GROUP].iter().for_each(|text| add(text.as_bytes()));
    }

    /// Writes the tools to an image that already has the directories `there`.
    pub(crate) fn pack(&self, archive: &mut CpioArchive, there: &[&str]) -> io::Result<()> {
        let mut known: BTreeSet<String> = there.iter().map(|path| (*path).to_owned()).collect();
        let mut parents = |archive: &mut CpioArchive, path: &str| -> io::Result<()> {
            for (end, _) in path.match_indices('/') {
                if known.insert(path[..end].to_owned()) {
                    archive.directory(&path[..end])?;
                }
            }
            Ok(())
        };
        for (path, bytes) in &self.files {
            parents(archive, path)?;
            archive.file(path, 0o755, bytes)?;
        }
        for applet in self.applets.iter().map(|applet| format!("bin/{applet}")) {
            if !self.files.contains_key(&applet) {
                let bash = applet == "bin/sh" && self.files.contains_key("bin/bash");
                archive.link(&applet, if bash { BASH } else { BUSYBOX })?;
            }
        }
        for (path, text) in [("etc/passwd", PASSWD), ("etc/group", GROUP)] {
            parents(archive, path)?;
            archive.file(path, 0o644, text.as_bytes())?;
        }
        // iproute2 looks for named namespaces in /var/run.
        parents(archive, "var/run")?;
        archive.link("var/run", "/run")
    }

    fn add(&mut self, place: &str, path: &Path) -> Result<(), ImageError> {
        let bytes = fs::read(path).map_err(ImageError::io("tool", path))?;
        self.files.insert(place.to_owned(), bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_of_a_program_are_included() {
        let found = Source::Host.libraries(&std::env::current_exe().unwrap()).unwrap();
        for wanted in ["libc.so.6", "ld-linux-x86-64.so.2"] {
            let (place, path) = found.iter().find(|(place, _)| place.ends_with(wanted)).expect(wanted);
            assert!(!place.starts_with('/') && path.is_absolute() && path.exists(), "{place} {}", path.display());
        }
        let script = tempfile::NamedTempFile::new().unwrap();
        fs::write(script.path(), "#!/bin/sh\n").unwrap();
        assert!(Source::Host.libraries(script.path()).is_err());
    }

    #[test]
    fn unpacked_programs_come_with_unpacked_libraries() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["usr/bin", "usr/lib64", LIBRARY_DIRECTORIES[0]] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let this = std::env::current_exe().unwrap();
        fs::copy(&this, root.path().join("usr/bin/ip")).unwrap();
        let source = Source::Unpacked(root.path().to_owned());
        let program = source.find("ip").unwrap();
        assert!(source.libraries(&program).is_err(), "missing libraries are not replaced by the host's");
        for (place, path) in Source::Host.libraries(&this).unwrap() {
            let dir = if place.starts_with("lib64/") { "usr/lib64" } else { LIBRARY_DIRECTORIES[0] };
            fs::copy(&path, root.path().join(dir).join(path.file_name().unwrap())).unwrap();
            let _ = fs::copy(&path, root.path().join(dir).join(Path::new(&place).file_name().unwrap()));
        }
        let found = source.libraries(&program).unwrap();
        for (place, path) in &found {
            assert!(path.starts_with(root.path().canonicalize().unwrap()), "{place} {}", path.display());
            assert!(!place.contains("tmp"), "{place}");
        }
        assert!(found.iter().any(|(place, _)| place == "lib64/ld-linux-x86-64.so.2"), "{found:?}");
    }

    #[test]
    fn tools_replace_applets_of_the_same_name_and_directories_are_unique() {
        let files = ["bin/busybox", "bin/ip", "lib/x86/libc.so", "lib64/ld.so"];
        let toolbox = Toolbox {
            files: files.map(|path| (path.to_owned(), b"x".to_vec())).into(),
            applets: ["ip", "sh"].map(str::to_owned).to_vec(),
            absent: Vec::new(),
        };
        let mut archive = CpioArchive::new();
        toolbox.pack(&mut archive, &["etc", "lib"]).unwrap();
        let names = crate::archive::names(&archive.finish().unwrap());
        assert_eq!(
            names.join(" "),
            "bin bin/busybox bin/ip lib/x86 lib/x86/libc.so lib64 lib64/ld.so bin/sh etc/passwd etc/group var var/run"
        );
    }
}
