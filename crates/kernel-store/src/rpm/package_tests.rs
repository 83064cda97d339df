use super::*;
use std::{fs::File, io::Write};

/// Made by rpmbuild and rpmsign 4.18.0, with the two compressions of Fedora and of RHEL.
const ZSTD: &[u8] = include_bytes!("testdata/kernel-core-zstd.rpm");
const XZ: &[u8] = include_bytes!("testdata/kernel-core-xz.rpm");
const CLAIMS: Claims<'_> = Claims { name: "kernel-core", version: "6.12.3-1.fc40" };

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

fn unpack(bytes: &[u8], claims: &Claims<'_>) -> std::result::Result<(String, Vec<String>), Refusal> {
    let stage = tempfile::tempdir().unwrap();
    let mut found = UnpackedFiles::default();
    let mut package = RpmFile::open(file(bytes))?;
    package.check(claims)?;
    package.unpack(stage.path(), &mut found)?;
    let files = walkdir::WalkDir::new(stage.path()).sort_by_file_name().into_iter().flatten();
    let files = files.filter(|it| it.file_type().is_file());
    let names = files.map(|it| it.path().strip_prefix(stage.path()).unwrap().display().to_string()).collect();
    Ok((found.release()?, names))
}

#[test]
fn what_rpmbuild_writes_is_unpacked() {
    for bytes in [ZSTD, XZ] {
        let (release, files) = unpack(bytes, &CLAIMS).unwrap();
        assert_eq!(release, "6.12.3-mine");
        assert_eq!(files, ["root/lib/modules/6.12.3-mine/kernel/readme", "vmlinuz"]);
    }
}

#[test]
fn what_rpmsign_signs_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/src/rpm/testdata/key.asc");
    let keys = Keyring::open(Path::new(key), dir.path()).unwrap();
    RpmFile::open(file(ZSTD)).unwrap().verify(&keys, "kernel-core", dir.path()).unwrap();

    // One bit of the header, of the signature, and a package without one.
    let mut package = RpmFile::open(file(ZSTD)).unwrap();
    *package.header.bytes.last_mut().unwrap() ^= 1;
    let error = package.verify(&keys, "kernel-core", dir.path()).unwrap_err().to_string();
    assert!(error.starts_with("gpgv of kernel-core failed: "), "{error}");
    let mut package = RpmFile::open(file(ZSTD)).unwrap();
    package.signature.tags = 0;
    let error = package.verify(&keys, "kernel-core", dir.path()).unwrap_err().to_string();
    assert!(error.contains("has no signature of its header"), "{error}");
    let other = dir.path().join("other");
    fs::write(&other, b"no key").unwrap();
    let keys = Keyring::open(&other, dir.path()).unwrap();
    let error = RpmFile::open(file(ZSTD)).unwrap().verify(&keys, "kernel-core", dir.path()).unwrap_err().to_string();
    assert!(error.starts_with("gpgv of kernel-core failed: "), "{error}");
}

#[test]
fn another_package_and_another_payload_are_refused() {
    let told = |bytes: &[u8], claims: Claims<'_>| unpack(bytes, &claims).unwrap_err().to_string();
    assert_eq!(
        told(ZSTD, Claims { version: "6.12.4-1.fc40", ..CLAIMS }),
        "is kernel-core 6.12.3-1.fc40 x86_64, but kernel-core 6.12.4-1.fc40 x86_64 was expected"
    );
    assert!(told(ZSTD, Claims { name: "kernel", ..CLAIMS }).contains("but kernel 6.12.3-1.fc40 x86_64 was expected"));
    let mut changed = ZSTD.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    assert!(told(&changed, CLAIMS).starts_with("is damaged: its payload is sha256:"));
}

#[test]
fn a_package_that_ends_early_is_refused() {
    for length in (0..ZSTD.len()).step_by(151).chain([ZSTD.len() - 1]) {
        let error = unpack(&ZSTD[..length], &CLAIMS).unwrap_err();
        assert!(matches!(error, Refusal::Archive(_)), "{length}: {error}");
    }
}

/// Headers whose numbers are not true.
#[test]
fn a_header_that_lies_is_refused_without_the_memory_that_it_asks_for() {
    let at = |offset: usize, bytes: &[u8]| {
        let mut changed = ZSTD.to_vec();
        changed[offset..offset + bytes.len()].copy_from_slice(bytes);
        unpack(&changed, &CLAIMS)
    };
    let told = at(LEAD + 8, &[0xff; 8]).unwrap_err().to_string();
    assert!(told.contains("which no kernel has"), "{told}");
    let told = at(LEAD + 12, &[0, 0xff, 0, 0]).unwrap_err().to_string();
    assert_eq!(told, "ends in its signature header");
    // Offsets and counts of the tags of both headers.
    let signature = RpmFile::open(file(ZSTD)).unwrap().signature.bytes.len();
    for header in [LEAD, LEAD + signature.next_multiple_of(8)] {
        for entry in 0..8 {
            for field in [4, 8, 12] {
                let _ = at(header + 16 + entry * 16 + field, &[0x7f, 0xff, 0xff, 0xff]);
            }
        }
    }
}

/// An archive of `(name, mode, links, content)`.
fn archive(entries: &[(&str, u32, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, mode, links, content) in entries.iter().chain([&("TRAILER!!!", 0, 1, &b""[..])]) {
        let (size, length) = (content.len(), name.len() + 1);
        bytes.extend(format!("070701{:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{size:08x}", 1, 0, 0, 0).bytes());
        bytes.extend(format!("{:08x}{:08x}{:08x}{:08x}{length:08x}{:08x}{name}\0", 0, 0, 0, 0, 0).bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

#[test]
fn entries_that_are_no_files_of_a_kernel_are_refused() {
    const FILE: u32 = 0o100_644;
    let unpack = |entries: &[(&str, u32, u32, &[u8])]| {
        let outer = tempfile::tempdir().unwrap();
        let stage = outer.path().join("stage");
        fs::create_dir(&stage).unwrap();
        let mut found = UnpackedFiles::default();
        let told = cpio(&*archive(entries), &stage, &mut found);
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
        told.and_then(|()| found.release()).map_err(|error| error.to_string())
    };
    let image = ("./boot/vmlinuz-6.12.3", FILE, 1, &b"image"[..]);
    assert_eq!(unpack(&[image]).unwrap(), "6.12.3");
    let beside = ("/usr/lib/modules/6.12.3/vmlinuz", FILE, 1, &b"image"[..]);
    let link = ("/boot/vmlinuz-6.12.3", 0o120_777, 1, &b"../usr/lib"[..]);
    assert_eq!(unpack(&[beside, link]).unwrap(), "6.12.3");
    for (entry, wanted) in [
        (("./boot/vmlinuz-6.12.3", FILE, 1, &b"two"[..]), "occurs twice"),
        (("./lib/modules/../../x", FILE, 1, &b""[..]), "is outside of the directory"),
        (("./lib/modules/6.12.3/a.ko", 0o120_777, 1, &b"/etc/passwd"[..]), "is a link or a special file"),
        (("./lib/modules/6.12.3/a.ko", FILE, 2, &b""[..]), "is a link or a special file"),
        (("./lib/modules/6.12.3/a", 0o020_644, 1, &b""[..]), "is a link or a special file"),
        (("./lib/modules/6.12.4/a.ko", FILE, 1, &b""[..]), "has several kernels"),
    ] {
        let told = unpack(&[image, entry]).unwrap_err();
        assert!(told.contains(wanted), "{told}");
    }
    let whole = archive(&[image]);
    for length in (0..whole.len() - 4).step_by(7) {
        let stage = tempfile::tempdir().unwrap();
        assert!(cpio(&whole[..length], stage.path(), &mut UnpackedFiles::default()).is_err(), "{length}");
    }
}
