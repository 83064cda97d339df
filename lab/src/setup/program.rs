//! Reads the version of a program; the user's choice of QEMU.

use std::path::{Path, PathBuf};

use duct::cmd;

use lab_base::{facts::Facts, programs};
use lab_vm::{VmError, qemu_version};

/// The oldest QEMU that is used if a newer one can be unpacked: 7.2 sets wrong flags after cmpxchg16b.
pub(super) const QEMU_SERVES: (u32, u32, u32) = (9, 0, 0);

/// Environment variable with the path of the QEMU binary to use instead of the first `qemu-system-x86_64` in `PATH`.
pub const QEMU_VARIABLE: &str = "NETKIT_LAB_QEMU";

/// The QEMU that the user chose through [`QEMU_VARIABLE`].
pub fn chosen_qemu() -> Option<PathBuf> {
    std::env::var_os(QEMU_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A program and its version, which it printed when started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostProgram {
    /// Its path.
    pub path: PathBuf,
    /// Major, minor and patch; `None` where it did not start or printed no version.
    pub version: Option<(u32, u32, u32)>,
    /// QEMU's version with the distribution's, for reports.
    pub full: Option<String>,
    /// Why no guest can use it although it starts.
    pub objection: Option<String>,
}

impl HostProgram {
    pub(super) fn ask(path: PathBuf) -> Self {
        let output = cmd(&path, ["--version"])
            .env("PATH", programs::search_path())
            .stdin_null()
            .stderr_to_stdout()
            .unchecked()
            .read();
        Self { version: output.ok().and_then(|text| first_version(&text)), path, full: None, objection: None }
    }

    /// As [`Self::ask`], for QEMU: the version of any other program is ignored.
    pub(super) fn ask_qemu(path: PathBuf) -> Self {
        match qemu_version(Some(&path)) {
            Ok(text) => Self { version: first_version(&text), path, full: Some(text), objection: None },
            Err(error @ VmError::Unreachable { .. }) => {
                Self { version: None, path, full: None, objection: Some(error.to_string()) }
            }
            Err(_) => Self { version: None, path, full: None, objection: None },
        }
    }

    /// As [`Self::ask_qemu`], with an answer that was kept. What goes wrong is asked again, for its error.
    pub(super) fn known_qemu(path: PathBuf, facts: &Facts, tools: &Path) -> Self {
        let Some(files) = files_of(&path, tools) else { return Self::ask_qemu(path) };
        match facts.of_files("QEMU's version", &paths(&files), || qemu_version(Some(&path))) {
            Ok(text) => Self { version: first_version(&text), path, full: Some(text), objection: None },
            Err(_) => Self::ask_qemu(path),
        }
    }

    /// The version as `1.2.3`, or `does not start`.
    pub fn version_text(&self) -> String {
        self.version.map_or("does not start".into(), |(major, minor, patch)| format!("{major}.{minor}.{patch}"))
    }
}

/// The files that decide what a program says of itself: its own, and for a start script of the lab's the loader and the program
/// that it starts. `None` for a script of somebody else's, which may start anything.
pub(super) fn files_of(program: &Path, tools: &Path) -> Option<Vec<PathBuf>> {
    let named = program.to_str().filter(|name| !name.contains('/'));
    let path = named.map_or_else(|| Some(program.to_owned()), programs::find)?;
    if !lab_guard::bounded::head(&path, 2).is_ok_and(|begin| begin == b"#!") {
        return path.canonicalize().ok().map(|path| vec![path]);
    }
    if !path.starts_with(tools) {
        return None;
    }
    let script = path.canonicalize().ok()?;
    let real = script.parent()?.parent()?.join("usr/bin").join(script.file_name()?);
    let mut loader = real.clone().into_os_string();
    loader.push(".loader");
    let files = vec![script, real, PathBuf::from(loader)];
    files.iter().all(|file| file.is_file()).then_some(files)
}

/// The same as borrowed paths.
pub(super) fn paths(files: &[PathBuf]) -> Vec<&Path> {
    files.iter().map(PathBuf::as_path).collect()
}

/// The first dotted number in a program's version line.
fn first_version(text: &str) -> Option<(u32, u32, u32)> {
    let candidates = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    let mut dotted = candidates.filter(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()));
    dotted.find_map(|word| {
        let mut parts = word.split('.').map(str::parse::<u32>);
        let major = parts.next()?.ok()?;
        let minor = parts.next()?.ok()?;
        Some((major, minor, parts.next().and_then(Result::ok).unwrap_or(0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_real_output() {
        let cases = [
            ("rustc 1.95.0 (59807616e 2026-04-14)", Some((1, 95, 0))),
            ("rustc 1.97.0-nightly (e50aa6fba 2026-05-19)", Some((1, 97, 0))),
            ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", Some((7, 2, 22))),
            ("QEMU emulator version 10.0 (custom)", Some((10, 0, 0))),
            ("bpf-linker 0.13.0", Some((0, 13, 0))),
            ("error while loading shared libraries: libLLVM.so.22.1: no such file", None),
            ("...", None),
            ("", None),
        ];
        for (text, version) in cases {
            assert_eq!(first_version(text), version, "{text}");
        }
    }
}
