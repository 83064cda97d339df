//! Writes the files of failed cells to disk, under names that the host chooses.

use super::drawing::only_draws;
use crate::error::Error;
use lab_guard::{Id, Inside};
use lab_protocol::{
    CellReport,
    attachment::{Attachment, AttachmentKind},
};
use std::{collections::BTreeSet, fs, path::Path};

/// Directory for cells' files in a kernel's directory.
const CELLS: &str = "cells";
/// Maximum characters of a file name.
const MAX_NAME: usize = 120;

/// Directory of an owner's files, below the kernel's.
pub(crate) fn home(owner: &str) -> String {
    format!("{CELLS}/{}", safe(owner))
}

/// Removes the files from a report and writes them as [`write`] does.
///
/// # Errors
/// A file can't be written.
pub(super) fn keep(directory: &Path, kernel: &Id, owner: &str, report: &mut CellReport) -> Result<Vec<Inside>, Error> {
    write(directory, kernel, owner, &std::mem::take(&mut report.attachments))
}

/// Writes files to a directory named after their owner below a kernel's directory. Returns their paths relative to the
/// run's directory.
///
/// # Errors
/// A file can't be written.
pub(super) fn write(
    directory: &Path,
    kernel: &Id,
    owner: &str,
    attachments: &[Attachment],
) -> Result<Vec<Inside>, Error> {
    if attachments.is_empty() {
        return Ok(Vec::new());
    }
    let name = safe(owner);
    let home = directory.join(CELLS).join(&name);
    fs::create_dir_all(&home).map_err(Error::file("create", &home))?;
    let mut taken = BTreeSet::new();
    let mut paths = Vec::new();
    for attachment in attachments {
        let file = file_name(attachment, &mut taken);
        let path = home.join(&file);
        fs::write(&path, &attachment.bytes).map_err(Error::file("write", &path))?;
        // Names made by [`safe`] are always valid paths.
        let inside = Inside::new(&format!("{kernel}/{CELLS}/{name}/{file}"));
        paths.push(inside.map_err(|error| Error::Host(error.to_string()))?);
    }
    Ok(paths)
}

fn file_name(attachment: &Attachment, taken: &mut BTreeSet<String>) -> String {
    let kind = match attachment.kind {
        // The file must not be opened as the type that it claims to be.
        AttachmentKind::Svg if !only_draws(&attachment.bytes) => AttachmentKind::Text,
        kind => kind,
    };
    let (name, extension) = (safe(&attachment.name), kind.extension());
    let names = (1..).map(|number| match number {
        1 => format!("{name}.{extension}"),
        _ => format!("{name}-{number}.{extension}"),
    });
    let mut free = names.filter(|name| taken.insert(name.clone()));
    free.next().unwrap_or_default()
}

/// A name that is a single harmless path component: the text comes from a guest.
pub(super) fn safe(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let safe: String = name.chars().take(MAX_NAME).map(plain).collect();
    let safe = safe.trim_matches(['.', '-']);
    if safe.is_empty() { "unnamed".to_owned() } else { safe.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_record::testing::passed;

    #[test]
    fn a_drawing_with_a_script_is_stored_as_text() {
        let mut taken = BTreeSet::new();
        let mut named = |bytes: &[u8]| {
            let attachment = Attachment { name: "t".into(), kind: AttachmentKind::Svg, bytes: bytes.to_vec() };
            file_name(&attachment, &mut taken)
        };
        assert_eq!(named(b"<svg><rect x='1'/></svg>"), "t.svg");
        assert_eq!(named(b"<svg onload='x()'/>"), "t.txt");
    }

    #[test]
    fn names_from_a_guest_stay_inside_the_cells_directory() {
        let run = tempfile::tempdir().unwrap();
        let mut report = passed("T01-x[tc,veth]", Vec::new());
        for name in ["../../etc/passwd", "/abs", "..", "w0", "w0", "a\0b\n"] {
            let bytes = name.as_bytes().to_vec();
            report.attachments.push(Attachment { name: name.to_owned(), kind: AttachmentKind::Pcap, bytes });
        }
        let paths = keep(&run.path().join("6.1"), &Id::new("6.1").unwrap(), "T01-x[tc,veth]", &mut report).unwrap();
        assert!(report.attachments.is_empty(), "events stay small");
        let files: Vec<&str> =
            paths.iter().map(|path| path.strip_prefix("6.1/cells/T01-x-tc-veth/").unwrap()).collect();
        assert_eq!(files, ["etc-passwd.pcap", "abs.pcap", "unnamed.pcap", "w0.pcap", "w0-2.pcap", "a-b.pcap"]);
        assert!(paths.iter().all(|path| run.path().join(&**path).is_file()));
    }
}
