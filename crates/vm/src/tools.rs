//! QEMU's version, which belongs into every result: QEMU 7.2 was seen to panic guests under TCG, and a random panic is
//! first QEMU's, then the kernel's. It is asked every time, since the distribution upgrades it in place. virtme-ng is not
//! asked: it is pinned, and its Python would cost more than a restored guest.

use super::VmError;
use duct::cmd;
use std::path::Path;

/// vng's choice where nobody makes another.
const DEFAULT_QEMU: &str = "qemu-system-x86_64";

/// QEMU's version with the distribution's: `7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)`.
///
/// # Errors
/// [`VmError::Spawn`] where it is not there, [`VmError::Tool`] where it prints no version.
pub fn qemu_version(qemu: Option<&Path>) -> Result<String, VmError> {
    version_of(qemu.unwrap_or(Path::new(DEFAULT_QEMU)))
}

fn version_of(program: &Path) -> Result<String, VmError> {
    // As a string: duct takes a relative `Path` for a file in the working directory and never searches PATH for it.
    let text = cmd(program.as_os_str(), ["--version"])
        .stdin_null()
        .stderr_to_stdout()
        .unchecked()
        .read()
        .map_err(|source| VmError::Spawn { program: program.to_owned(), source })?;
    version_in(&text).ok_or_else(|| VmError::Tool {
        program: program.display().to_string(),
        problem: format!(
            "is no QEMU: --version printed `{}`; correct or unset NETKIT_LAB_QEMU",
            text.lines().next().unwrap_or_default()
        ),
    })
}

/// The version in QEMU's own words: every other program that prints one is no QEMU.
fn version_in(text: &str) -> Option<String> {
    let words: Vec<_> = text.lines().next()?.strip_prefix("QEMU emulator version ")?.split_whitespace().collect();
    words.first()?.starts_with(|c: char| c.is_ascii_digit()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_the_programs_print_them() {
        let qemu = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022";
        assert_eq!(version_in(qemu).unwrap(), "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)");
        assert_eq!(version_in("Traceback (most recent call last):"), None);
        assert_eq!(version_in("false (GNU coreutils) 9.1"), None);
        let error = version_of(Path::new("/nonexistent/vng")).unwrap_err().to_string();
        assert!(error.starts_with("can't start /nonexistent/vng"), "{error}");
    }
}
