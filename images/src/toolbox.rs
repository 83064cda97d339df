//! A shell and network tools from the host, with the libraries that they are linked against.

use crate::{archive::Archive, error::ImageError};
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
/// Terminal descriptions: Debian's `ncurses-base`.
const TERMINALS: &str = "/lib/terminfo";
/// Search path for programs; not every user's `PATH` includes the administrator's directories.
const SYSTEM: &str = "/usr/sbin:/sbin:/usr/bin:/bin";
/// tcpdump drops root for the user `tcpdump`, which is root again in a guest.
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\ntcpdump:x:0:0:tcpdump:/:/bin/sh\n";
const GROUP: &str = "root:x:0:\n";

/// The tools of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolbox {
    /// Programs and libraries by their path in the image.
    files: BTreeMap<String, Vec<u8>>,
    /// Names of busybox's applets.
    applets: Vec<String>,
    /// Programs of [`PROGRAMS`] that this host does not have.
    pub absent: Vec<&'static str>,
}

impl Toolbox {
    /// Collects the tools.
    ///
    /// # Errors
    /// [`ImageError::NoShell`] without a static busybox; [`ImageError::Io`] and [`ImageError::Tool`] for a program that can't
    /// be read.
    pub fn collect() -> Result<Self, ImageError> {
        let busybox = find(BUSYBOX).ok_or(ImageError::NoShell { problem: "there is none".to_owned() })?;
        let listed = std::process::Command::new(&busybox).arg("--list").output();
        let listed = listed.map_err(ImageError::io("busybox", &busybox))?;
        let applets = String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect();
        let mut toolbox = Self { files: BTreeMap::new(), applets, absent: Vec::new() };
        if !toolbox.libraries(&busybox)?.is_empty() {
            return Err(ImageError::NoShell { problem: format!("{} is linked dynamically", busybox.display()) });
        }
        toolbox.add("bin/busybox", &busybox)?;
        for (name, _) in PROGRAMS {
            let Some(path) = find(name) else {
                toolbox.absent.push(name);
                continue;
            };
            toolbox.add(&format!("bin/{name}"), &path)?;
            for (place, library) in toolbox.libraries(&path)? {
                if !toolbox.files.contains_key(&place) {
                    toolbox.add(&place, &library)?;
                }
            }
        }
        for entry in walkdir::WalkDir::new(TERMINALS).into_iter().flatten().filter(|entry| !entry.file_type().is_dir())
        {
            toolbox.add(entry.path().to_string_lossy().trim_start_matches('/'), entry.path())?;
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
    pub(crate) fn pack(&self, archive: &mut Archive, there: &[&str]) -> io::Result<()> {
        let mut known: BTreeSet<String> = there.iter().map(|path| (*path).to_owned()).collect();
        let mut parents = |archive: &mut Archive, path: &str| -> io::Result<()> {
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

    /// The libraries and the loader of a program: their paths in the image, and on the host.
    fn libraries(&self, program: &Path) -> Result<Vec<(String, PathBuf)>, ImageError> {
        let broken = |problem: &dyn std::fmt::Display| ImageError::Tool {
            path: program.to_owned(),
            problem: problem.to_string(),
        };
        let tree = DependencyAnalyzer::default().analyze(program).map_err(|error| broken(&error))?;
        let mut found = Vec::new();
        let place = |path: &Path| path.to_string_lossy().trim_start_matches('/').to_owned();
        for library in tree.libraries.into_values() {
            let real = library.realpath.ok_or_else(|| broken(&format!("{} is not installed", library.name)))?;
            found.push((place(&library.path), real));
        }
        if let Some(loader) = tree.interpreter {
            found.push((place(Path::new(&loader)), PathBuf::from(loader)));
        }
        Ok(found)
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all = path.to_os_string();
    all.push(":");
    all.push(SYSTEM);
    which::which_in(program, Some(all), "/").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_of_a_program_are_included() {
        let toolbox = Toolbox { files: BTreeMap::new(), applets: Vec::new(), absent: Vec::new() };
        let found = toolbox.libraries(&std::env::current_exe().unwrap()).unwrap();
        for wanted in ["libc.so.6", "ld-linux-x86-64.so.2"] {
            let (place, path) = found.iter().find(|(place, _)| place.ends_with(wanted)).expect(wanted);
            assert!(!place.starts_with('/') && path.is_absolute() && path.exists(), "{place} {}", path.display());
        }
        let script = tempfile::NamedTempFile::new().unwrap();
        fs::write(script.path(), "#!/bin/sh\n").unwrap();
        assert!(toolbox.libraries(script.path()).is_err());
    }

    #[test]
    fn tools_replace_applets_of_the_same_name_and_directories_are_unique() {
        let files = ["bin/busybox", "bin/ip", "lib/x86/libc.so", "lib64/ld.so"];
        let toolbox = Toolbox {
            files: files.map(|path| (path.to_owned(), b"x".to_vec())).into(),
            applets: ["ip", "sh"].map(str::to_owned).to_vec(),
            absent: Vec::new(),
        };
        let mut archive = Archive::new();
        toolbox.pack(&mut archive, &["etc", "lib"]).unwrap();
        let names = crate::archive::names(&archive.finish().unwrap());
        assert_eq!(
            names.join(" "),
            "bin bin/busybox bin/ip lib/x86 lib/x86/libc.so lib64 lib64/ld.so bin/sh etc/passwd etc/group var var/run"
        );
    }
}
