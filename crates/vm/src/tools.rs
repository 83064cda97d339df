//! QEMU's version, which every result names: QEMU 7.2 has panicked guests under TCG, so a random panic may be QEMU's
//! fault. It is read again whenever QEMU's files have changed (`facts.rs`), because the distribution upgrades QEMU in place.
//! virtme-ng's version is pinned; asking for it would start Python and take longer than restoring a guest.

use super::{
    VmError,
    confine::{Reach, confine},
};
use duct::cmd;
use lab_base::{programs, text};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The QEMU program that vng uses by default.
pub const DEFAULT_QEMU: &str = "qemu-system-x86_64";

/// QEMU's version with the distribution's: `7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)`.
///
/// # Errors
/// [`VmError::Spawn`] if it is not installed, [`VmError::Tool`] if it prints no version.
///
/// A script is started a second time, confined as a guest is: Landlock would otherwise refuse the QEMU that it starts, and
/// the guest's error would say nothing of the reason.
pub fn qemu_version(qemu: Option<&Path>) -> Result<String, VmError> {
    let program = qemu.unwrap_or(Path::new(DEFAULT_QEMU));
    let version = version_of(program)?;
    if let Some(script) = foreign_script(program) {
        confined_version_of(&script)?;
    }
    Ok(version)
}

/// The path of a program that is a script and not one of the lab's own.
fn foreign_script(program: &Path) -> Option<PathBuf> {
    let named = program.to_str().filter(|name| !name.contains('/'));
    let path = named.map_or_else(|| Some(program.to_owned()), programs::find)?;
    let begin = lab_guard::bounded::head(&path, 2).ok()?;
    let ours = lab_base::paths::cache_dir().is_ok_and(|cache| path.starts_with(programs::tools(&cache)));
    (begin == b"#!" && !ours).then_some(path)
}

fn confined_version_of(script: &Path) -> Result<(), VmError> {
    let spawn = |cause| VmError::Spawn { program: script.to_owned(), cause };
    let mut command = Command::new(script);
    command.arg("--version").stdin(Stdio::null());
    confine(&mut command, &Reach::of_program(script)).map_err(spawn)?;
    let output = command.output().map_err(spawn)?;
    if version_in(&String::from_utf8_lossy(&output.stdout)).is_some() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = text::line(said.trim().lines().last().unwrap_or("no output"), 200);
    Err(VmError::Unreachable { script: script.to_owned(), said })
}

fn version_of(program: &Path) -> Result<String, VmError> {
    // As a string: given a relative `Path`, duct uses a file of the working directory and never searches PATH.
    let text = cmd(program.as_os_str(), ["--version"])
        .env("PATH", programs::search_path())
        .stdin_null()
        .stderr_to_stdout()
        .unchecked()
        .read()
        .map_err(|cause| VmError::Spawn { program: program.to_owned(), cause })?;
    version_in(&text).ok_or_else(|| VmError::Tool {
        program: program.display().to_string(),
        problem: format!(
            "is not QEMU: --version printed `{}`; correct or unset NETKIT_LAB_QEMU",
            text.lines().next().unwrap_or_default()
        ),
    })
}

/// What QEMU prints, where it succeeds.
pub fn answer(qemu: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(qemu);
    command.env("PATH", programs::search_path()).args(arguments).stdin(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether the translator of a QEMU with this version sets the flags of cmpxchg16b as a processor does. Up to 7.2 it computes the
/// others from the state that an earlier instruction left (helper_cmpxchg16b_unlocked, target/i386/tcg/mem_helper.c; fixed in 8.0
/// by "target/i386: Inline cmpxchg16b").
pub fn has_right_cmpxchg16b(version: &str) -> bool {
    version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 8)
}

/// Extracts the version from QEMU's output; programs with other output are not QEMU.
fn version_in(text: &str) -> Option<String> {
    let words: Vec<_> = text.lines().next()?.strip_prefix("QEMU emulator version ")?.split_whitespace().collect();
    words.first()?.starts_with(|c: char| c.is_ascii_digit()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cmpxchg16b_is_right_since_qemu_8() {
        for (version, right) in
            [("7.2.22 (Debian 1:7.2+dfsg-7)", false), ("8.0.0", true), ("11.1.3 (Debian)", true), ("custom", false)]
        {
            assert_eq!(has_right_cmpxchg16b(version), right, "{version}");
        }
    }

    #[test]
    fn the_version_is_parsed_from_qemu_output() {
        let qemu = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022";
        assert_eq!(version_in(qemu).unwrap(), "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)");
        assert_eq!(version_in("Traceback (most recent call last):"), None);
        assert_eq!(version_in("false (GNU coreutils) 9.1"), None);
        let error = version_of(Path::new("/nonexistent/vng")).unwrap_err().to_string();
        assert!(error.starts_with("can't start /nonexistent/vng"), "{error}");
    }
}
