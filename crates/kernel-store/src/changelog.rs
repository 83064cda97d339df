//! The changelog of a Debian kernel: titles of the upstream commits in a package.

use super::{
    error::{KernelsError, Result},
    untar::{self, Refusal},
};
use lab_base::process;
use lab_protocol::KernelVersion;
use std::{io::Read, path::Path};

/// Maximum size of a changelog, uncompressed, bytes: that of 6.12 has 2 MiB after a year.
const MAX_BYTES: u64 = 64 << 20;

/// The changelog in a `.deb`.
///
/// # Errors
/// The package is damaged or has none.
pub(super) fn of_package(deb: &Path) -> Result<String> {
    let broken = |reason: String| {
        let archive = deb.file_name().unwrap_or_default().to_string_lossy().into_owned();
        KernelsError::Archive { archive, reason }
    };
    let stream = process::command("dpkg-deb", ["--fsys-tarfile".as_ref(), deb.as_os_str()]).stderr_null().reader();
    let stream = stream.map_err(|error| process::start_error("dpkg-deb --fsys-tarfile", "dpkg", &error))?;
    let mut found = None;
    let read = untar::entries(&stream, |name, entry| {
        if Path::new(name).file_name() != Some("changelog.gz".as_ref()) {
            return Ok(true);
        }
        let mut text = Vec::new();
        let unpacked = flate2::read::GzDecoder::new(entry).take(MAX_BYTES).read_to_end(&mut text);
        unpacked.map_err(|error| Refusal::Archive(error.to_string()))?;
        found = Some(String::from_utf8_lossy(&text).into_owned());
        Ok(false)
    });
    // The rest of the package is not needed.
    let _ = stream.kill();
    read.map_err(|refusal| broken(refusal.to_string()))?;
    found.ok_or_else(|| broken("the package has no changelog.gz".to_owned()))
}

/// The entries since an earlier version, each line with its package version.
pub fn news(changelog: &str, before: KernelVersion) -> Vec<(String, String)> {
    let mut news = Vec::new();
    let mut entry = None;
    for line in changelog.lines() {
        // `linux (6.12.57-1) trixie; urgency=medium`; a backport's source package is named `linux-6.12`.
        let head = line.strip_prefix("linux").and_then(|rest| rest.split_once('(')?.1.split_once(')'));
        if let Some((version, _)) = head {
            if version.parse::<KernelVersion>().is_ok_and(|version| version <= before) {
                break;
            }
            entry = Some(version.to_owned());
        } else if let (Some(version), false) = (&entry, line.trim().is_empty() || line.starts_with(" --")) {
            news.push((version.clone(), line.trim().trim_start_matches(['-', '*']).trim().to_owned()));
        }
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "linux (6.12.57-1) trixie; urgency=medium\n\n  * New upstream stable update:\n    \
        - bpf: Enforce expected_attach_type for tailcall compatibility\n\n -- A <a@a.example>  Wed, 05 Nov 2025\n\n\
        linux (6.12.48-1) trixie-security; urgency=high\n\n    - net: other\n\n -- A\n\n\
        linux (6.12.43-1~bpo12+1) bookworm-backports; urgency=medium\n\n    - net: old\n";

    #[test]
    fn news_end_before_the_earlier_version() {
        let entry = |version: &str, line: &str| (version.to_owned(), line.to_owned());
        assert_eq!(
            news(TEXT, KernelVersion::new(6, 12, 43)),
            [
                entry("6.12.57-1", "New upstream stable update:"),
                entry("6.12.57-1", "bpf: Enforce expected_attach_type for tailcall compatibility"),
                entry("6.12.48-1", "net: other"),
            ]
        );
        assert!(news(TEXT, KernelVersion::new(6, 12, 57)).is_empty());
    }
}
