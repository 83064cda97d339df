use super::*;
use crate::header;
use std::os::unix::fs::PermissionsExt;

/// A `vng` that copies a file instead of downloading; it records its calls in `calls`.
fn vng(dir: &Path, body: &str) -> PathBuf {
    let path = dir.join("vng");
    fs::write(&path, format!("#!/bin/sh\necho \"$@\" >> {}/calls\n{body}\n", dir.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn vng_downloads_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::write(at.join("image"), header::sample("6.12.43-061243-generic (a@b) #1 SMP")).unwrap();
    let tree = at.join(".cache/virtme-ng/v6.12.43/amd64");
    let script = format!(
        "mkdir -p {0}/boot {0}/lib/modules/6.12.43-061243-generic\ncp {1}/image {0}/boot/vmlinuz-6.12.43-061243-generic",
        tree.display(),
        at.display()
    );
    let vng = vng(at, &script);
    let mainline = Vng { vng: &vng, home: at.to_owned() };
    for _ in 0..2 {
        let local = mainline.download("v6.12.43", &|_| ()).unwrap();
        assert_eq!(local.banner().unwrap().version.to_string(), "6.12.43");
    }
    assert_eq!(fs::read_to_string(at.join("calls")).unwrap(), "--run v6.12.43 --dry-run\n");
}

#[test]
fn a_failing_vng_is_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let vng = vng(dir.path(), "echo could not find kernel packages >&2; exit 1");
    let mainline = Vng { vng: &vng, home: dir.path().to_owned() };
    insta::assert_snapshot!(mainline.download("v6.99", &|_| ()).err().unwrap(),
        @"vng --run v6.99 --dry-run failed: exit status: 1: could not find kernel packages");
}

#[test]
fn mainline_versions_have_vngs_format() {
    for (text, wanted) in [("v6.12.43", true), ("v6.12-rc1", true), ("6.12", false), ("v6", false), ("v6.12/..", false)]
    {
        assert_eq!(is_mainline_tag(text), wanted, "{text}");
    }
}
