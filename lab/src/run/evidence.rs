//! Files that a failed cell leaves, on disk under names of the host's own making.

use crate::error::Error;
use lab_protocol::{CellReport, attachment::Attachment};
use std::{collections::BTreeSet, fs, path::Path};

/// Directory of the cells' files in a kernel's directory.
const CELLS: &str = "cells";
/// Characters of a name that stay.
const MAX_NAME: usize = 120;

/// Takes the files out of a report and writes them as [`write`] does.
///
/// # Errors
/// A file can't be written.
pub(super) fn keep(directory: &Path, kernel: &str, owner: &str, report: &mut CellReport) -> Result<Vec<String>, Error> {
    write(directory, kernel, owner, &std::mem::take(&mut report.attachments))
}

/// Writes files below a kernel's directory, in one named after whom they belong to. Gives their paths from the run's
/// directory on.
///
/// # Errors
/// A file can't be written.
pub(super) fn write(
    directory: &Path,
    kernel: &str,
    owner: &str,
    attachments: &[Attachment],
) -> Result<Vec<String>, Error> {
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
        paths.push(format!("{kernel}/{CELLS}/{name}/{file}"));
    }
    Ok(paths)
}

fn file_name(attachment: &Attachment, taken: &mut BTreeSet<String>) -> String {
    let (name, extension) = (safe(&attachment.name), attachment.kind.extension());
    let names = (1..).map(|number| match number {
        1 => format!("{name}.{extension}"),
        _ => format!("{name}-{number}.{extension}"),
    });
    let mut free = names.filter(|name| taken.insert(name.clone()));
    free.next().unwrap_or_default()
}

/// A name that is one harmless path component: a guest chose the text.
fn safe(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let safe: String = name.chars().take(MAX_NAME).map(plain).collect();
    let safe = safe.trim_matches(['.', '-']);
    if safe.is_empty() { "unnamed".to_owned() } else { safe.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_protocol::attachment::AttachmentKind;
    use lab_record::testing::passed;

    #[test]
    fn names_from_a_guest_stay_inside_the_cells_directory() {
        let run = tempfile::tempdir().unwrap();
        let mut report = passed("T01-x[tc,veth]", Vec::new());
        for name in ["../../etc/passwd", "/abs", "..", "w0", "w0", "a\0b\n"] {
            let bytes = name.as_bytes().to_vec();
            report.attachments.push(Attachment { name: name.to_owned(), kind: AttachmentKind::Pcap, bytes });
        }
        let paths = keep(&run.path().join("6.1"), "6.1", "T01-x[tc,veth]", &mut report).unwrap();
        assert!(report.attachments.is_empty(), "events stay small");
        let files: Vec<&str> =
            paths.iter().map(|path| path.strip_prefix("6.1/cells/T01-x-tc-veth/").unwrap()).collect();
        assert_eq!(files, ["etc-passwd.pcap", "abs.pcap", "unnamed.pcap", "w0.pcap", "w0-2.pcap", "a-b.pcap"]);
        assert!(paths.iter().all(|path| run.path().join(path).is_file()));
    }
}
